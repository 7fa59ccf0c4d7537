"""An estimator is four choices: weight, signal, score, reduction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from theory import checks
from theory.groups import GroupSignal
from theory.signals import Signal, signal
from theory.weights.registry import Weight, weight

REDUCTIONS = {
    "sum": "sum over the tokens of a trajectory",
    "length_mean": "divided by the trajectory's own length L",
    "constant": "divided by the horizon T",
    "token_mean": "of a batch: divided by the number of tokens of all its trajectories",
}
SCORES = {
    "own": "z_t, the score of the token itself",
    "cumulative": "sum over k <= t of z_k",
}


@dataclass(frozen=True)
class Reduction:
    """How the tokens of a trajectory, and the trajectories of a batch, are brought together.

    Raises:
        ValueError: an unknown name, or a batch that is not a positive whole number.
    """

    name: str
    batch: int = 1
    """Trajectories that are reduced together: token_mean divides by the tokens of all of them, the others by their
    number. With a group signal it is the group's size."""

    def __post_init__(self) -> None:
        """Check that the two go together."""
        checks.known_name("reduction", self.name, REDUCTIONS)
        object.__setattr__(self, "batch", checks.whole_number("batch", self.batch, 1, "trajectories"))


def reduction(name: str | Reduction, *, batch: int | None = None) -> Reduction:
    """A reduction by its name: "sum", "length_mean" (1/L), "constant" (1/T), or "token_mean" of a batch.

    `token_mean` divides the sum over a batch by the tokens of the whole batch; with `batch=1`, the default, it is
    `length_mean`. The others average over the batch what they make of each trajectory; for them it matters only where
    the weight couples the trajectories of a batch (`Card.couples_batch`). With a batch, `theory.moments` gives the
    moments of one batch's estimator. A reduction that is already made is returned as it is.

    >>> theory.reduction("token_mean", batch=8)
    Reduction(name='token_mean', batch=8)

    Raises:
        ValueError: an unknown name; a batch that is not a positive whole number or is given beside a reduction that is
            already made.
    """
    if isinstance(name, Reduction):
        if batch is not None:
            raise ValueError(f"batch={batch!r} was given beside a reduction that is already made: {name!r}")
        return name
    return Reduction(name) if batch is None else Reduction(name, batch)


@dataclass(frozen=True)
class Estimator:
    """g_hat = reduction( sum over tokens of weight_t x signal_t x score_t ), a function of trajectories drawn from mu.

    Args:
        weight: a name, or `theory.weight(name, **options)`.
        signal: a name, `theory.signal(name, baseline=...)`, or `theory.group(size=...)`.
        score: "own" (z_t) or "cumulative" (sum of z_k for k <= t).
        reduction: "sum", "length_mean", "constant", or "token_mean" (`theory.reduction("token_mean", batch=8)`; with a
            group signal the batch is the group).

    >>> theory.Estimator(weight="minpro", signal="target_advantage").label
    'minpro x target_advantage'

    Raises:
        ValueError: an unknown name, or a batch that is not the group.
    """

    weight: Any
    signal: Any
    score: Literal["own", "cumulative"] = "own"
    reduction: Any = "sum"

    def __post_init__(self) -> None:
        """Turn names into objects."""
        if not isinstance(self.weight, Weight):
            object.__setattr__(self, "weight", weight(self.weight))
        if not isinstance(self.signal, (Signal, GroupSignal)):
            object.__setattr__(self, "signal", signal(self.signal))
        checks.known_name("score", self.score, SCORES)
        chosen = reduction(self.reduction)
        if isinstance(self.signal, GroupSignal):
            if chosen.batch not in (1, self.signal.size):
                raise ValueError(
                    f"reduction is {chosen.name}(batch={chosen.batch}) and the signal a group of {self.signal.size}; "
                    f"expected batch={self.signal.size}, or reduction={chosen.name!r}, whose batch is then the group"
                )
            # The group is the batch: only a shared token count has to be told its size.
            chosen = replace(chosen, batch=self.signal.size if chosen.name == "token_mean" else 1)
        object.__setattr__(self, "reduction", chosen)

    @property
    def label(self) -> str:
        """The four choices, leaving out `own` and `sum`."""
        parts = [self.weight.label, self.signal.label]
        parts += [] if self.score == "own" else [f"{self.score} score"]
        if self.reduction != Reduction("sum"):
            batch = f"(batch={self.reduction.batch})" if self.reduction.batch > 1 else ""
            parts.append(self.reduction.name + batch)
        return " x ".join(parts)

    @property
    def trajectories_per_draw(self) -> int:
        """Trajectories that one draw of the estimator uses: a group, a batch, or 1."""
        return self.signal.size if isinstance(self.signal, GroupSignal) else int(self.reduction.batch)
