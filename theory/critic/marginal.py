"""Marginal importance ratios and their gradients, by a forward recursion over occupancies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.policy import SoftmaxPolicy, ratios
from theory.process import MarkovProcess
from theory.value_functions import occupancies

Array = NDArray[np.float64]


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

    def at(self, t: int) -> tuple[Array, Array]:
        """w_t of shape (S, A) and dw_t of shape (S, A, P)."""
        w = self.state_ratio[t][:, None] * self.ratio
        return w, self.ratio[:, :, None] * self.state_ratio_gradient[t][:, None, :] + w[:, :, None] * self.target.score


def marginal_ratios(process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> MarginalRatios:
    """The ratios of all steps, from the occupancies of states that act.

    The gradient of an occupancy is  d(s') = sum over s, a of P(s'|s,a) pi(a|s) (d_t(s) + P_pi(s_t = s) z(s, a)).
    """
    S, T, P = process.states, process.horizon, target.parameter_count
    pi, acts = target.probabilities, ~process.absorbing[:, None]
    ours, theirs = (occupancies(process, policy)[:T] for policy in (target, behaviour))
    gradient = np.zeros((T, S, P))
    for t in range(T - 1):
        pushed = gradient[t][:, None, :] + ours[t][:, None, None] * target.score
        flow = (pi * acts)[:, :, None] * pushed
        gradient[t + 1] = (process.transition_matrix.T @ flow.reshape(-1, P)) * acts
    seen = (theirs > 0.0) & acts[:, 0]
    state_ratio = np.divide(ours, theirs, out=np.zeros((T, S)), where=seen)
    seen_everywhere = np.broadcast_to(seen[:, :, None], gradient.shape)
    state_gradient = np.divide(gradient, theirs[:, :, None], out=np.zeros_like(gradient), where=seen_everywhere)
    return MarginalRatios(target, np.exp(ratios(target, behaviour).log_ratio), state_ratio, state_gradient)
