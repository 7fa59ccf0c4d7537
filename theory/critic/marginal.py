"""Marginal importance ratios and their gradients, by a forward recursion over occupancies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.critic.limits import refuse_large_horizon
from theory.engines.problem import EngineRefusal
from theory.policy import SoftmaxPolicy, ratios
from theory.process import MarkovProcess
from theory.value_functions import occupancies

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MarginalRatios:
    """w_t(s, a) = P_pi(s_t = s) pi(a|s) / (P_mu(s_t = s) mu(a|s)) and its gradient, zero where mu never comes."""

    target: SoftmaxPolicy
    ratio: Array
    """pi / mu, (S, A)"""
    state_ratio: Array
    """P_pi(s_t = s) / P_mu(s_t = s), (T, S)"""
    state_ratio_gradient: Array
    """(T, S, P)"""

    def at(self, t: int, state: Index, action: Index) -> tuple[Array, Array]:
        """w_t (E,) and dw_t (E, P) of these states and actions."""
        ratio = self.ratio[state, action]
        w = self.state_ratio[t, state] * ratio
        return w, ratio[:, None] * self.state_ratio_gradient[t, state] + w[:, None] * self.target.score[state, action]


def marginal_ratios(process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> MarginalRatios:
    """The ratios of all steps, from the occupancies of states that act.

    The gradient of an occupancy is  d(s') = sum over s, a of P(s'|s,a) pi(a|s) (d_t(s) + P_pi(s_t = s) z(s, a)).

    Raises:
        EngineRefusal: the tables are too large, or a ratio or the chance that mu comes to a state is beyond float64.
    """
    refuse_large_horizon(process, target)
    S, T, P = process.states, process.horizon, target.parameter_count
    pi, acts = target.probabilities, ~process.absorbing[:, None]
    ours, theirs = (occupancies(process, policy)[:T] for policy in (target, behaviour))
    gradient = np.zeros((T, S, P))
    for t in range(T - 1):
        pushed = gradient[t][:, None, :] + ours[t][:, None, None] * target.score
        flow = (pi * acts)[:, :, None] * pushed
        gradient[t + 1] = (process.transition_matrix.T @ flow.reshape(-1, P)) * acts
    seen = acts[:, 0] & _can_come(process, behaviour) & _can_come(process, target)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        state_ratio = np.divide(ours, theirs, out=np.zeros((T, S)), where=seen)
        gradient /= np.where(seen, theirs, np.inf)[:, :, None]
    if not (np.isfinite(state_ratio).all() and np.isfinite(gradient).all()):
        raise EngineRefusal(
            "a ratio of state occupancies is beyond float64; expected policies that are closer, or a shorter horizon"
        )
    log_ratio = np.where(acts, ratios(target, behaviour).log_ratio, -np.inf)
    return MarginalRatios(target, np.exp(log_ratio), state_ratio, gradient)


def _can_come(process: MarkovProcess, policy: SoftmaxPolicy) -> NDArray[np.bool_]:
    """Whether the policy can be in a state at step t, however small its probability, (T, S)."""
    edges, result = process.edges, np.zeros((process.horizon, process.states), dtype=bool)
    possible = policy.probabilities[edges.state, edges.action] > 0.0
    state, next_state = edges.state[possible], edges.next_state[possible]
    result[0] = process.initial > 0.0
    for t in range(process.horizon - 1):
        result[t + 1, next_state[result[t, state]]] = True
    return result
