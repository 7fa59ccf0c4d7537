"""What an engine is asked, and what it answers before reduction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.policy import Ratios, SoftmaxPolicy, ratios
from theory.process import MarkovProcess
from theory.signals import ResolvedSignal
from theory.value_functions import acting_states, check_policy
from theory.weights.registry import Weight

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
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, allow_missing_support: bool
) -> Ratios:
    """Log-ratios of two policies over a process, after the checks at the door."""
    check_policy(process, target, "target")
    check_policy(process, behaviour, "behaviour")
    table = ratios(target, behaviour)
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
