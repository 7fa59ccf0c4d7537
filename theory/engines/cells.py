"""The cells of the recursion, (state, value of the running minimum), and how a step moves what they hold.

What a cell holds is kept in threshold form: entry k of an array is the sum over all cells whose running minimum is at
least the k-th level. In that form the minimum moves nothing between entries: entry k goes on through the actions
whose key is at least level k, so that a step is one small matrix product per level, whatever the number of cells. One
cell is the difference of two neighbouring entries. A weight without a statistic has one level, and entry 0 is
everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from theory.engines.problem import Problem
from theory.weights.registry import Factors

Array = NDArray[np.float64]

# Keys that agree to this relative distance are one level: the same ratio, reached through different roundings.
_SAME_LEVEL = 1e-13
# Above this many states, and below this share of non-zero transitions, a sparse product is faster than a dense one.
_SPARSE_STATES, _SPARSE_SHARE = 64, 0.1


class Coefficient(NamedTuple):
    """What a step multiplies with: scale * array, where array broadcasts with (K, S, A, S')."""

    array: Array
    scale: float = 1.0
    tag: str = ""
    """Names an array that is the same at every step, so that what is made of it is made once."""

    def __mul__(self, other: object) -> Coefficient:
        """The product; its tag is kept where both have one."""
        assert isinstance(other, Coefficient)
        tag = "*".join(sorted((self.tag, other.tag))) if self.tag and other.tag else ""
        return Coefficient(self.array * other.array, self.scale * other.scale, tag)

    @property
    def by_level(self) -> bool:
        """Whether it depends on the running minimum."""
        return bool(self.array.shape[0] > 1)


@dataclass(eq=False)
class Cells:
    """Levels, gates and one-step weights of a problem."""

    problem: Problem
    levels: Array
    """(K,) ascending values of the statistic, the last one +inf: no earlier token."""
    gate: Array
    """(K, S, A) 1 where an action keeps the running minimum at level k or above."""
    step: Array
    """(S, A, S') mu(a|s) P(s'|s,a), zero out of absorbing states."""

    @classmethod
    def of(cls, problem: Problem, factors: Factors) -> Cells:
        """The cells of a problem whose weight has these factors."""
        p = problem.process
        moving = np.where(p.absorbing[:, None], 0.0, problem.behaviour.probabilities)
        matrix = p.transition_matrix
        dense = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
        step = moving[:, :, None] * dense.reshape(p.states, p.actions, p.states)
        if factors.key is None:
            return cls(problem, np.array([np.inf]), np.ones((1, p.states, p.actions)), step)
        used = np.sort(factors.key[moving > 0.0])
        new = np.ones(used.size, dtype=bool)
        new[1:] = np.diff(used) > _SAME_LEVEL * np.abs(used[1:])
        levels = used[new]
        # A little up, whatever the key's sign: a level that rounding has put just above its key is still its level.
        slack = 0.5 * _SAME_LEVEL * np.abs(np.where(np.isfinite(factors.key), factors.key, 0.0))
        index = np.searchsorted(levels, factors.key + slack, side="right") - 1
        gate = index[None] >= np.arange(levels.size + 1)[:, None, None]
        return cls(problem, np.append(levels, np.inf), gate.astype(np.float64), step)

    def __post_init__(self) -> None:
        """Prepare what every step uses."""
        S, A, _ = self.step.shape
        self._flat_step = self.step.reshape(S * A, S)
        self._step_by_arrival = np.ascontiguousarray(np.moveaxis(self.step, 2, 0))
        self._products: dict[str, object] = {}

    @property
    def stat(self) -> Array:
        """The levels as the weights' own factors take them, (K, 1, 1, 1)."""
        return self.levels[:, None, None, None]

    def push(self, coefficient: Coefficient, x: Array) -> Array:
        """Scalars (K, S), or per action (K, S, A), through one step: (K, S')."""
        weighted = self._weighted(coefficient, x if x.ndim == 3 else x[:, :, None])
        K, S, A = self.gate.shape
        if weighted.shape[-1] == 1:
            return np.asarray(weighted.reshape(K, S * A) @ self._flat_step)
        return np.einsum("ksat,sat->kt", weighted, self.step)

    def push_total(self, coefficient: Coefficient, x: Array) -> Array:
        """Like `push`, summed over all levels: (1, S'). A sum without levels, (1, S), stays one."""
        x = x if x.ndim == 3 else x[:, :, None]
        cells = _cells_of(x) if coefficient.by_level else x[:1]
        weighted = coefficient.scale * np.sum(coefficient.array * cells[..., None], axis=0)
        S, A, _ = self.step.shape
        if weighted.shape[-1] == 1:
            return np.asarray(np.broadcast_to(weighted, (S, A, 1)).reshape(1, S * A) @ self._flat_step)
        return np.einsum("sat,sat->t", np.broadcast_to(weighted, self.step.shape), self.step)[None]

    def inject(self, coefficient: Coefficient, x: Array) -> Array:
        """Scalars (K, S) through one step, each times the score of the action taken: (K, S', P)."""
        weighted = self._weighted(coefficient, x[:, :, None])
        # In the order (K, S', S, A), so that what is summed over lies together in memory.
        if weighted.shape[-1] == 1:
            arriving = weighted[:, None, :, :, 0] * self._step_by_arrival
        else:
            arriving = np.moveaxis(weighted, 3, 1) * self._step_by_arrival
        return self.problem.target.combine_scores(arriving)

    def push_vectors(self, coefficient: Coefficient, x: Array) -> Array:
        """Vectors (K, S, P) through one step: (K, S', P)."""
        if coefficient.by_level:
            parts = [
                np.einsum("ksap,sat->ktp", weighted, step, optimize=True)
                for weighted, step in self._weighted_vectors(coefficient, x)
            ]
            return coefficient.scale * np.concatenate(parts, axis=1)
        matrix = self._matrix(coefficient)
        if sparse.issparse(matrix):
            return coefficient.scale * (matrix @ x[0])[None]
        return coefficient.scale * np.matmul(np.asarray(matrix), x)

    def outer(self, coefficient: Coefficient, x: Array) -> Array:
        """Vectors (K, S, P) through one step, each times the score of the action taken: (K, S', P, P)."""
        parts = [
            np.einsum("ksap,sat,saq->ktpq", weighted, step, self.problem.target.score, optimize=True)
            for weighted, step in self._weighted_vectors(coefficient, x)
        ]
        return coefficient.scale * np.concatenate(parts, axis=1)

    def _weighted_vectors(self, coefficient: Coefficient, x: Array) -> Iterator[tuple[Array, Array]]:
        """Coefficient (without its scale) times vectors, gated, (K, S, A, P), with the step (S, A, .) it goes on with.

        A coefficient that depends on the next state is taken one next state at a time, to bound the memory.
        """
        array = coefficient.array
        cells = _cells_of(x) if coefficient.by_level else x
        alone = array.shape[-1] == 1
        for t in [0] if alone else range(array.shape[-1]):
            weighted = array[..., t, None] * cells[:, :, None, :]
            weighted = (_thresholds_of(weighted) if coefficient.by_level else weighted) * self.gate[..., None]
            yield weighted, self.step if alone else self.step[..., t, None]

    def push_matrices(self, coefficient: Coefficient, x: Array) -> Array:
        """Matrices (K, S, P, P) through one step."""
        flat = x.reshape(*x.shape[:2], -1)
        return self.push_vectors(coefficient, flat).reshape(x.shape)

    def squared(self, coefficient: Coefficient, x: Array) -> Array:
        """Scalars (K, S) through one step, each times z z' of the action taken: (K, S', P, P)."""
        weighted = self._weighted(coefficient, x[:, :, None]) * self.step
        score = self.problem.target.score
        return np.einsum("ksat,sap,saq->ktpq", weighted, score, score, optimize=True)

    def _weighted(self, coefficient: Coefficient, x: Array) -> Array:
        """Coefficient times x (K, S, A or 1), gated: (K, S, A, S' or 1), in threshold form."""
        if not coefficient.by_level:
            return coefficient.scale * coefficient.array * (x * self.gate)[..., None]
        weighted = _thresholds_of(coefficient.array * _cells_of(x)[..., None])
        return coefficient.scale * weighted * self.gate[..., None]

    def _matrix(self, coefficient: Coefficient) -> object:
        """(K, S', S), or a sparse (S', S) where there is one level of many states."""
        if coefficient.tag and coefficient.tag in self._products:
            return self._products[coefficient.tag]
        weighted = coefficient.array * self.step
        matrix: object = np.einsum("ksa,sat->kts", self.gate, weighted[0], optimize=True)
        K, S, _ = self.gate.shape
        if K == 1 and S > _SPARSE_STATES and np.count_nonzero(matrix) < _SPARSE_SHARE * S * S:  # type: ignore[call-overload]
            matrix = sparse.csr_array(matrix[0])  # type: ignore[index]
        if coefficient.tag:
            self._products[coefficient.tag] = matrix
        return matrix


def _cells_of(x: Array) -> Array:
    """From thresholds to cells, along the first axis."""
    return np.concatenate([x[:-1] - x[1:], x[-1:]])


def _thresholds_of(x: Array) -> Array:
    """From cells to thresholds, along the first axis."""
    return np.cumsum(x[::-1], axis=0)[::-1]
