"""The registry of importance weights: a weight is one function and one card."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import array_api_compat.numpy
import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.weights.left_out import LEFT_OUT
from theory.weights.needs import NEEDS, RANGES
from theory.weights.tokens import Tokens, tokens_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Card:
    """What is known of a weight: formula, source, defaults, and properties that the tests check by enumeration."""

    name: str
    summary: str
    """One line."""
    formula: str
    """c_t in the words of the glossary."""
    source: str
    """Paper, arXiv number, equation where known."""
    defaults: str
    """Every option's default and where it comes from."""
    unbiased_for: tuple[tuple[str, str], ...] = ()
    """The (signal, score) pairs for which the expected estimator is the true gradient at the default options, with
    reduction "sum"; the tests check that no other pair of the standard list is."""
    aliases: tuple[str, ...] = ()
    """Names that papers and libraries use for the same weight."""
    caution: str = ""
    """What one should know before using it."""
    baseline_invariant: bool | None = None
    """At the default options; filled in by the registry from the family's rule."""
    engines: tuple[str, ...] = ()
    """The engines that can take it; filled in by the registry."""
    needs: tuple[str, ...] = ()
    """What it looks at beside ratios, mask and advantage, by the names of `theory.NEEDS`, at the default options;
    filled in by the registry."""
    couples_batch: bool = False
    """Whether a sequence's coefficients depend on the other sequences of the batch; filled in by the registry."""


@dataclass(frozen=True, eq=False)
class Factors:
    """A weight as the recursion needs it, over a table of log-ratios of shape (S, A):

    c_t = [product over j < t of before_j] own(stat_t) [product over j > t of after_j],
    stat_t = minimum over j < t of key_j, and +inf where there is no earlier token.
    """

    before: Array | None
    """(S, A), the factor that every later token's coefficient gets from this token; None for 1."""
    own: Callable[[Array, Array], Array]
    """(stat, advantage) -> own factor. stat has shape (K, 1, 1, 1) and advantage a shape that broadcasts with
    (K, S, A, S'); the result broadcasts with (K, S, A, S')."""
    after: Array | None = None
    """(S, A), the factor that every earlier token's coefficient gets from this token; None for 1."""
    key: Array | None = None
    """(S, A), what the running minimum is taken of; None where the weight has no statistic."""
    own_of_step: Callable[[int, Array, Array], Array] | None = None
    """(t, stat, advantage) -> own factor, in the place of `own` where that changes with the step."""

    def own_at(self, t: int, stat: Array, advantage: Array) -> Array:
        """The own factor of step t, with a first axis for the statistic."""
        own = self.own(stat, advantage) if self.own_of_step is None else self.own_of_step(t, stat, advantage)
        own = np.asarray(own, dtype=np.float64)
        return own if own.ndim == 4 else own[None]


def constant_own(own: Array) -> Callable[[Array, Array], Array]:
    """An own factor of shape (S, A) that looks at neither the statistic nor the advantage."""
    return lambda stat, advantage: own[:, :, None]


class Parts(NamedTuple):
    """What a weight puts in the place of P_t, rho_t and S_t before anything is clipped or masked."""

    prefix: str = "none"
    """"full" P_t, "none" 1, "root" P_t^(1/L), "minimum" m_t, or "inclusive_minimum" min over j <= t of rho_j."""
    own: str = "full"
    """"full" rho_t, "none" 1, or "root" rho_t^(1/L)."""
    suffix: str = "none"
    """"full" S_t, "none" 1, or "root" S_t^(1/L)."""


SEQUENCE = Parts("full", "full", "full")
ROOT = Parts("root", "root", "root")


@dataclass(frozen=True, eq=False)
class Family:
    """One weight with all values of its options."""

    card: Card
    function: Callable[..., Any]
    """(tokens, **options) -> (N, T) coefficients, in the array library of the tokens."""
    options: Mapping[str, Any]
    """Option names and defaults."""
    check: Callable[..., None] | None
    """(**options) -> None, raising ValueError on values without meaning."""
    baseline_invariant: Callable[..., bool]
    """(**options) -> whether E[c_t b(s_t) z_t] = 0 for every b, at every t."""
    uses_advantage: Callable[..., bool]
    """(**options) -> whether the coefficient looks at the sign of the advantage."""
    factors: Callable[..., Factors | None] | None
    """(log_ratio (S, A), length, **options) -> Factors, or None where these options do not factorise. Where the weight
    needs more, its third argument is the mapping of the names it needs to tables (1 or T, S, A)."""
    by_length: bool
    """Whether the factors depend on the length of the episode."""
    couples_batch: bool
    """Whether a sequence's coefficients depend on the other sequences of the batch."""

    parts: Callable[..., Parts]
    """(**options) -> the unclipped parts that the weight is made of; what remains is its truncation."""
    needs: Callable[..., tuple[str, ...]] = lambda **_: ()
    """(**options) -> what it looks at beside ratios, mask and advantage, by the names of `theory.NEEDS`."""


