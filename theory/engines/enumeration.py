"""Exact moments by walking the tree of all trajectories, level by level, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from theory.engines.problem import Bins, EngineRefusal, Problem, rounded_returns
from theory.engines.trajectories import Block, Walk, returns, score_weights, token_multiples, token_signals
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MOST_TRAJECTORIES = 20_000_000
# Numbers per block in eight (N, T) arrays of the tokens, 32 MB, and in tables (., S, A) of what their scores weigh.
_BLOCK_NUMBERS = 4_000_000


def count_trajectories(process: MarkovProcess, behaviour: SoftmaxPolicy) -> float:
    """Number of trajectories of positive probability under mu, (s_0, a_0, s_1, ...): exact up to 2^53, then to 16
    digits, and inf beyond float64.
    """
    walk = Walk(process, behaviour)
    from_state = np.ones(process.states)
    acts = walk.degree > 0
    with np.errstate(over="ignore"):
        for _ in range(process.horizon):
            following = np.bincount(walk.state, from_state[walk.next_state], process.states)
            from_state = np.where(acts, following, 1.0)
    return float(from_state[process.initial > 0.0].sum())


def enumerate_blocks(process: MarkovProcess, behaviour: SoftmaxPolicy, most_rows: int) -> Iterator[tuple[Walk, Block]]:
    """Every trajectory once, in blocks of about `most_rows`. Prefixes are shared until a block is split."""
    walk, T = Walk(process, behaviour), process.horizon
    start = np.flatnonzero(process.initial)
    nothing = np.empty((start.size, 0), dtype=np.int64)
    stack = [(start, nothing, start, process.initial[start])]
    while stack:
        origin, path, state, probability = stack.pop()
        while path.shape[1] < T:
            degree = walk.degree[state]
            children = np.maximum(degree, 1)
            total = int(children.sum())
            if total > most_rows and state.size > 1:
                half = state.size // 2
                stack.append((origin[half:], path[half:], state[half:], probability[half:]))
                origin, path, state, probability = origin[:half], path[:half], state[:half], probability[:half]
                continue
            parent = np.repeat(np.arange(state.size), children)
            rank = np.arange(total) - np.repeat(np.cumsum(children) - children, children)
            goes_on = degree[parent] > 0
            edge = np.where(goes_on, walk.first[state[parent]] + rank, -1)
            probability = probability[parent] * np.where(goes_on, walk.chance[edge], 1.0)
            path = np.concatenate([path[parent], edge[:, None]], axis=1)
            state = np.where(goes_on, walk.next_state[edge], state[parent])
            origin = origin[parent]
        yield walk, Block(origin, np.maximum(path, 0), path >= 0, state, probability)


def bins_of(problem: Problem, most_trajectories: int = MOST_TRAJECTORIES) -> Bins:
    """Moments by enumeration of every trajectory.

    Raises:
        EngineRefusal: the tree has more than `most_trajectories` leaves.
    """
    p = problem.process
    needed = count_trajectories(p, problem.behaviour)
    if needed > most_trajectories:
        size = f"{needed:.0f}" if needed < 1e9 else f"{needed:.3g}" if needed < np.inf else "over 1e308"
        raise EngineRefusal(
            f"enumeration needs {size} trajectories, the limit is {most_trajectories}; engine='sampling' can take it, "
            "and engine='recursion' where the weight factorises"
        )
    total = _Accumulator(problem)
    table = p.states * p.actions if problem.outer else 0
    rows = max(64, _BLOCK_NUMBERS // (len(problem.signals) * max(table, 8 * p.horizon)))
    for walk, block in enumerate_blocks(p, problem.behaviour, rows):
        total.add(walk, block)
    return total.bins()


class _Accumulator:
    """Sums over blocks, by bin."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.sums: dict[tuple[int, float], list[Array]] = {}

    def add(self, walk: Walk, block: Block) -> None:
        """Add a block's trajectories to their bins."""
        order, bins, keys = self._binned(walk, block)
        block = Block(*(column[order] for column in block))  # type: ignore[arg-type]
        sums = self._sums(walk, block, bins, len(keys))
        for i, key in enumerate(keys):
            old, here = self.sums.get(key), [x[i] for x in sums]
            self.sums[key] = here if old is None else [x + y for x, y in zip(old, here, strict=True)]

    def _binned(self, walk: Walk, block: Block) -> tuple[Index, Index, list[tuple[int, float]]]:
        """An order of the trajectories by (length, outcome), each one's bin in that order, and the bins."""
        length = block.acting.sum(axis=1)
        outcome = np.zeros(length.size)
        if self.problem.by_outcome:
            outcome = rounded_returns(self.problem.process, returns(walk, block))
        order = np.lexsort((outcome, length))
        length, outcome = length[order], outcome[order]
        new = np.ones(order.size, dtype=bool)
        new[1:] = (np.diff(length) > 0) | (np.diff(outcome) > 0.0)
        keys = list(zip(length[new].tolist(), outcome[new].tolist(), strict=True))
        return order, np.cumsum(new) - 1, keys

    def _sums(self, walk: Walk, block: Block, bins: Index, count: int) -> list[Array]:
        """Probability, mean, second moment and outer product of each bin."""
        problem, target = self.problem, self.problem.target
        signals = token_signals(walk, block, problem)
        multiples, n = list(token_multiples(walk, block, problem, signals)), len(signals)
        state, action = walk.state[block.edge], walk.action[block.edge]
        second = np.full((count, n, n), np.nan)
        for o in range(0 if problem.mean_only else n):
            for q in range(o + 1):
                inner = target.squared_norm_of_tokens(state, action, multiples[o], multiples[q])
                second[:, o, q] = second[:, q, o] = np.bincount(bins, block.probability * inner, count)
        shares = [block.probability[:, None] * x for x in multiples]
        mean = self._means(state * problem.process.actions + action, shares, bins, count)
        sums: list[Array] = [np.bincount(bins, block.probability, count).astype(np.float64), mean, second]
        if problem.outer:
            weights = score_weights(walk, block, problem, signals)
            vectors = np.sqrt(block.probability)[:, None] * target.combine_scores(weights)
            parts = np.split(vectors, np.searchsorted(bins, np.arange(1, count)), axis=1)
            sums.append(np.stack([x.swapaxes(1, 2) @ x for x in parts]))
        return sums

    def _means(self, cell: Index, multiples: list[Array], bins: Index, count: int) -> Array:
        """Sums of the scores of cells (N, T) times n multiples (N, T), by bin: (count, n, P)."""
        target, n = self.problem.target, len(multiples)
        cells = target.states * target.actions
        together, parts = max(1, _BLOCK_NUMBERS // (n * cells)), []
        for begin in range(0, count, together):
            end = min(begin + together, count)
            rows = slice(*np.searchsorted(bins, [begin, end]))
            where = ((bins[rows, None] - begin) * cells + cell[rows]).reshape(-1)
            totals = [np.bincount(where, x[rows].reshape(-1), (end - begin) * cells) for x in multiples]
            weights = np.array(totals, dtype=np.float64).reshape(n, -1, target.states, target.actions)
            parts.append(target.combine_scores(weights).swapaxes(0, 1))
        return np.concatenate(parts)

    def bins(self) -> Bins:
        """The sums as arrays, ordered by length, then return."""
        keys = sorted(self.sums)
        columns = [np.stack([self.sums[key][i] for key in keys]) for i in range(3 + self.problem.outer)]
        outcome = np.array([key[1] for key in keys]) if self.problem.by_outcome else np.full(len(keys), np.nan)
        return Bins(
            np.array([key[0] for key in keys]), outcome, columns[0], columns[1], columns[2],
            columns[3] if self.problem.outer else None,
        )  # fmt: skip
