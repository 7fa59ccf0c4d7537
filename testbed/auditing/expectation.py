"""The exact expected gradient of a loss: every draw of trajectories goes through it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
"""Draws up to which each has a call of its own; beyond, those that do not couple share calls."""
_BLOCK_ROWS = 20_000
_DRAWS_PER_SHARED_CALL = 50
_CHECKED = 30
_AGREES = 1e-9


class Expected(NamedTuple):
    """Moments of a loss's ascent direction over one draw."""

    moments: theory.Moments
    leak: Array
    """(P,), the expectation with every advantage 1 less that with every advantage 0: zero where baselines drop out."""


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


def expected(
    loss: Loss, setting: Setting, separate: bool, draws: int, seed: int, *, remains: bool = True, random: bool = False
) -> Expected:
    """Moments over all draws, or over sampled ones where they are too many.

    Args:
        loss: what is minimised; its ascent direction is the estimator.
        setting: environment, policies, signal.
        separate: whether draws may share a call, because sequences do not couple.
        draws: how many to sample where not all can be visited; 50 times as many where draws share a call.
        seed: of the samples.
        remains: whether there is a gradient at advantages of zero, which is no leak of a baseline.
        random: whether the loss draws random numbers: then draws are sampled.
    """
    problem = setting.problem
    sums = _Sums(setting.target.parameter_count)
    count = enumeration.count_trajectories(setting.process, setting.behaviour)
    every = comb(int(count) + setting.per_draw - 1, setting.per_draw) if count < 1e6 else np.inf
    exact = not random and (every <= MOST_CALLS or (separate and every * setting.per_draw <= MOST_ROWS))
    alone = not separate or every <= MOST_CALLS
    calls = draws * _DRAWS_PER_SHARED_CALL if separate else draws
    blocks = _all_draws(setting) if exact else _sampled_draws(setting, calls, seed)
    for walk, block, probability in blocks:
        batch = setting.batch(walk, block, problem)
        ascents = _ascents(loss, batch, setting.per_draw, alone)
        flat = [batch._replace(advantages=constant * batch.mask) for constant in ((1.0, 0.0) if remains else (1.0,))]
        # Where all advantages are the same some losses divide by their spread: then there is no leak to tell.
        leak, *rest = [_ascents(loss, b, setting.per_draw, alone, finite=False) for b in flat]
        for remaining in rest:
            leak = leak - remaining
        sums.add(probability, *(_vectors(setting, walk, block, each) for each in (ascents, leak)))
    gradient = theory.policy_gradient(setting.process, setting.target)
    if exact:
        variance = max(sums.second - float(sums.mean @ sums.mean), 0.0)
        moments = theory.Moments(sums.mean, variance, gradient, "enumeration", setting.per_draw, setting.lost_mass)
        return Expected(moments, sums.leak)
    n = sums.draws
    spread = np.maximum(sums.squares - sums.mean**2, 0.0) * n / (n - 1)
    error = float(np.sqrt(max(sums.fourth - sums.second**2, 0.0) / n))
    moments = theory.Moments(
        sums.mean, float(spread.sum()), gradient, "sampling", setting.per_draw, setting.lost_mass,
        np.sqrt(spread / n), error, n,
    )  # fmt: skip
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


def _ascents(loss: Loss, batch: Batch, per_draw: int, alone: bool, finite: bool = True) -> Array:
    """What the loss would ascend on each draw alone, (D per_draw, T).

    Unless each is to have a call of its own, draws whose sequences have the same lengths share one: then whatever the
    loss divides by is the same for each, and one factor, checked on draws alone, turns the shared call into theirs.
    """
    ascent = _finite if finite else _any
    draws = len(batch.mask) // per_draw
    result = np.empty_like(batch.logp)
    if alone or draws == 1:
        for d in range(draws):
            own = slice(d * per_draw, (d + 1) * per_draw)
            result[own] = ascent(loss, batch.rows(own))
        return result
    lengths = np.sort(batch.length.reshape(draws, per_draw), axis=1)
    kinds, kind = np.unique(lengths, axis=0, return_inverse=True)
    for k in range(len(kinds)):
        rows = _rows(np.flatnonzero(kind.reshape(-1) == k), per_draw)
        part = batch.rows(rows)
        shared = _shared(loss, part, per_draw, ascent)
        result[rows] = _ascents(loss, part, per_draw, True, finite) if shared is None else shared
    return result


def _rows(draws: NDArray[np.int64], per_draw: int) -> NDArray[np.int64]:
    return np.asarray((draws[:, None] * per_draw + np.arange(per_draw)).reshape(-1))


def _shared(loss: Loss, batch: Batch, per_draw: int, ascent: Callable[[Loss, Batch], Array]) -> Array | None:
    """One call for all draws; None where it is no multiple of the calls for the largest two and for random others."""
    together = ascent(loss, batch)
    by_draw = together.reshape(-1, per_draw * together.shape[1])
    largest = np.argsort(-np.abs(by_draw).max(axis=1), kind="stable")[:2]
    others = np.random.default_rng(len(by_draw)).permutation(len(by_draw))[:_CHECKED]
    chosen = np.unique(np.concatenate([largest, others]))
    shared = by_draw[chosen]
    singles = np.stack([ascent(loss, batch.rows(_rows(np.array([d]), per_draw))).reshape(-1) for d in chosen])
    size = float((shared * shared).sum())
    factor = float((singles * shared).sum()) / size if size > 0.0 else 1.0
    gap = float(np.abs(factor * shared - singles).max())
    return factor * together if factor > 0.0 and gap <= _AGREES * np.abs(singles).max() else None


def _any(loss: Loss, batch: Batch) -> Array:
    return loss.at(batch).ascent


def _finite(loss: Loss, batch: Batch) -> Array:
    ascent = loss.at(batch).ascent
    bad = np.argwhere(~np.isfinite(ascent) & batch.counted)
    if len(bad):
        raise ValueError(
            f"the gradient of loss {loss.name!r} is not finite at sequence {bad[0][0]}, token {bad[0][1]} of a batch "
            f"of the environment, where logp is {batch.logp[tuple(bad[0])]:.4g}; expected a loss that is finite there"
        )
    return ascent
