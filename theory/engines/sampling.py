"""Vectorised Monte Carlo with standard errors, for what neither exact engine reaches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.engines.problem import Problem, rounded_returns
from theory.engines.reduce import token_factor
from theory.engines.trajectories import Block, Walk, returns, score_weights, token_signals
from theory.estimator import Estimator
from theory.groups import GroupSignal

Array = NDArray[np.float64]

# Numbers per block in the (N, S, A) table of score weights, and in a few (N, T) arrays of the tokens.
_BLOCK_NUMBERS = 4_000_000
# Draws whose mean stands for that of all where squares are summed.
_PILOT = 200


class Sampled(NamedTuple):
    """Sample moments of one draw."""

    mean: Array
    """(P,)"""
    standard_error: Array
    """(P,)"""
    variance: float
    variance_standard_error: float
    covariance: Array | None
    draws: int


def sample_block(walk: Walk, start: NDArray[np.int64], rng: np.random.Generator) -> Block:
    """One trajectory under mu from each start state."""
    N, T = start.size, walk.process.horizon
    edge, acting = np.zeros((N, T), dtype=np.int64), np.zeros((N, T), dtype=bool)
    state = start.copy()
    going = np.flatnonzero(walk.degree[state] > 0)
    for t in range(T):
        if not going.size:
            break
        here = state[going]
        chosen = np.searchsorted(walk.cumulative, here + rng.random(going.size), side="right")
        # Rounding may make a state's last cumulative chance fall short of 1.
        chosen = np.clip(chosen, walk.first[here], walk.first[here] + walk.degree[here] - 1)
        edge[going, t], acting[going, t] = chosen, True
        state[going] = walk.next_state[chosen]
        going = going[walk.degree[state[going]] > 0]
    return Block(start, edge, acting, state, np.full(N, 1.0 / N))


def sampling(
    problem: Problem, estimator: Estimator, trajectories: int, seed: int | np.random.Generator, covariance: bool
) -> Sampled:
    """Sample moments of `estimator` over about `trajectories` trajectories, in whole draws."""
    per_draw = estimator.trajectories_per_draw
    draws = max(2, -(-trajectories // per_draw))
    return moments_of_draws(_draws(problem, estimator, draws, np.random.default_rng(seed)), draws, covariance)


def moments_of_draws(blocks: Iterator[Array], draws: int, covariance: bool) -> Sampled:
    """Sample moments of so many draws, which come in blocks (n, P)."""
    pilot = _first(blocks, min(draws, _PILOT))
    # All sums are of g - centre, the mean of the first draws: variances do not cancel, and the spread of
    # |g - centre|^2 is that of |g - mean|^2, whose average is the variance, to first order.
    centre = pilot.mean(axis=0)
    P = centre.size
    total, squares = np.zeros(P), np.zeros(P)
    norms: list[Array] = []
    outer = np.zeros((P, P)) if covariance else None
    for g in chain([pilot], blocks):
        g -= centre
        total += g.sum(axis=0)
        squares += (g**2).sum(axis=0)
        norms.append(np.einsum("np,np->n", g, g))
        if outer is not None:
            outer += g.T @ g
    off = total / draws
    spread = np.maximum(squares / draws - off**2, 0.0) * draws / (draws - 1)
    variance_error = float(np.concatenate(norms).std(ddof=1) / np.sqrt(draws))
    matrix = None if outer is None else (outer / draws - np.outer(off, off)) * draws / (draws - 1)
    return Sampled(centre + off, np.sqrt(spread / draws), float(spread.sum()), variance_error, matrix, draws)


def _first(blocks: Iterator[Array], least: int) -> Array:
    """The first blocks in one, at least so many draws."""
    found = [next(blocks)]
    while sum(map(len, found)) < least:
        found.append(next(blocks))
    return np.concatenate(found)


def _draws(problem: Problem, estimator: Estimator, draws: int, rng: np.random.Generator) -> Iterator[Array]:
    """Values of the estimator, (draws of this block, P), until all are drawn."""
    p, per_draw = problem.process, estimator.trajectories_per_draw
    walk = Walk(p, problem.behaviour)
    rows = _BLOCK_NUMBERS // max(p.states * p.actions, problem.target.parameter_count, 8 * p.horizon)
    per_block = max(1, rows // per_draw)
    group = isinstance(estimator.signal, GroupSignal)
    while draws > 0:
        n = min(per_block, draws)
        draws -= n
        start = rng.choice(p.states, size=n if group else n * per_draw, p=p.initial / p.initial.sum())
        block = sample_block(walk, np.repeat(start, per_draw) if group else start, rng)
        yield draw_values(walk, block, problem, estimator)


def draw_values(walk: Walk, block: Block, problem: Problem, estimator: Estimator) -> Array:
    """The estimator's value on each draw, (draws, P); the block holds whole draws, their trajectories in a row."""
    p, per_draw = problem.process, estimator.trajectories_per_draw
    n = len(block.edge) // per_draw
    if isinstance(estimator.signal, GroupSignal):
        outcomes = rounded_returns(p, returns(walk, block)).reshape(n, per_draw)
        advantage = estimator.signal.advantages(outcomes).reshape(-1, 1)
        signals = (np.broadcast_to(advantage, block.acting.shape) * block.acting)[None]
    else:
        signals = token_signals(walk, block, problem)
    weights = score_weights(walk, block, problem, signals, per_draw)[0]
    length = block.acting.sum(axis=1)
    if estimator.reduction.name == "token_mean":
        tokens = np.maximum(length.reshape(n, per_draw).sum(axis=1), 1)
        factor = np.repeat(1.0 / tokens, per_draw)
    else:
        factor = token_factor(length, estimator.reduction.name, p.horizon) / per_draw
    weights = (weights * factor[:, None, None]).reshape(n, per_draw, p.states, p.actions).sum(axis=1)
    return problem.target.combine_scores(weights)
