"""One step of an affine backward recursion, what it runs over, and the two ways to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from theory.critic.gradients import mean_over_actions
from theory.critic.rounding import without_rounding
from theory.critic.tables import Critic
from theory.engines.problem import EngineRefusal
from theory.engines.trajectories import Block, Walk
from theory.policy import Ratios, SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]


class Step(NamedTuple):
    """Coefficients of one step, for each of the E edges (s, a, s') that mu can take.

    They are those of what is added to the critic, D_t = v_t(s_t) + E_t and G_t = dv_t(s_t) + F_t:

    E_t = value + value_next E_{t+1},    F_t = gradient + gradient_value E_{t+1} + gradient_next F_{t+1}.

    At the end of an episode E and F are zero. Where the critic is exact and nothing is left to chance all coefficients
    that stand alone are exactly zero, and no product of ratios makes a variance of their rounding.
    """

    value: Array
    """(E,)"""
    value_next: Array
    """(E,)"""
    gradient: Array
    """(E, P)"""
    gradient_value: Array
    """(E, P)"""
    gradient_next: Array
    """(E,)"""
    state_gradient: Array | None = None
    """dv_t, (S, P), zero at the end of an episode; None is zero."""


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything that a method may look at, on the edges that mu can take."""

    process: MarkovProcess
    target: SoftmaxPolicy
    behaviour: SoftmaxPolicy
    ratios: Ratios
    critic: Critic
    gradients: Callable[[], Iterator[Array | None]]
    """Gives the gradient of the critic (S, A, P), or None for zero, for t = T-1 down to 0."""
    walk: Walk
    cap: float = np.inf
    trace_cap: float = np.inf
    trace_decay: float = 1.0
    keep_rounding: bool = False
    """Whether errors of the critic that rounding can make are kept; otherwise they are zero."""

    @property
    def edge(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """State and action of each edge: indexes a table (S, A, ...)."""
        return self.walk.state, self.walk.action

    @cached_property
    def ratio(self) -> Array:
        """rho of each edge, (E,)."""
        return np.asarray(np.exp(self.ratios.log_ratio[self.edge]))

    @cached_property
    def score(self) -> Array:
        """z of each edge, (E, P)."""
        return np.asarray(self.target.score[self.edge])

    def with_ends(self, value: Array) -> Array:
        """v(s), (S,), with the terminal reward where the episode has ended."""
        return np.where(self.process.absorbing, self.process.terminal_reward, value)

    def state_gradient(self, action_value: Array, action_gradient: Array | None) -> Array:
        """dv(s), (S, P), zero where the episode has ended."""
        result = mean_over_actions(self.target, action_value, action_gradient)
        result[self.process.absorbing] = 0.0
        return result

    def error(self, value_next: Array, expected: Array) -> Array:
        """r + discount v(s') - expected, (E,), from v of shape (S,) and what was expected on each edge."""
        reward, later = self.walk.reward, self.process.discount * value_next[self.walk.next_state]
        size = np.abs(reward) + np.abs(later) + np.abs(expected)
        return self._rounded(reward + later - expected, size)

    def gradient_error(self, gradient_next: Array, expected: Array | None) -> Array:
        """discount dv(s') - dq(s, a), (E, P), from dv of shape (S, P) and dq of shape (S, A, P) or None for zero."""
        later = self.process.discount * gradient_next[self.walk.next_state]
        if expected is None:
            return np.asarray(later)
        here = expected[self.edge]
        return self._rounded(later - here, np.abs(later) + np.abs(here))

    def _rounded(self, difference: Array, size: Array) -> Array:
        return difference if self.keep_rounding else without_rounding(difference, size)


class Conditional(NamedTuple):
    """Moments of E_t and G_t given s_t, by the law of total covariance: nothing is a difference of large numbers."""

    correction: Array
    """E[E|s] = E[D|s] - v(s), (S,)"""
    gradient: Array
    """E[G|s], (S, P)"""
    value_variance: Array
    """Var[E|s] = Var[D|s], (S,)"""
    cross: Array
    """Cov[D, G|s], (S, P)"""
    variance: Array
    """Trace of Cov[G|s], (S,)"""
    covariance: Array | None
    """Cov[G|s], (S, P, P), where asked for"""


def conditional_moments(walk: Walk, steps: Iterator[Step], parameters: int, outer: bool = False) -> Conditional:
    """Moments of E_0 and G_0 given s_0, from the steps T-1 down to 0."""
    S, E = walk.process.states, walk.state.size
    s, after = walk.state, walk.next_state
    mean = sparse.csr_array((walk.chance, (s, np.arange(E))), shape=(S, E))
    total = sparse.csr_array((np.ones(E), (s, np.arange(E))), shape=(S, E))
    # Squared ratios may be beyond float64 where their means are not.
    root = np.sqrt(walk.chance)
    value, value_variance, variance = np.zeros(S), np.zeros(S), np.zeros(S)
    gradient, cross = np.zeros((S, parameters)), np.zeros((S, parameters))
    covariance = np.zeros((S, parameters, parameters)) if outer else None
    state_gradient: Array | float = 0.0
    first = np.searchsorted(s, np.arange(S + 1))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in steps:
            d, g, k = step.value_next, step.gradient_value, step.gradient_next[:, None]
            edge_value = step.value + d * value[after]
            edge_gradient = step.gradient + g * value[after][:, None] + k * gradient[after]
            value, gradient = mean @ edge_value, mean @ edge_gradient
            off_value, off_gradient = root * (edge_value - value[s]), root[:, None] * (edge_gradient - gradient[s])
            goes_on = (d != 0.0) | (k[:, 0] != 0.0) | g.any(axis=1)
            d, g, k = root * d, root[:, None] * g, root[:, None] * k
            # Where the rest is multiplied with zero it may be infinite.
            v, w = (np.where(goes_on, x[after], 0.0) for x in (value_variance, variance))
            c = np.where(goes_on[:, None], cross[after], 0.0)
            if covariance is not None:
                mixed = k * c
                parts = [(off_gradient, off_gradient), (v[:, None] * g, g), (g, mixed), (mixed, g)]
                following = sparse.csr_array((k[:, 0] ** 2, (s, after)), shape=(S, S))
                covariance = (following @ covariance.reshape(S, -1)).reshape(covariance.shape)
                for i, (low, high) in enumerate(pairwise(first)):
                    covariance[i] += sum(left[low:high].T @ right[low:high] for left, right in parts)
            variance = total @ (
                (off_gradient**2).sum(axis=1)
                + v * (g**2).sum(axis=1)
                + 2.0 * k[:, 0] * (g * c).sum(axis=1)
                + k[:, 0] ** 2 * w
            )
            cross = total @ (off_value[:, None] * off_gradient + d[:, None] * (v[:, None] * g + k * c))
            value_variance = total @ (off_value**2 + d**2 * v)
            state_gradient = 0.0 if step.state_gradient is None else step.state_gradient
    return Conditional(value, gradient + state_gradient, value_variance, cross, variance, covariance)


def trajectory_values(walk: Walk, block: Block, steps: Iterator[Step], parameters: int) -> Array:
    """G_0 of every trajectory of a block, (N, P), by the same steps.

    Raises:
        EngineRefusal: one of them is beyond float64.
    """
    value, gradient = np.zeros(block.start.size), np.zeros((block.start.size, parameters))
    with np.errstate(over="ignore", invalid="ignore"):
        for t, step in zip(reversed(range(block.edge.shape[1])), steps, strict=True):
            on = np.flatnonzero(block.acting[:, t])
            e, later = block.edge[on, t], value[on, None]
            gradient[on] = (
                step.gradient[e] + step.gradient_value[e] * later + step.gradient_next[e, None] * gradient[on]
            )
            value[on] = step.value[e] + step.value_next[e] * value[on]
            if t == 0 and step.state_gradient is not None:
                gradient += step.state_gradient[block.start]
    if not np.isfinite(gradient).all():
        raise EngineRefusal(
            "the estimator of a trajectory is beyond float64; expected policies that are closer, a method with capped "
            "ratios, or engine='recursion'"
        )
    return gradient
