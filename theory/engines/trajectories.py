"""Blocks of trajectories as arrays, and the estimator's value on each: shared by enumeration and sampling."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.engines.problem import EngineRefusal, Problem
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Walk:
    """The edges that a behaviour policy can take, grouped by state."""

    def __init__(self, process: MarkovProcess, behaviour: SoftmaxPolicy) -> None:
        """Keep the edges of positive probability under the policy."""
        edges = process.edges
        chance = behaviour.probabilities[edges.state, edges.action] * edges.probability
        used = chance > 0.0
        self.process = process
        self.state, self.action, self.next_state = edges.state[used], edges.action[used], edges.next_state[used]
        self.reward, self.chance = edges.reward[used], chance[used]
        self.degree = np.bincount(self.state, minlength=process.states)
        self.first = np.concatenate([[0], np.cumsum(self.degree)[:-1]])
        if not used.any():
            # Every episode starts where it ends: one edge that no trajectory takes keeps indexing simple.
            self.state = self.action = self.next_state = np.zeros(1, dtype=np.int64)
            self.reward = self.chance = np.zeros(1)

    @cached_property
    def cumulative(self) -> Array:
        """s + sum of the state's chances up to and including each edge: sorted over all edges, for one search."""
        total = np.cumsum(self.chance)
        before = np.concatenate([[0.0], total])[self.first]
        within = (total - before[self.state]) / np.bincount(self.state, self.chance, self.process.states)[self.state]
        return np.asarray(self.state + np.clip(within, 0.0, 1.0))


class Block(NamedTuple):
    """N trajectories under mu. Steps after the end of an episode are not acting."""

    start: Index
    """(N,) s_0."""
    edge: Index
    """(N, T) index into the walk's edges; 0 where not acting."""
    acting: NDArray[np.bool_]
    """(N, T) whether a token is chosen at step t: the mask."""
    last_state: Index
    """(N,) the state in which the episode ends."""
    probability: Array
    """(N,) under mu, or 1/N for samples."""


def returns(walk: Walk, block: Block) -> Array:
    """The return of each trajectory, (N,)."""
    p = walk.process
    length = block.acting.sum(axis=1)
    paid = np.where(block.acting, walk.reward[block.edge], 0.0) @ p.discount ** np.arange(
        block.edge.shape[1], dtype=float
    )
    return np.asarray(paid + p.discount**length * p.terminal_reward[block.last_state])


def token_signals(walk: Walk, block: Block, problem: Problem) -> Array:
    """psi^o_t of every token, (n, N, T); zero where not acting."""
    p, (N, T) = walk.process, block.edge.shape
    result = np.zeros((len(problem.signals), N, T))
    for psi, signal in zip(result, problem.signals, strict=True):
        if signal.kind == "table":
            for t in range(T):
                psi[:, t] = signal.on_edges(t, walk.state, walk.action, walk.next_state)[block.edge[:, t]]
        else:
            psi[:] = returns(walk, block)[:, None]
            if signal.kind == "reward_to_go":
                discounted = np.where(block.acting, walk.reward[block.edge], 0.0) * p.discount ** np.arange(
                    T, dtype=float
                )
                psi[:, 1:] -= np.cumsum(discounted, axis=1)[:, :-1]
            if signal.baseline is not None:
                psi -= signal.baseline[np.arange(T), walk.state[block.edge]]
    return np.where(block.acting, result, 0.0)


def score_weights(walk: Walk, block: Block, problem: Problem, signals: Array, batch: int = 1) -> Array:
    """How often each score enters each trajectory's estimator, (n, N, S, A): `token_multiples` by state and action."""
    p, N = walk.process, len(block.edge)
    cells = p.states * p.actions
    where = (np.arange(N)[:, None] * cells + (walk.state * p.actions + walk.action)[block.edge]).reshape(-1)
    result = np.empty((len(signals), N, p.states, p.actions))
    for o, multiples in enumerate(token_multiples(walk, block, problem, signals, batch)):
        result[o] = np.bincount(where, multiples.reshape(-1), N * cells).reshape(N, p.states, p.actions)
    return result


def token_multiples(walk: Walk, block: Block, problem: Problem, signals: Array, batch: int = 1) -> Array:
    """What multiplies each token's score in each trajectory's estimator, (n, N, T): c_t psi_t.

    With the cumulative score, z_k enters with the sum over t >= k of c_t psi_t. Every `batch` trajectories in a row
    are one batch to a weight that couples them.
    """
    T, result = block.edge.shape[1], np.empty(signals.shape)
    c = None
    for o, psi in enumerate(signals):
        if c is None or problem.weight.uses_advantage:
            c = coefficients(walk, block, problem, psi, batch)
        if not np.isfinite(c).all():
            largest = problem.ratios.log_ratio[walk.state, walk.action][block.edge][block.acting].max()
            raise EngineRefusal(
                f"a coefficient of {problem.weight.label} is beyond float64, its log-ratios reach {largest:.0f}"
                "; expected policies that are closer, or a weight that is bounded"
            )
        product = c * psi
        if problem.position is not None:
            product = np.where(np.arange(T) == problem.position, product, 0.0)
        if problem.cumulative:
            product = np.where(block.acting, np.cumsum(product[:, ::-1], axis=1)[:, ::-1], 0.0)
        result[o] = product
    return result


def coefficients(walk: Walk, block: Block, problem: Problem, psi: Array | None, batch: int = 1) -> Array:
    """c_t of every token, (N, T); every `batch` trajectories in a row are one batch."""
    log_ratio = np.where(block.acting, problem.ratios.log_ratio[walk.state, walk.action][block.edge], 0.0)
    given = {name: _on_tokens(walk, block, table) for name, table in problem.given.items()}
    return np.asarray(problem.weight.coefficients(log_ratio, block.acting, psi, batch=batch, **given))


def _on_tokens(walk: Walk, block: Block, table: Array) -> Array:
    """A table (1 or T, S, A) at every token, (N, T)."""
    if len(table) == 1:
        return np.asarray(table[0][walk.state, walk.action][block.edge])
    return np.asarray(table[np.arange(block.edge.shape[1]), walk.state[block.edge], walk.action[block.edge]])
