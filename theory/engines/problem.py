"""What an engine is asked, and what it answers before reduction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.divergence import statewise_kl
from theory.policy import Ratios, SoftmaxPolicy, ratios
from theory.process import MarkovProcess
from theory.signals import ResolvedSignal
from theory.value_functions import acting_states, check_policy, occupancies
from theory.weights.registry import Factors, Weight

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Joint moments of vectors X_o = sum over t of c_t psi^o_t score_t, one per signal o, of a trajectory of mu."""

    process: MarkovProcess
    target: SoftmaxPolicy
    behaviour: SoftmaxPolicy
    ratios: Ratios
    weight: Weight
    signals: tuple[ResolvedSignal, ...]
    cumulative: bool = False
    by_outcome: bool = False
    """Whether the bins of the answer tell apart the returns of trajectories, or only their lengths."""
    outer: bool = False
    """Whether E[X_o X_o'] is wanted as a matrix, for the covariance."""
    position: int | None = None
    """Keep only what the token at this step contributes; None for all tokens."""
    mean_only: bool = False
    """Whether second moments are not wanted: they then are NaN, and cost nothing."""

    @cached_property
    def given(self) -> Mapping[str, Array]:
        """What the weight needs beside ratios, name -> table (1 or T, S, A)."""
        return {need: given_table(need, self) for need in self.weight.needs}

    def factors(self, length: int) -> Factors:
        """The recursion's form of the weight, which must have one."""
        factors = self.weight.factors(self.ratios.log_ratio, length, self.given)
        assert factors is not None
        return factors


def given_table(need: str, problem: Problem) -> Array:
    """One of `theory.NEEDS` as a table (1 or T, S, A)."""
    p, target, behaviour, table = problem.process, problem.target, problem.behaviour, problem.ratios
    pi, mu = target.probabilities, behaviour.probabilities
    every_action = np.ones((1, *pi.shape))
    if need == "log_probability":
        return target.log_probabilities[None]
    if need == "total_variation":
        return np.asarray(0.5 * np.abs(mu - pi).sum(axis=1)[:, None] * every_action)
    if need == "kl":
        return np.asarray(statewise_kl(behaviour, target)[:, None] * every_action)
    if need == "old_log_ratio":
        if table.old is None:
            raise ValueError(
                f"weight {problem.weight.label!r} tells three policies apart; expected old=..., the policy of the "
                "start of the update, beside target and behaviour"
            )
        return ratios(table.old, behaviour).log_ratio[None]
    if need == "lag":
        if table.lag is None:
            raise ValueError(
                f"weight {problem.weight.label!r} looks at how old the policy behind each token is; expected lag=..., "
                "a number of updates or a table of them of shape (T, S)"
            )
        return np.asarray(table.lag[:, :, None] * every_action)
    assert need == "state_ratio"
    ours, theirs = (occupancies(p, policy)[:-1] for policy in (target, behaviour))
    # Where mu never comes no token is drawn.
    ratio = np.divide(ours, theirs, out=np.zeros_like(ours), where=theirs > 0.0)
    return np.asarray(ratio[:, :, None] * every_action)


class Bins(NamedTuple):
    """Moments of the vectors X_o over the trajectories of each bin: one length, and one return where asked for."""

    length: NDArray[np.int64]
    """(B,)"""
    outcome: Array
    """(B,) the return; NaN where returns are not told apart."""
    probability: Array
    """(B,)"""
    mean: Array
    """(B, n, P): E[X_o 1{bin}]."""
    second: Array
    """(B, n, n): E[<X_o, X_q> 1{bin}]."""
    outer: Array | None
    """(B, n, P, P): E[X_o X_o' 1{bin}]."""


def rounded_returns(process: MarkovProcess, returns: Array) -> Array:
    """Returns to 13 digits of the largest one possible: equal ones, summed in another order, become one number."""
    largest = process.horizon * np.abs(process.edges.reward).max(initial=0.0) + np.abs(process.terminal_reward).max()
    digits = 13 - int(np.ceil(np.log10(largest))) if largest > 0.0 else 13
    return np.asarray(np.round(returns, digits))


class EngineRefusal(ValueError):  # noqa: N818 - it is an answer, not a failure
    """An engine cannot take a problem; the message says why and which engine can."""


def checked_ratios(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    allow_missing_support: bool,
    old: SoftmaxPolicy | None = None,
    lag: Any = None,
) -> Ratios:
    """Log-ratios of two policies over a process, with what may stand beside them, after the checks at the door."""
    check_policy(process, target, "target")
    check_policy(process, behaviour, "behaviour")
    if old is not None:
        check_policy(process, old, "old")
    table = ratios(target, behaviour)._replace(old=old, lag=None if lag is None else _lag_table(process, lag))
    if allow_missing_support or not table.lost.any():
        return table
    # What mu cannot do where it never comes is missing from no estimator.
    lost = table.lost & acting_states(process, behaviour)[:, None]
    if lost.any():
        s, a = (int(i) for i in np.argwhere(lost)[0])
        raise ValueError(
            f"behaviour gives action {a} of state {s} probability 0 where target gives "
            f"{target.probabilities[s, a]:.3g}; expected the target's support "
            "(missing_support='allow' computes what mu can see and reports the lost mass)"
        )
    return table


def _lag_table(process: MarkovProcess, lag: Any) -> Array:
    """A number of updates, or one per state, or per step and state, as a table (1 or T, S)."""
    table = checks.numbers("lag", lag)
    S, T = process.states, process.horizon
    if table.shape not in ((), (S,), (T, S)):
        raise ValueError(f"lag has shape {table.shape}; expected a number, or shape ({S},) or ({T}, {S})")
    if not ((table >= 0.0) & np.isfinite(table)).all():
        raise ValueError("lag has a negative or infinite number; expected numbers of updates, at least 0")
    return np.asarray(np.broadcast_to(table, (T if table.ndim == 2 else 1, S)))
