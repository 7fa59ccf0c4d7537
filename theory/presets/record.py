"""What a preset is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

import array_api_compat

from theory import checks
from theory.estimator import Estimator
from theory.groups import GroupSignal
from theory.signals import Signal
from theory.weights.registry import FAMILIES, Weight, weight
from theory.weights.tokens import check_like, constant_of, library_of

ANCHORS = {
    "none": "nothing: there is no ratio",
    "old": "log pi - log pi_old: against the policy at the start of the update",
    "rollout": "log pi - log mu: against the policy that generated the data",
    "old and rollout": "both: log pi - log pi_old, and log pi_old - log mu as a second factor",
}
"""What the ratio of a preset is taken against."""


@dataclass(frozen=True)
class Preset:
    """What a library or a paper computes under a name. Made by `theory.preset(name)`."""

    name: str
    """"library:recipe/aggregation", in the library's own words."""
    summary: str
    weight_name: str
    """The registered name of the weight."""
    weight_options: Mapping[str, Any] = field(default_factory=dict)
    """Its options; a weight inside a weight is (name, options)."""
    signal: Signal | GroupSignal = Signal("outcome")  # noqa: RUF009 - frozen
    """The advantage that the recipe goes with by the library's defaults; the loss takes whatever it is given."""
    reduction: str = "token_mean"
    """How the tokens of a batch are brought together, by the names of `theory.reduction`."""
    anchor: Literal["none", "old", "rollout", "old and rollout"] = "old"
    """Which log-probabilities the ratio is taken against."""
    settings: str = ""
    """How the library is told to compute it, and its defaults."""
    source: str = ""
    """The release whose code this is, or the paper."""
    caution: str = ""
    """What one should know before comparing it with something of the same name."""
    empty_count: bool = True
    """Whether sequences without a token that counts are part of a mean over sequences."""

    def __post_init__(self) -> None:
        """Keep the options from being changed."""
        object.__setattr__(self, "weight_options", MappingProxyType(dict(self.weight_options)))

    def __hash__(self) -> int:
        """By name and weight."""
        return hash((self.name, self.weight, self.signal, self.reduction))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the fields."""
        values = [getattr(self, f.name) for f in fields(self)]
        return Preset, tuple(dict(v) if isinstance(v, MappingProxyType) else v for v in values)

    @property
    def weight(self) -> Weight:
        """The weight, with the recipe's options."""
        return weight(self.weight_name, **{name: _made(value) for name, value in self.weight_options.items()})

    @property
    def estimator(self) -> Estimator:
        """Weight x signal x own score x reduction, for `theory.moments`.

        A preset with two anchors tells three policies apart: `theory.moments(..., old=...)`.
        """
        return Estimator(self.weight, self.signal, reduction=self.reduction)

    def log_ratios(self, logp: Any, mask: Any, old_logp: Any = None, rollout_logp: Any = None) -> dict[str, Any]:
        """The arrays that the weight's coefficients are computed from, by the names they go by there; 0 where masked.

        Raises:
            ValueError: log-probabilities that the anchor needs are missing, or arrays of another library or shape.
        """
        xp = library_of("logp", logp)
        check_like("mask", mask, xp, logp)
        needed = {"none": (), "old": ("old_logp",), "rollout": ("rollout_logp",)}
        values = {"logp": logp, "old_logp": old_logp, "rollout_logp": rollout_logp}
        counted: dict[str, Any] = {}
        for name in ("logp", *needed.get(self.anchor, ("old_logp", "rollout_logp"))):
            if values[name] is None:
                raise ValueError(f"preset {self.name!r} takes its ratio against {self.anchor}; expected {name}=...")
            check_like(name, values[name], xp, logp)
            counted[name] = xp.where(mask != 0, constant_of(values[name]), xp.zeros_like(constant_of(logp)))
        against = {"none": "logp", "old": "old_logp"}.get(self.anchor, "rollout_logp")
        found = {"log_ratio": counted["logp"] - counted[against]}
        if "old_log_ratio" in self.weight.needs:
            found["old_log_ratio"] = counted["old_logp"] - counted["rollout_logp"]
        if "log_probability" in self.weight.needs:
            found["log_probability"] = counted["logp"]
        return found

    def loss_gradient(
        self,
        logp: Any,
        advantages: Any,
        mask: Any,
        *,
        old_logp: Any = None,
        rollout_logp: Any = None,
        width: int | None = None,
    ) -> Any:
        """d loss / d logp of the loss that the library minimises, (N, T), zero where masked.

        It is -(coefficient x advantage x what the reduction gives each token: 1 / (N T), 1 / (N L), 1 / tokens).

        Args:
            logp: (N, T), log-probability of each token under the policy being trained.
            advantages: (N, T).
            mask: (N, T), true or non-zero where a token counts. What stands elsewhere is ignored.
            old_logp: (N, T), under the policy at the start of the update, where the anchor needs it.
            rollout_logp: (N, T), under the policy that generated the data, where the anchor needs it.
            width: the maximum length that reduction "constant" divides by; default the width T of the arrays.

        Raises:
            ValueError: as `theory.Weight.coefficients`; log-probabilities that the anchor needs are missing.
        """
        found = self.log_ratios(logp, mask, old_logp, rollout_logp)
        log_ratio = found.pop("log_ratio")
        xp = array_api_compat.array_namespace(log_ratio)
        check_like("advantages", advantages, xp, logp)
        c = self.weight.coefficients(log_ratio, mask, advantages, **found)
        signs = xp.where(mask != 0, xp.astype(constant_of(advantages), c.dtype, copy=False), xp.zeros_like(c))
        return -c * signs * token_shares(self.reduction, mask, like=c, width=width, empty_count=self.empty_count)

    def with_options(self, *, group_size: int | None = None, **options: Any) -> Preset:
        """The same preset with other options of its weight, or another size of its group."""
        family, whose = FAMILIES[self.weight_name], f"preset {self.name!r} (weight {self.weight_name!r})"
        for option in options:
            checks.known_name("option", option, family.options, of=whose)
        changed = replace(self, weight_options={**self.weight_options, **options})
        if group_size is not None:
            if not isinstance(self.signal, GroupSignal):
                raise ValueError(
                    f"group_size is {group_size!r} and preset {self.name!r} has no group; its signal is "
                    f"{self.signal.label}"
                )
            changed = replace(changed, signal=replace(self.signal, size=group_size))
        _ = changed.weight  # refuses options without meaning
        return changed


