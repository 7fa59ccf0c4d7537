"""Exact expectations over whole sequences: products of factors, also by length, and extremes within a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from theory.engines.trajectories import Walk
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]

# Numbers that one statistic may touch, a few seconds of work.
MOST_NUMBERS = 200_000_000
_BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True, eq=False)
class Sequences:
    """The sequences of at least one token that a behaviour policy generates."""

    process: MarkovProcess
    walk: Walk
    start: Array
    """(S,) law of the first state."""
    arrive: sparse.csr_array
    """(E, S): from edges to the state they lead to."""

    @classmethod
    def of(cls, process: MarkovProcess, behaviour: SoftmaxPolicy) -> Sequences | None:
        """None where no episode takes a step."""
        start = np.where(process.absorbing, 0.0, process.initial)
        if not start.any():
            return None
        walk = Walk(process, behaviour)
        edges = walk.state.size
        arrive = sparse.csr_array((np.ones(edges), (np.arange(edges), walk.next_state)), (edges, process.states))
        return cls(process, walk, start / start.sum(), arrive)

    def on_edges(self, table: Array) -> Array:
        """A table (S, A) as numbers of the edges, (E,)."""
        return np.asarray(table[self.walk.state, self.walk.action])

    def expected_products(self, factors: Array, lengths: NDArray[np.int64] | None = None) -> Array:
        """E[product over t of factors[r, edge_t]] for each row r, (R,); NaN where that takes too many steps.

        With `lengths` (R,), row r counts the sequences of exactly that length only. Forward recursion
        v_{t+1}(s') = sum over edges (s, a, s') of v_t(s) mu(a|s) P(s'|s,a) factor; an edge that cannot be reached adds
        nothing, even if its factor is infinite.
        """
        steps = self.process.horizon if lengths is None else int(lengths.max())
        if float(factors.size) * steps > MOST_NUMBERS:
            return np.full(len(factors), np.nan)
        rows = max(1, _BLOCK_NUMBERS // factors.shape[1])
        parts = [
            self._products(factors[i : i + rows], None if lengths is None else lengths[i : i + rows], steps)
            for i in range(0, len(factors), rows)
        ]
        return np.concatenate(parts)

    def _products(self, factors: Array, lengths: NDArray[np.int64] | None, steps: int) -> Array:
        p = self.process
        v, result = np.broadcast_to(self.start, (len(factors), p.states)), np.zeros(len(factors))
        weighted = factors * self.walk.chance
        for t in range(1, steps + 1):
            here = v[:, self.walk.state]
            with np.errstate(invalid="ignore", over="ignore"):
                v = np.where(here > 0.0, here * weighted, 0.0) @ self.arrive
            ends = np.ones_like(p.absorbing) if t == p.horizon else p.absorbing
            counted = True if lengths is None else lengths == t
            result += np.where(counted, v[:, ends].sum(axis=1), 0.0)
            v = np.where(ends, 0.0, v)
        return result

    def expected_powers(self, log_factors: Array, lengths: NDArray[np.int64]) -> Array:
        """E[exp(mean over t of log_factors[r, edge_t])] for each row r, (R,): the exponent 1/L needs each length."""
        rows = np.repeat(log_factors, lengths.size, axis=0)
        every = np.tile(lengths, len(log_factors))
        with np.errstate(over="ignore"):
            products = self.expected_products(np.exp(rows / every[:, None]), every)
        return np.asarray(products.reshape(len(log_factors), -1).sum(axis=1))

    def expected_maximum(self, values: Array) -> float:
        """E[max over t of values[edge_t]]: the sum over levels x of x P(max = x), with P(max <= x) a product of gates.

        A level is a distinct value of an edge, so the cost grows with their number; NaN where it is too much.
        """
        levels = np.unique(values[self._possible])
        below = self.expected_products((values[None, :] <= levels[:, None]).astype(float))
        return float(levels @ np.diff(below, prepend=0.0)) if levels.size else float("nan")

    @property
    def _possible(self) -> NDArray[np.bool_]:
        """Edges that are reached within the horizon, (E,)."""
        alive, seen = self.start > 0.0, np.zeros(self.process.states, bool)
        for _ in range(self.process.horizon):
            seen |= alive
            following = np.zeros_like(seen)
            following[self.walk.next_state[alive[self.walk.state]]] = True
            alive = following & ~self.process.absorbing
        return np.asarray(seen[self.walk.state])

    def largest_sum(self, values: Array) -> float:
        """The largest sum over t of values[edge_t] of a sequence that can happen, by backward induction."""
        p, best = self.process, np.zeros(self.process.states)
        for _ in range(p.horizon):
            through = np.full(p.states, -np.inf)
            np.maximum.at(through, self.walk.state, values + best[self.walk.next_state])
            best = np.where(p.absorbing, 0.0, through)
        return float(best[self.start > 0.0].max())

    def range_of(self, values: Array) -> tuple[float, float]:
        """Smallest and largest value of an edge that can be reached."""
        reached = values[self._possible]
        return float(reached.min()), float(reached.max())
