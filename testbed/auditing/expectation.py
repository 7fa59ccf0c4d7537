"""The exact expected gradient of a loss: every draw of trajectories goes through it once."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import theory
from testbed.auditing.batch import Array, Batch
from testbed.auditing.loss import Loss
from testbed.auditing.setting import Setting
from theory.engines import coupled, enumeration
from theory.engines.sampling import sample_block
from theory.engines.trajectories import Block, Walk
from theory.groups import GroupSignal

MOST_ROWS = 400_000
"""Trajectories, summed over all draws, that are visited where a loss treats them separately."""
MOST_CALLS = 20_000
"""Draws that are visited where each needs a call of its own."""
_BLOCK_ROWS = 20_000
_DRAWS_PER_SHARED_CALL = 50
_AGREES = 1e-9


class Expected(NamedTuple):
    """Moments of a loss's ascent direction over one draw."""

    moments: theory.Moments
    leak: Array
    """(P,), the expectation with every advantage 1: zero where baselines drop out."""


class _Sums:
    """Running sums over draws, for the ascent with the signal and with advantages of one."""

    def __init__(self, parameters: int) -> None:
        self.mean, self.leak, self.squares = (np.zeros(parameters) for _ in range(3))
        self.second, self.fourth, self.draws = 0.0, 0.0, 0

    def add(self, probability: Array, vectors: Array, leaks: Array) -> None:
        norms = np.einsum("dp,dp->d", vectors, vectors)
        self.mean += probability @ vectors
        self.leak += probability @ leaks
        self.squares += probability @ vectors**2
        self.second += float(probability @ norms)
        self.fourth += float(probability @ norms**2)
        self.draws += len(vectors)


def expected(loss: Loss, setting: Setting, separate: bool, draws: int, seed: int) -> Expected:
    """Moments over all draws, or over sampled ones where they are too many.

    Args:
        loss: what is minimised; its ascent direction is the estimator.
        setting: environment, policies, signal.
        separate: whether draws may share a call, because sequences do not couple.
        draws: how many to sample where not all can be visited; 50 times as many where draws share a call.
        seed: of the samples.
    """
    problem = setting.problem
    sums = _Sums(setting.target.parameter_count)
    count = enumeration.count_trajectories(setting.process, setting.behaviour)
    every = comb(int(count) + setting.per_draw - 1, setting.per_draw) if count < 1e6 else np.inf
    exact = every * setting.per_draw <= MOST_ROWS if separate else every <= MOST_CALLS
    calls = draws * _DRAWS_PER_SHARED_CALL if separate else draws
    blocks = _all_draws(setting) if exact else _sampled_draws(setting, calls, seed)
    for walk, block, probability in blocks:
        batch = setting.batch(walk, block, problem)
        ones = batch._replace(advantages=batch.mask)
        vectors = [_vectors(setting, walk, block, _ascents(loss, b, setting.per_draw, separate)) for b in (batch, ones)]
        sums.add(probability, vectors[0], vectors[1])
    gradient = theory.policy_gradient(setting.process, setting.target)
    lost = 0.0
    if exact:
        variance = max(sums.second - float(sums.mean @ sums.mean), 0.0)
        moments = theory.Moments(sums.mean, variance, gradient, "enumeration", setting.per_draw, lost)
        return Expected(moments, sums.leak)
    n = sums.draws
    spread = np.maximum(sums.squares - sums.mean**2, 0.0) * n / (n - 1)
    error = float(np.sqrt(max(sums.fourth - sums.second**2, 0.0) / n))
    moments = theory.Moments(
        sums.mean, float(spread.sum()), gradient, "sampling", setting.per_draw, lost, np.sqrt(spread / n), error, n
    )
    return Expected(moments, sums.leak)


