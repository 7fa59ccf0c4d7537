"""Batches on which a loss is compared with the registry: ragged, and dense where clips and caps lie."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from testbed.auditing.batch import Array, Batch

SHOWN, HOLES, FULL = 2, 3, 4
_SPREADS = np.array([[0.5], [0.3], [0.1], [2e-4], [0.8], [1e-4]])
"""Which batch a report shows token by token, which has masked tokens between others, and which has none."""


@lru_cache(maxsize=1)
def probes() -> tuple[Batch, ...]:
    """Five batches, the same in every run; all tokens of a sequence share one advantage, as a sequence-level loss asks.

    0: 48 sequences, log-ratios of every scale from 1e-4 to 2, so that narrow trust regions of averages bind as well.
    1: one or two tokens, log-ratios on a grid from -2.5 to 3.6 and a fine one around 0, both signs of the advantage,
    so that any two thresholds in use differ somewhere. 2, 3, 4: small, of different sizes; 2 is ragged, 3 has holes in
    its mask, 4 no padding.
    """
    rng = np.random.default_rng(7)
    scales = np.exp(rng.uniform(np.log(1e-4), np.log(2.0), (48, 1)))
    first = _batch(rng, rng.integers(1, 11, 48), 10, scales)
    grid = _grid(rng)
    lengths = (np.array([5, 2, 3, 4]), np.array([7, 12, 7, 1, 9, 9]), np.array([6, 6, 6]))
    shown, holes, full = (_batch(rng, n, int(n.max()), rng.permutation(_SPREADS)[: len(n)]) for n in lengths)
    mask = holes.mask.copy()
    mask[0, 2:4] = mask[1, 5] = mask[4, 0] = 0.0
    return first, grid, shown, _masked(holes, mask), full


def token_advantages(batch: Batch) -> Batch:
    """The same batch with an advantage for every token of its own."""
    rng = np.random.default_rng(8)
    shape = batch.mask.shape
    drawn = rng.uniform(0.3, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    return batch._replace(advantages=drawn * batch.mask)


def _batch(rng: np.random.Generator, lengths: NDArray[np.int64], width: int, scales: Array) -> Batch:
    n = len(lengths)
    mask = (np.arange(width) < lengths[:, None]).astype(float)
    update = scales * rng.standard_normal((n, width))
    engines = rng.permutation(scales) * rng.standard_normal((n, width))
    advantage = rng.uniform(0.3, 1.5, (n, 1)) * rng.choice([-1.0, 1.0], (n, 1))
    return _of(rng, update, engines, advantage, mask)


def _grid(rng: np.random.Generator) -> Batch:
    # Trust regions of averages of log-ratios are as narrow as 1e-4.
    points = np.concatenate([np.linspace(-2.5, 3.6, 80), np.linspace(-1.05e-3, 1.05e-3, 22)])
    n = 2 * len(points)
    update, engines, mask = np.zeros((n, 2)), np.zeros((n, 2)), np.ones((n, 2))
    update[:, 0] = np.repeat(points, 2)
    engines[:, 0] = rng.permutation(update[:, 0])
    # A second token whose ratio is all but one, in some: the sequence's ratio is then that of the first.
    update[:, 1], engines[:, 1] = rng.normal(0.0, 1e-5, (2, n))
    mask[(rng.random(n) < 0.4) | (np.abs(update[:, 0]) < 0.01), 1] = 0.0
    advantage = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)[:, None] * rng.uniform(0.3, 1.5, (n, 1))
    return _of(rng, update, engines, advantage, mask)


def _of(rng: np.random.Generator, update: Array, engines: Array, advantage: Array, mask: Array) -> Batch:
    """From log pi - log pi_old and log pi_old - log mu; every log-probability is below zero."""
    logp = -np.exp(rng.normal(0.0, 0.7, mask.shape))
    old = logp - update
    rollout = old - engines
    above = np.maximum(np.maximum(logp, old), rollout)
    down = np.maximum(above, 0.0) + 0.01
    batch = Batch(logp - down, old - down, rollout - down, np.broadcast_to(advantage, mask.shape), mask)
    return _masked(batch, mask)


def _masked(batch: Batch, mask: Array) -> Batch:
    """Log-probabilities of zero where the mask is zero; a sequence's advantage stands at all of its tokens."""
    cut = Batch(*(np.where(mask != 0.0, array, 0.0) for array in batch))
    return cut._replace(advantages=np.array(batch.advantages), mask=mask)