def token_shares(reduction: str, mask: Any, like: Any, width: int | None = None, empty_count: bool = True) -> Any:
    """What a batch's reduction multiplies each sequence's tokens with, (N, 1), of the type of `like`.

    "sum" 1/N, "length_mean" 1/(N L_i), "constant" 1/(N T) with T the width of the batch or the one given, "token_mean"
    1 / sum of L_i. N counts all sequences, or those with a token that counts.
    """
    xp = array_api_compat.array_namespace(like)
    length = xp.sum(xp.astype(mask != 0, like.dtype), axis=1, keepdims=True)
    one = xp.ones_like(length)
    if reduction == "token_mean":
        return one / xp.maximum(xp.sum(length), xp.ones_like(xp.sum(length)))
    sequences = xp.sum(one) if empty_count else xp.sum(xp.astype(length > 0, like.dtype))
    steps = mask.shape[1] if width is None else checks.whole_number("width", width, 1, "tokens")
    divisor = {"sum": one, "constant": one * steps, "length_mean": xp.maximum(length, one)}[reduction]
    return 1.0 / (xp.maximum(sequences, xp.ones_like(sequences)) * divisor)


def _made(value: Any) -> Any:
    """An option's value; (name, options) stands for a weight."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Mapping):
        return weight(value[0], **value[1])
    return value