def _all_draws(setting: Setting) -> Iterator[tuple[Walk, Block, Array]]:
    rows = min(_BLOCK_ROWS, 4_000_000 // setting.target.parameter_count)
    yield from coupled.batches(setting.problem, setting.estimator(), max(1, rows // setting.per_draw))


def _sampled_draws(setting: Setting, draws: int, seed: int) -> Iterator[tuple[Walk, Block, Array]]:
    rng, p = np.random.default_rng(seed), setting.process
    walk, left = Walk(p, setting.behaviour), draws
    while left > 0:
        n = min(left, max(1, _BLOCK_ROWS // setting.per_draw))
        left -= n
        group = isinstance(setting.signal, GroupSignal)
        start = rng.choice(p.states, size=n if group else n * setting.per_draw, p=p.initial / p.initial.sum())
        block = sample_block(walk, np.repeat(start, setting.per_draw) if group else start, rng)
        yield walk, block, np.full(n, 1.0 / draws)


def _vectors(setting: Setting, walk: Walk, block: Block, ascents: Array) -> Array:
    """Sum over the tokens of each draw of ascent x score, (D, P)."""
    p = setting.process
    draws = len(ascents) // setting.per_draw
    cells = p.states * p.actions
    draw = np.arange(len(ascents))[:, None] // setting.per_draw
    where = (draw * cells + (walk.state * p.actions + walk.action)[block.edge]).reshape(-1)
    added = np.where(block.acting, ascents, 0.0).reshape(-1)
    totals: Array = np.bincount(where, added, draws * cells).astype(np.float64)
    return setting.target.combine_scores(totals.reshape(draws, p.states, p.actions))


def _ascents(loss: Loss, batch: Batch, per_draw: int, separate: bool) -> Array:
    """What the loss would ascend on each draw alone, (D per_draw, T).

    Draws whose sequences have the same lengths share one call: then whatever the loss divides by is the same for each,
    and one factor, taken from the first and checked on another, turns the shared call into the single ones.
    """
    draws = len(batch.mask) // per_draw
    result = np.empty_like(batch.logp)
    if not separate or draws == 1:
        for d in range(draws):
            alone = slice(d * per_draw, (d + 1) * per_draw)
            result[alone] = _finite(loss, batch.rows(alone))
        return result
    lengths = np.sort(batch.length.reshape(draws, per_draw), axis=1)
    kinds, kind = np.unique(lengths, axis=0, return_inverse=True)
    for k in range(len(kinds)):
        rows = _rows(np.flatnonzero(kind.reshape(-1) == k), per_draw)
        result[rows] = _shared(loss, batch.rows(rows), per_draw)
    return result


def _rows(draws: NDArray[np.int64], per_draw: int) -> NDArray[np.int64]:
    return np.asarray((draws[:, None] * per_draw + np.arange(per_draw)).reshape(-1))


def _shared(loss: Loss, batch: Batch, per_draw: int) -> Array:
    together = _finite(loss, batch)
    by_draw = together.reshape(-1, per_draw * together.shape[1])
    order = np.argsort(-np.abs(by_draw).max(axis=1), kind="stable")
    first, second = int(order[0]), int(order[min(1, len(order) - 1)])
    if not by_draw[first].any():
        return together
    singles = [_finite(loss, batch.rows(slice(d * per_draw, (d + 1) * per_draw))).reshape(-1) for d in (first, second)]
    factor = float(singles[0] @ by_draw[first] / (by_draw[first] @ by_draw[first]))
    size = np.abs(singles[0]).max()
    for d, single in zip((first, second), singles, strict=True):
        if np.abs(factor * by_draw[d] - single).max() > _AGREES * size:
            return _ascents(loss, batch, per_draw, separate=False)
    return factor * together


def _finite(loss: Loss, batch: Batch) -> Array:
    ascent = loss.at(batch).ascent
    bad = np.argwhere(~np.isfinite(ascent) & batch.counted)
    if len(bad):
        raise ValueError(
            f"the gradient of loss {loss.name!r} is not finite at sequence {bad[0][0]}, token {bad[0][1]} of a batch "
            f"of the environment, where logp is {batch.logp[tuple(bad[0])]:.4g}; expected a loss that is finite there"
        )
    return ascent
