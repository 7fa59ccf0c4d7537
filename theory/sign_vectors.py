"""The longest vector that signs can make of given ones, exactly where that is possible and bracketed elsewhere."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.float64]

# Singular values below this share of the largest are rounding.
_RANK = 1e-13
# 2^15 sign vectors are enumerated; two dimensions are swept through at most this many directions.
_MOST_ENUMERATED, _MOST_SWEPT = 16, 4000


class SignedSum(NamedTuple):
    """Bounds of the maximum over b in [-1, 1]^n of |sum over i of b_i v_i|."""

    lower: float
    """Reached by `signs`."""
    upper: float
    """Not exceeded by any b; equal to `lower` where the maximum is known exactly."""
    signs: Array
    """(n,), of -1 and 1."""


def largest_signed_sum(vectors: Array) -> SignedSum:
    """Maximum over b in [-1, 1]^n of |sum over i of b_i v_i| for vectors (n, P); as the norm is convex, signs reach it.

    Vectors without a common non-zero coordinate are orthogonal: each connected block is solved for itself, and the
    squares add. A block is exact where its vectors span at most two dimensions (then the optimum is b_i = sign of
    <v_i, x> for one of n directions x) or are at most 16 (all signs). In general the problem is NP-hard (it is
    quadratic programming over signs): then `lower` comes from a local search over single flips, and `upper` is the
    smaller of the sum of |v_i| and sqrt(n) times the largest singular value.
    """
    n = len(vectors)
    signs, lower, upper = np.ones(n), 0.0, 0.0
    for rows in _blocks(vectors):
        low, high, signs[rows] = _solve(vectors[rows][:, np.any(vectors[rows] != 0.0, axis=0)])
        lower, upper = np.hypot(lower, low), np.hypot(upper, high)
    return SignedSum(float(lower), float(upper), signs)


def _blocks(vectors: Array) -> list[NDArray[np.int64]]:
    used = np.flatnonzero(np.any(vectors != 0.0, axis=1))
    if not used.size:
        return []
    row, coordinate = np.nonzero(vectors[used])
    n, P = used.size, vectors.shape[1]
    graph = sparse.coo_array((np.ones(row.size), (row, n + coordinate)), shape=(n + P, n + P))
    count, label = connected_components(graph, directed=False)
    order = np.argsort(label[:n], kind="stable")
    edges = np.searchsorted(label[:n][order], np.arange(count + 1))
    return [used[order[a:b]] for a, b in pairwise(edges) if b > a]


def _solve(vectors: Array) -> tuple[float, float, Array]:
    """Lower bound, upper bound and signs of one block."""
    _, size, axes = np.linalg.svd(vectors, full_matrices=False)
    rank = int((size > _RANK * size[0]).sum())
    n, x = len(vectors), vectors @ axes[:rank].T
    if rank == 1:
        candidates = _signs(x.T)
    elif n <= _MOST_ENUMERATED:
        candidates = _signs(-((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1).astype(float))
    elif rank == 2 and n <= _MOST_SWEPT:
        # The signs change where the direction is at a right angle to a vector: one direction between every two.
        turn = np.sort(np.arctan2(x[:, 1], x[:, 0]) % np.pi)
        middle = (turn + np.append(turn[1:], turn[0] + np.pi)) / 2.0 + np.pi / 2.0
        candidates = _signs(np.stack([np.cos(middle), np.sin(middle)], axis=1) @ x.T)
    else:
        signs = _local_search(x)
        low = float(np.linalg.norm(signs @ x))
        return low, max(low, min(float(np.linalg.norm(x, axis=1).sum()), float(np.sqrt(n) * size[0]))), signs
    length = np.linalg.norm(candidates @ x, axis=1)
    best = int(length.argmax())
    return float(length[best]), float(length[best]), candidates[best]


def _local_search(x: Array) -> Array:
    """Signs that no single flip improves, the best from one start along each axis."""
    own = (x**2).sum(axis=1)
    found: list[tuple[float, Array]] = []
    for start in x.T:
        signs = _signs(start)
        while True:
            total = signs @ x
            gain = own - signs * (x @ total)  # a quarter of what flipping each sign adds to |total|^2
            best = int(gain.argmax())
            if gain[best] <= 1e-12 * own.sum():
                break
            signs[best] = -signs[best]
        found.append((float(total @ total), signs))
    return max(found, key=lambda pair: pair[0])[1]


def _signs(x: Array) -> Array:
    return np.asarray(np.where(x >= 0.0, 1.0, -1.0))