FAMILIES: dict[str, Family] = {}


def register(
    card: Card,
    *,
    factors: Callable[..., Factors | None] | None = None,
    by_length: bool = False,
    baseline_invariant: bool | Callable[..., bool] = False,
    uses_advantage: bool | Callable[..., bool] = False,
    couples_batch: bool = False,
    check: Callable[..., None] | None = None,
    parts: Parts | Callable[..., Parts] = Parts(),  # noqa: B008 - a tuple, never changed
    needs: tuple[str, ...] | Callable[..., tuple[str, ...]] = (),
    local: bool | Callable[..., bool] = False,
    replaces: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: enter a weight of your own, which is one function and one card, under the card's name.

    The function takes the tokens of a batch (their `log_ratio`, `ratio`, `log_prefix`, `mask`, ... and the array
    library `xp`) and gives (N, T) coefficients; its keyword-only arguments are the weight's options. Enumeration and
    sampling take any weight; the recursion takes one that is `local` or has `factors`. All arguments but `by_length`,
    `couples_batch` and `replaces` may be functions of the options. Where sequences are coupled, a batch in another
    order must get its coefficients in that order.

    Args:
        card: its name and what is known of it.
        factors: the same weight in the recursion's form (`theory.Factors`), with the options as arguments.
        by_length: whether its factors change with the episode's length.
        baseline_invariant: whether baselines drop out of its expectation.
        uses_advantage: whether it looks at the advantage's sign.
        couples_batch: whether a sequence's coefficients depend on the others.
        check: raises ValueError on options without meaning.
        parts: the product that it truncates (`theory.Parts`), for `theory.decompose`.
        needs: names of `theory.NEEDS` that `tokens.given` then holds.
        local: whether a coefficient looks at nothing but its own token: the recursion then takes the function as it is.
        replaces: whether a weight of that name is replaced, so that a cell of a notebook can be run again.

    >>> card = theory.Card("tempered", "A power of the ratio.", "c_t = rho_t^power", source="-", defaults="power=0.5.")
    >>> @theory.register(card, local=True)
    ... def tempered(tokens, *, power=0.5):
    ...     return tokens.xp.exp(power * tokens.log_ratio)
    >>> theory.weight("tempered", power=2.0).coefficients(np.log([[1.0, 3.0]])).round(12)
    array([[1., 9.]])
    >>> theory.weight_cards()["tempered"].engines
    ('recursion', 'enumeration', 'sampling')

    Raises:
        ValueError: a weight of that name is registered already; a need that is not known; or a weight that is said to
            be local and looks at other tokens.
    """

    def rule(value: Any) -> Callable[..., Any]:
        return value if callable(value) else lambda **_: value

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(function).parameters.values()
        options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if card.name in FAMILIES and not replaces:
            raise ValueError(f"weight {card.name!r} is registered already")
        family = Family(
            card, function, options, check, rule(baseline_invariant), rule(uses_advantage),
            _local_factors(function, rule(local), rule(uses_advantage)) if local else factors, by_length,
            couples_batch, rule(parts), rule(needs),
        )  # fmt: skip
        default = Weight(family, options)
        if local and (factors is not None or couples_batch):
            raise ValueError(f"weight {card.name!r} is said to be local; expected neither factors nor couples_batch")
        if rule(local)(**options):
            _check_local(default)
        for need in default.needs:
            checks.known_name("need", need, NEEDS, of=f"weight {card.name!r}")
        engines = ("recursion", "enumeration", "sampling")[0 if default.factorises else 1 :]
        filled = replace(
            card, baseline_invariant=default.baseline_invariant, engines=engines, needs=default.needs,
            couples_batch=couples_batch,
        )  # fmt: skip
        FAMILIES[card.name] = replace(family, card=filled)
        return function

    return enter


def _check_local(weight: Weight) -> None:
    """Raise unless tokens one by one get the coefficients that they get together."""
    rng = np.random.default_rng(0)
    log_ratio, advantage = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    given: dict[str, Any] = {need: np.full((2, 3), max(RANGES[need][0], -1.0)) for need in weight.needs}
    together = np.asarray(weight.coefficients(log_ratio, None, advantage, **given))
    one_by_one: dict[str, Any] = {need: value.reshape(6, 1) for need, value in given.items()}
    apart = weight.coefficients(log_ratio.reshape(6, 1), None, advantage.reshape(6, 1), **one_by_one)
    if not np.allclose(together, np.asarray(apart).reshape(2, 3), rtol=1e-12, atol=0.0, equal_nan=True):
        raise ValueError(
            f"weight {weight.name!r} is said to be local, but its coefficients look at other tokens; "
            "expected local=False"
        )


def _local_factors(
    function: Callable[..., Any], local: Callable[..., bool], uses_advantage: Callable[..., bool]
) -> Callable[..., Factors | None]:
    """The recursion's form of a weight whose coefficients look at nothing but their own token: tokens of any cell are
    sequences of length one.
    """

    def factors(
        log_ratio: Array, length: int, given: Mapping[str, Array] | None = None, **options: Any
    ) -> Factors | None:
        if not local(**options):
            return None
        tables = given or {}
        signed = uses_advantage(**options)

        def own_of_step(t: int, stat: Array, advantage: Array) -> Array:
            beside = [table[min(t, len(table) - 1)][:, :, None] for table in tables.values()]
            arrays = np.broadcast_arrays(log_ratio[:, :, None], *beside, *([advantage] if signed else []))
            flat = [x.reshape(-1, 1) for x in arrays]
            names = dict(zip(tables, flat[1 : 1 + len(tables)], strict=True))
            everywhere = np.ones(flat[0].shape, dtype=bool)
            with np.errstate(over="ignore"):
                tokens = Tokens(array_api_compat.numpy, flat[0], everywhere, flat[-1] if signed else None, names)
                return np.asarray(function(tokens, **options)).reshape(arrays[0].shape)

        timed = any(len(table) > 1 for table in tables.values())
        return Factors(
            None,
            lambda stat, advantage: own_of_step(0, stat, advantage),
            own_of_step=own_of_step if timed else None,
        )

    return factors


@dataclass(frozen=True, eq=False)
class Weight:
    """An importance weight with its options fixed. Made by `theory.weight(name, **options)`.

    Two weights are equal if they are of one family and have the same options.
    """

    family: Family
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The registered name."""
        return self.family.card.name

    @property
    def card(self) -> Card:
        """The card of the family."""
        return self.family.card

    @property
    def label(self) -> str:
        """Name and the options that differ from their defaults, such as `minpro(clip=(0.8, 1.28))`."""
        changed = {k: v for k, v in self.options.items() if v != self.family.options[k]}
        texts = [f"{k}={v.label if isinstance(v, Weight) else v}" for k, v in changed.items()]
        return self.name + (f"({', '.join(texts)})" if texts else "")

    @property
    def baseline_invariant(self) -> bool:
        """Whether E[c_t b(s_t) z_t] = 0 for every function b of the state: True is proved.

        Of `decoupled` False may also mean that its two weights do not prove it.
        """
        return bool(self.family.baseline_invariant(**self.options))

    @property
    def uses_advantage(self) -> bool:
        """Whether the coefficients look at the sign of the advantage."""
        return bool(self.family.uses_advantage(**self.options))

    @property
    def parts(self) -> Parts:
        """What stands for P_t, rho_t and S_t before anything is clipped or masked."""
        return self.family.parts(**self.options)

    @property
    def needs(self) -> tuple[str, ...]:
        """What it looks at beside ratios, mask and advantage, by the names of `theory.NEEDS`."""
        return tuple(self.family.needs(**self.options))

    @property
    def factorises(self) -> bool:
        """Whether the recursion can take the weight with these options."""
        return self.factors(np.zeros((1, 1)), 1, {need: np.zeros((1, 1, 1)) for need in self.needs}) is not None

    def factors(self, log_ratio: Array, length: int, given: Mapping[str, Array] | None = None) -> Factors | None:
        """The recursion's form over log-ratios (S, A), for episodes of this length; None where there is none.

        `given` holds a table (1 or T, S, A) for each name that the weight needs.
        """
        if self.family.factors is None:
            return None
        beside = ({need: (given or {})[need] for need in self.needs},) if self.needs else ()
        return self.family.factors(log_ratio, length, *beside, **self.options)

    def coefficients(
        self, log_ratio: Any, mask: Any = None, advantage: Any = None, *, batch: int | None = None, **given: Any
    ) -> Any:
        """What multiplies advantage_t * score_t of each token; a constant (stop-gradient), zero where masked.

        With reduction "sum" the gradient of the surrogate in the token log-probabilities is coefficients * advantage.

        Args:
            log_ratio: (N, T), log pi(a_t|s_t) - log mu(a_t|s_t), a NumPy array or a PyTorch tensor. -inf means that the
                target never takes the action. What stands at masked tokens is ignored.
            mask: (N, T), true or non-zero where the token counts; default all.
            advantage: (N, T), the signal; needed by weights that look at its sign.
            batch: every so many sequences in a row are one batch; default all N. Only weights that couple the
                sequences of a batch (`Card.couples_batch`) look at it.
            given: (N, T) each, what the weight needs beside these, by its name in `theory.NEEDS`.

        Returns:
            (N, T), of log_ratio's type, array library and device.

        Raises:
            ValueError: an argument is no array, of another library than log_ratio or of another shape; log_ratio is not
                of floats, or is NaN or +inf at a token that counts; the mask has a NaN; the weight looks at the
                advantage's sign, or needs something else, and it is missing or NaN; or `batch` does not divide N.
        """
        for name in given:
            checks.known_name("argument", name, (*NEEDS, "log_ratio", "mask", "advantage", "batch"), of="coefficients")
        missing = [need for need in self.needs if given.get(need) is None]
        if missing:
            raise ValueError(
                f"weight {self.label!r} needs {missing[0]}, {NEEDS[missing[0]]}; expected {missing[0]}=... beside "
                "log_ratio"
            )
        tokens = tokens_of(
            log_ratio, mask, advantage, {need: given[need] for need in self.needs}, batch,
            needs_advantage=self.uses_advantage, name=self.name,
        )  # fmt: skip
        return self._where_counted(tokens)

    def _where_counted(self, tokens: Tokens) -> Any:
        if 0 in tokens.log_ratio.shape:
            return tokens.xp.zeros_like(tokens.log_ratio)
        # A ratio above the largest number is +inf, which a cap or a mask then bounds: no warning is due.
        with np.errstate(over="ignore"):
            result = self.family.function(tokens, **self.options)
        return tokens.xp.where(tokens.mask, result, tokens.xp.zeros_like(tokens.log_ratio))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same family with the same options."""
        if not isinstance(other, Weight):
            return NotImplemented
        return self.family is other.family and self.options == other.options

    def __hash__(self) -> int:
        """By name and options."""
        return hash((self.name, tuple(self.options.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name and options."""
        return _restore, (self.name, dict(self.options))

    def __repr__(self) -> str:
        """As it is made."""
        return f"theory.weight({', '.join([repr(self.name)] + [f'{k}={v!r}' for k, v in self.options.items()])})"


def weight(name: str | Weight, **options: Any) -> Weight:
    """An importance weight by its registered name, with options.

    >>> theory.weight("minpro", clip=(0.8, 1.28)).label
    'minpro(clip=(0.8, 1.28))'

    Raises:
        ValueError: an unknown name or option, or an option's value without meaning.
    """
    if isinstance(name, Weight):
        if options:
            raise ValueError(f"options {sorted(options)} were given beside a weight that is already made: {name!r}")
        return name
    if callable(name):
        raise ValueError(
            f"weight is {name!r}; expected a name: a function becomes a weight by theory.register(card), which enters "
            "it under the card's name"
        )
    _suggest_by_alias(name)
    family = FAMILIES[checks.known_name("weight", name, FAMILIES)]
    for option in options:
        if not family.options:
            raise ValueError(f"weight {name!r} has no options; got {option!r}")
        checks.known_name("option", option, family.options, of=f"weight {name!r}")
    merged = {k: _plain(v) for k, v in {**family.options, **options}.items()}
    if family.check is not None:
        family.check(**merged)
    return Weight(family, merged)


def weight_cards() -> dict[str, Card]:
    """The registry: name -> card.

    >>> theory.weight_cards()["minpro"].source
    'MinPRO, Lei, Cheng & Tao 2026, arXiv 2601.22718'
    """
    return {name: family.card for name, family in sorted(FAMILIES.items())}


def _suggest_by_alias(name: object) -> None:
    """Raise where `name` is what papers or libraries call a weight, or a method that is left out.

    By spelling GRPO would be nearest to gspo, and FSPO to sapo.
    """
    if not isinstance(name, str) or name in FAMILIES:
        return
    for known, family in FAMILIES.items():
        if name.lower() in (alias.lower() for alias in family.card.aliases):
            raise ValueError(f"unknown weight {name!r}; the nearest known name is {known!r}, which has it as an alias")
    for left_out, why in LEFT_OUT.items():
        if name.lower() in (left_out.lower(), left_out.lower().split("'s ")[0]):
            raise ValueError(f"weight {name!r} is left out of the registry: {why.rstrip('.')}")


def _restore(name: str, options: Mapping[str, Any]) -> Weight:
    return weight(name, **options)


def _plain(value: Any) -> Any:
    """An option as plain numbers and tuples, whether it comes as such, as a list, or as an array.

    A weight at its default options is its name, so that both spellings make equal weights.
    """
    if isinstance(value, Weight):
        return value.name if value.options == value.family.options else value
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
