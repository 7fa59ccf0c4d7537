"""From the moments of one trajectory's sums to the moments of one draw of the estimator."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.engines.problem import Bins

Array = NDArray[np.float64]


class Draw(NamedTuple):
    """Moments of n jointly distributed estimators over one draw."""

    mean: Array
    """(n, P)"""
    second: Array
    """(n, n): E[<g_o, g_q>]."""
    outer: Array | None
    """(n, P, P): E[g_o g_o']."""


def average(bins: Bins, reduction: str, horizon: int, batch: int) -> Draw:
    """Average over `batch` trajectories of a reduction of each: sum, length_mean, constant."""
    factor = token_factor(bins.length, reduction, horizon)
    mean = np.tensordot(factor, bins.mean, 1)
    second = np.tensordot(factor**2, bins.second, 1)
    outer = None if bins.outer is None else np.tensordot(factor**2, bins.outer, 1)
    if batch == 1:
        return Draw(mean, second, outer)
    # Of the batch^2 pairs, batch are of a trajectory with itself; the others are independent.
    own, others = 1.0 / batch, (batch - 1.0) / batch
    if outer is not None:
        outer = own * outer + others * np.einsum("op,oq->opq", mean, mean)
    return Draw(mean, own * second + others * (mean @ mean.T), outer)


def token_factor(length: Array | NDArray[np.int64], reduction: str, horizon: int) -> Array:
    """What multiplies the sum over the tokens of a trajectory of this length."""
    if reduction == "length_mean":
        # An episode of length zero has nothing to average: its sum is zero whatever the factor.
        return np.asarray(1.0 / np.maximum(length, 1))
    return np.full(np.shape(length), 1.0 / horizon if reduction == "constant" else 1.0)


def sums_by(which: NDArray[np.int64], values: Array, kinds: int) -> Array:
    """Sums of the rows of `values` by kind, (kinds, ...)."""
    total = np.zeros((kinds, *values.shape[1:]))
    np.add.at(total, which, values)
    return total


def token_mean(bins: Bins, batch: int) -> Draw:
    """Sum over a batch divided by the number of tokens of the whole batch, exactly, in time polynomial in the batch.

    E[sum X_i / sum L_i] = B sum over l of E[X; L = l] E[1 / (l + N)], with N the tokens of the other B - 1
    trajectories; the second moment also needs pairs, with the tokens of the other B - 2.
    """
    lengths, which = np.unique(bins.length, return_inverse=True)
    longest = int(lengths[-1])
    mean, second = sums_by(which, bins.mean, lengths.size), sums_by(which, bins.second, lengths.size)
    law = np.zeros(longest + 1)
    law[lengths] = sums_by(which, bins.probability, lengths.size)
    one_less, two_less = _tokens_of_others(law, batch)
    alone = batch * _inverses(longest, one_less, 1)[lengths]
    alone2 = batch * _inverses(longest, one_less, 2)[lengths]
    others = np.zeros_like(mean)
    if batch > 1:
        # Row by row: all pairs of lengths together would be too many numbers.
        inverse = batch * (batch - 1) * _inverses(2 * longest, two_less, 2)
        others = np.stack([np.tensordot(inverse[n + lengths], mean, 1) for n in lengths])
    second_all = np.tensordot(alone2, second, 1) + np.einsum("lop,lqp->oq", mean, others, optimize=True)
    outer = None
    if bins.outer is not None:
        by_length = sums_by(which, bins.outer, lengths.size)
        outer = np.tensordot(alone2, by_length, 1) + np.einsum("lop,loq->opq", mean, others, optimize=True)
    return Draw(np.tensordot(alone, mean, 1), second_all, outer)


def _tokens_of_others(law: Array, batch: int) -> tuple[Array, Array]:
    """Laws of the number of tokens of batch - 1 and of batch - 2 trajectories."""
    total, before = np.ones(1), np.ones(1)
    for _ in range(batch - 1):
        total, before = np.convolve(total, law), total
    return total, before


def _inverses(most: int, law: Array, power: int) -> Array:
    """E[1 / (n + N)^power] for n = 0..most, N with this law; a batch without any token contributes zero, so its term
    is idle.
    """
    return np.correlate(1.0 / np.maximum(np.arange(most + law.size), 1) ** float(power), law, mode="valid")
