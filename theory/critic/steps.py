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

from theory.critic.tables import Critic
from theory.engines.trajectories import Block, Walk
from theory.policy import Ratios, SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]


class Step(NamedTuple):
    """Coefficients of one step, for each of the E edges (s, a, s') that mu can take:

    D_t = value + value_next D_{t+1},    G_t = gradient + gradient_value D_{t+1} + gradient_next G_{t+1}.
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

    def next_value(self, t: int) -> Array:
        """V_{t+1}(s') of each edge, (E,)."""
        return np.asarray(self.critic.state_value[t + 1][self.walk.next_state])


class Conditional(NamedTuple):
    """Moments of D_t and G_t given s_t, by the law of total covariance: nothing is a difference of large numbers."""

    value: Array
    """E[D|s], (S,)"""
    gradient: Array
    """E[G|s], (S, P)"""
    value_variance: Array
    """Var[D|s], (S,)"""
    cross: Array
    """Cov[D, G|s], (S, P)"""
    variance: Array
    """Trace of Cov[G|s], (S,)"""
    covariance: Array | None
    """Cov[G|s], (S, P, P), where asked for"""


def conditional_moments(walk: Walk, steps: Iterator[Step], parameters: int, outer: bool = False) -> Conditional:
    """Moments of D_0 and G_0 given s_0, from the steps T-1 down to 0; at the end of an episode D is the terminal
    reward and G is zero.
    """
    S, E = walk.process.states, walk.state.size
    ended, terminal = walk.process.absorbing, walk.process.terminal_reward
    mean = sparse.csr_array((walk.chance, (walk.state, np.arange(E))), shape=(S, E))
    s, after, chance = walk.state, walk.next_state, walk.chance
    value, value_variance, variance = terminal.copy(), np.zeros(S), np.zeros(S)
    gradient, cross = np.zeros((S, parameters)), np.zeros((S, parameters))
    covariance = np.zeros((S, parameters, parameters)) if outer else None
    first = np.searchsorted(s, np.arange(S + 1))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in steps:
            d, g, k = step.value_next, step.gradient_value, step.gradient_next[:, None]
            edge_value = step.value + d * value[after]
            edge_gradient = step.gradient + g * value[after][:, None] + k * gradient[after]
            value, gradient = np.where(ended, terminal, mean @ edge_value), mean @ edge_gradient
            off_value, off_gradient = edge_value - value[s], edge_gradient - gradient[s]
            v, c = value_variance[after], cross[after]
            if covariance is not None:
                mixed = k * c
                parts = [(off_gradient, off_gradient), (v[:, None] * g, g), (g, mixed), (mixed, g)]
                weighted = [(chance[:, None] * left, right) for left, right in parts]
                following = sparse.csr_array((chance * k[:, 0] ** 2, (s, after)), shape=(S, S))
                covariance = (following @ covariance.reshape(S, -1)).reshape(covariance.shape)
                for i, (low, high) in enumerate(pairwise(first)):
                    covariance[i] += sum(left[low:high].T @ right[low:high] for left, right in weighted)
            variance = mean @ (
                (off_gradient**2).sum(axis=1)
                + v * (g**2).sum(axis=1)
                + 2.0 * k[:, 0] * (g * c).sum(axis=1)
                + k[:, 0] ** 2 * variance[after]
            )
            cross = mean @ (off_value[:, None] * off_gradient + d[:, None] * (v[:, None] * g + k * c))
            value_variance = mean @ (off_value**2 + d**2 * v)
    return Conditional(value, gradient, value_variance, cross, variance, covariance)


def trajectory_values(walk: Walk, block: Block, steps: Iterator[Step], parameters: int) -> Array:
    """G_0 of every trajectory of a block, (N, P), by the same steps."""
    value = walk.process.terminal_reward[block.last_state]
    gradient = np.zeros((value.size, parameters))
    for t, step in zip(reversed(range(block.edge.shape[1])), steps, strict=True):
        on = np.flatnonzero(block.acting[:, t])
        e = block.edge[on, t]
        gradient[on] = (
            step.gradient[e] + step.gradient_value[e] * value[on, None] + step.gradient_next[e, None] * gradient[on]
        )
        value[on] = step.value[e] + step.value_next[e] * value[on]
    return gradient
