"""Signals: what an estimator multiplies a token's score with, beside its weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.value_functions import values

Array = NDArray[np.float64]
Index = NDArray[np.int64]

BASELINES = ("none", "expected_return", "target_value", "behaviour_value", "optimal")
_VALUES = ("target_value", "behaviour_value")


@dataclass(frozen=True)
class SignalCard:
    """What a signal is."""

    name: str
    summary: str
    formula: str
    """psi_t, measured from the start: it carries discount^t, so that identities hold for every discount."""
    takes_baseline: bool = False


_CARDS = (
    SignalCard(
        "target_advantage", "Exact advantage of the policy being trained.", "discount^t A^pi_t(s_t, a_t)"
    ),
    SignalCard(
        "behaviour_advantage", "Exact advantage of the policy that made the data.", "discount^t A^mu_t(s_t, a_t)"
    ),
    SignalCard(
        "target_action_value", "Exact action value of the policy being trained.", "discount^t Q^pi_t(s_t, a_t)"
    ),
    SignalCard(
        "behaviour_action_value", "Exact action value of the policy that made the data.", "discount^t Q^mu_t(s_t, a_t)"
    ),
    SignalCard(
        "reward",
        "The step's own reward; the terminal one is paid on the last step.",
        "discount^t r_t, plus discount^L terminal_reward(s_L) at t = L - 1",
    ),
    SignalCard(
        "reward_to_go",
        "Rewards from this step on, minus a baseline.",
        "sum over k >= t of discount^k r_k + discount^L terminal_reward(s_L) - discount^t b_t(s_t)",
        takes_baseline=True,
    ),
    SignalCard(
        "outcome",
        "Return of the whole trajectory, minus a baseline: one number for all of its tokens.",
        "return - b, for a constant b or an optimal one per state; return - discount^t b_t(s_t), for values",
        takes_baseline=True,
    ),
)  # fmt: skip
CARDS = {card.name: card for card in _CARDS}


def signal_cards() -> dict[str, SignalCard]:
    """Every signal that has a name: name -> card. Group-relative ones are made by `theory.group`.

    >>> sorted(theory.signal_cards())[:2]
    ['behaviour_action_value', 'behaviour_advantage']
    """
    return dict(CARDS)


@dataclass(frozen=True)
class Signal:
    """A signal with its baseline. Made by `theory.signal(name, baseline=...)`.

    Raises:
        ValueError: an unknown name or baseline, or a baseline for a signal that takes none.
    """

    name: str
    baseline: str | float = "none"
    per_state: bool = False
    """For baseline="optimal": one number per state instead of one for all."""

    def __post_init__(self) -> None:
        """Check that the three go together."""
        card = CARDS[checks.known_name("signal", self.name, CARDS)]
        b = self.baseline
        if isinstance(b, str):
            checks.known_name("baseline", b, BASELINES)
        elif isinstance(b, bool) or not isinstance(b, Real) or not np.isfinite(b):
            raise ValueError(f"baseline is {b!r}; expected a finite number or one of {', '.join(BASELINES)}")
        else:
            object.__setattr__(self, "baseline", float(b))
        if b != "none" and not card.takes_baseline:
            raise ValueError(f"signal {self.name!r} takes no baseline; expected baseline='none', got {b!r}")
        if not isinstance(self.per_state, (bool, np.bool_)):
            raise ValueError(f"per_state is {self.per_state!r}; expected True or False")
        if self.per_state and b != "optimal":
            raise ValueError(f"per_state=True goes with baseline='optimal'; got baseline={b!r}")
        object.__setattr__(self, "per_state", bool(self.per_state))

    @property
    def label(self) -> str:
        """Name, and the baseline where there is one, such as `outcome(baseline=expected_return)`."""
        if self.baseline == "none":
            return self.name
        return f"{self.name}(baseline={self.baseline}{', per_state=True' if self.per_state else ''})"


def signal(name: str | Signal, *, baseline: str | float | None = None, per_state: bool | None = None) -> Signal:
    """A signal by its name. One that is already made is returned as it is.

    Args:
        name: one of `theory.signal_cards()`.
        baseline: for `reward_to_go` and `outcome`: "none" (the default), a number, "expected_return" (of mu),
            "target_value", "behaviour_value", or "optimal" (the one that minimises the exact variance of the estimator
            it stands in; Greensmith et al. 2004, with the exact covariance in place of their bound).
        per_state: with baseline="optimal", one number per state instead of one for all.

    >>> theory.signal("outcome", baseline="expected_return").label
    'outcome(baseline=expected_return)'

    Raises:
        ValueError: an unknown name or baseline, a baseline for a signal that takes none, or options beside a signal
            that is already made.
    """
    options: dict[str, Any] = {"baseline": baseline, "per_state": per_state}
    given = {option: value for option, value in options.items() if value is not None}
    if isinstance(name, Signal):
        if given:
            raise ValueError(f"options {sorted(given)} were given beside a signal that is already made: {name!r}")
        return name
    return Signal(name, **given)


@dataclass(frozen=True, eq=False)
class ResolvedSignal:
    """A signal of one process and pair of policies, as the engines take it.

    kind "table": psi depends on the step alone, psi_t = table(t)[s_t, a_t, s_{t+1}].
    kind "reward_to_go" and "outcome": the rewards of the trajectory from t on, or all of them, minus baseline[t, s_t].
    """

    kind: Literal["table", "reward_to_go", "outcome"]
    table: Callable[[int], Array] | None = None
    """t -> array that broadcasts with (S, A, S')."""
    baseline: Array | None = None
    """(T, S), with discount^t where the baseline has it."""

    def on_edges(self, t: int, state: Index, action: Index, next_state: Index) -> Array:
        """A table's signal at step t of these transitions (E,)."""
        assert self.table is not None
        if isinstance(self.table, _Reward):
            return self.table.on_edges(t, state, action, next_state)
        table = self.table(t)
        # An axis of size one stands for all.
        where = (np.minimum(x, n - 1) for x, n in zip((state, action, next_state), table.shape, strict=True))
        return np.asarray(table[tuple(where)])

    def baseline_at(self, t: int) -> Array | float:
        """What is subtracted at step t, shape (S, 1, 1), or 0."""
        return 0.0 if self.baseline is None else self.baseline[t][:, None, None]


def resolve(signal: Signal, process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> ResolvedSignal:
    """The tables of a signal; `optimal` baselines must have been replaced by numbers before (`with_baseline`)."""
    if signal.name in ("reward_to_go", "outcome"):
        return with_baseline(signal, process, _baseline_table(signal, process, target, behaviour))
    if signal.name == "reward":
        return ResolvedSignal("table", table=_Reward(process))
    whose, what = signal.name.split("_", 1)
    v = values(process, target if whose == "target" else behaviour)
    return ResolvedSignal("table", table=_Discounted(process.discount, getattr(v, what)))


def with_baseline(signal: Signal, process: MarkovProcess, baseline: Array | None) -> ResolvedSignal:
    """`reward_to_go` or `outcome` minus a table (T, S) of numbers that already carry their discount."""
    kind: Literal["reward_to_go", "outcome"] = "outcome" if signal.name == "outcome" else "reward_to_go"
    return ResolvedSignal(kind, baseline=baseline)


def baseline_scale(signal: Signal, process: MarkovProcess) -> Array:
    """The discount that a baseline carries at each step, (T,): none for a number subtracted from the whole return."""
    if signal.name == "outcome" and signal.baseline not in _VALUES:
        return np.ones(process.horizon)
    return np.asarray(process.discount ** np.arange(process.horizon, dtype=np.float64))


def _baseline_table(
    signal: Signal, process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy
) -> Array | None:
    shape = (process.horizon, process.states)
    if signal.baseline == "none":
        return None
    if signal.baseline in _VALUES:
        v = values(process, target if signal.baseline == "target_value" else behaviour)
        return baseline_scale(signal, process)[:, None] * v.state_value[:-1]
    number = signal.baseline
    if number == "expected_return":
        number = values(process, behaviour).expected_return
    return np.broadcast_to(baseline_scale(signal, process)[:, None] * float(number), shape)


@dataclass(frozen=True, eq=False)
class _Discounted:
    """t -> discount^t values[t], (S, A, 1)."""

    discount: float
    values: Array

    def __call__(self, t: int) -> Array:
        return np.asarray(self.discount**t * self.values[t][:, :, None])


@dataclass(frozen=True, eq=False)
class _Reward:
    """t -> discount^t r(s, a, s'), plus the terminal reward where the episode ends, (S, A, S')."""

    process: MarkovProcess

    def __call__(self, t: int) -> Array:
        p = self.process
        step = p.reward if p.reward.ndim == 3 else p.reward[:, :, None]
        return np.asarray(p.discount**t * step + self._last(t))

    def on_edges(self, t: int, state: Index, action: Index, next_state: Index) -> Array:
        """Of these transitions alone: all of them together would be S * A * S numbers."""
        p = self.process
        step = p.reward[state, action, next_state] if p.reward.ndim == 3 else p.reward[state, action]
        return np.asarray(p.discount**t * step + self._last(t)[next_state])

    def _last(self, t: int) -> Array:
        """What entering each state pays at the end of the episode, (S',)."""
        p = self.process
        ends = p.absorbing | (t + 1 == p.horizon)
        return np.where(ends, p.discount ** (t + 1) * p.terminal_reward, 0.0)


@dataclass(frozen=True, eq=False)
class Ones:
    """t -> a constant, or with `states` (S,) a function of the state alone; times `scale` (T,) if given."""

    value: float = 1.0
    states: Array | None = None
    scale: Array | None = None

    def __call__(self, t: int) -> Array:
        """Shape (S, 1, 1) or (1, 1, 1)."""
        table = np.ones((1, 1, 1)) if self.states is None else self.states[:, None, None]
        return np.asarray(self.value * table * (1.0 if self.scale is None else self.scale[t]))


def is_group(signal: Any) -> bool:
    """Whether a signal is group-relative (made by `theory.group`)."""
    return not isinstance(signal, Signal)
