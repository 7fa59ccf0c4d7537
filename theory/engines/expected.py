"""Exact expectations of a weight alone: what its coefficients are on average where a token is chosen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.engines import enumeration, recursion
from theory.engines.cells import Cells, Coefficient
from theory.engines.problem import EngineRefusal, Problem
from theory.engines.trajectories import Block, Walk, coefficients, token_signals
from theory.policy import SoftmaxPolicy

Array = NDArray[np.float64]

EXACT_ENGINES = ("auto", "recursion", "enumeration")
_BLOCK_ROWS = 50_000


def exact_engine(problem: Problem, engine: str, *, cheapest: bool = False) -> str:
    """The exact engine that answers; "auto" takes the recursion where it can, or the cheaper one of the two.

    Raises:
        ValueError: an unknown name, or no exact engine (EngineRefusal: not the one asked for) can take the problem.
    """
    checks.known_name("engine", engine, EXACT_ENGINES)
    why_not = recursion.refusal(problem).split(";")[0]
    if engine != "enumeration" and not why_not:
        dear = engine == "auto" and cheapest and enumeration_cost(problem) < recursion.cost(problem)
        return "enumeration" if dear else "recursion"
    if engine == "recursion":
        raise EngineRefusal(f"{why_not}; engine='enumeration' can take it where the tree is small")
    count, most = enumeration.count_trajectories(problem.process, problem.behaviour), enumeration.MOST_TRAJECTORIES
    if count > most:
        instead = f"; {why_not}" if why_not else "; engine='recursion' can take it"
        raise EngineRefusal(f"enumeration needs {count:.3g} trajectories, the limit is {most}{instead}")
    return "enumeration"


def enumeration_cost(problem: Problem) -> float:
    """Numbers touched by a walk over all trajectories; infinite where they are too many."""
    p = problem.process
    count = enumeration.count_trajectories(p, problem.behaviour)
    return count * (p.states * p.actions + 20.0 * p.horizon) if count <= enumeration.MOST_TRAJECTORIES else np.inf


def expected_coefficients(problem: Problem, engine: str) -> Array:
    """E_mu[c_t 1{s_t = s, a_t = a}], (T, S, A); a weight that looks at a sign sees that of the problem's signal."""
    if engine == "recursion":
        return sum(run.coefficients() for run in _runs(problem))  # type: ignore[return-value]
    p = problem.process
    total = np.zeros(p.horizon * p.states * p.actions)
    for walk, block in enumeration.enumerate_blocks(p, problem.behaviour, _BLOCK_ROWS):
        chance = block.probability[:, None] * _coefficients(walk, block, problem)
        cell = np.arange(p.horizon) * p.states * p.actions + _cell(walk, block, p.actions)
        total += np.bincount(cell.reshape(-1), chance.reshape(-1), total.size)
    return total.reshape(p.horizon, p.states, p.actions)


def expected_cumulative_scores(problem: Problem, engine: str) -> Array:
    """E_mu[c_t 1{s_t = s} sum over k <= t of z_k], (T, S, P)."""
    if engine == "recursion":
        return sum(run.cumulative_scores() for run in _runs(problem))  # type: ignore[return-value]
    p, target = problem.process, problem.target
    S, cells = p.states, p.states * p.actions
    total = np.zeros((p.horizon, S * cells))
    for walk, block in enumeration.enumerate_blocks(p, problem.behaviour, _BLOCK_ROWS):
        chance = block.probability[:, None] * _coefficients(walk, block, problem)
        state, cell = walk.state[block.edge], _cell(walk, block, p.actions)
        for t in range(p.horizon):
            for k in range(t + 1):
                total[t] += np.bincount(state[:, t] * cells + cell[:, k], chance[:, t], S * cells)
    return target.combine_scores(total.reshape(p.horizon, S, S, p.actions))


def scores_by_state(target: SoftmaxPolicy, weights: Array) -> Array:
    """Sum over a of weights[s, a] z(s, a) for each state by itself: from (S, A) to (S, P)."""
    return target.combine_scores(np.eye(target.states)[:, :, None] * weights)


def _coefficients(walk: Walk, block: Block, problem: Problem) -> Array:
    advantage = token_signals(walk, block, problem)[0] if problem.weight.uses_advantage else None
    return coefficients(walk, block, problem, advantage)


def _cell(walk: Walk, block: Block, actions: int) -> NDArray[np.int64]:
    return (walk.state * actions + walk.action)[block.edge]


def _runs(problem: Problem) -> list[_Run]:
    """One pass, or one per length of episode where the weight's factors depend on it."""
    lengths = recursion.possible_lengths(problem)
    if not problem.weight.family.by_length or lengths.size == 1:
        return [_Run(problem, max(int(lengths[-1]), 1), None)]
    return [_Run(problem, max(int(n), 1), int(n)) for n in lengths]


class _Run:
    """A pass over the steps: forward with what earlier tokens carry, given the expected factor of later tokens."""

    def __init__(self, problem: Problem, length: int, only: int | None) -> None:
        """Prepare; with `only`, episodes of exactly this length count."""
        factors = problem.factors(length)
        self.problem, self.factors, self.cells = problem, factors, Cells.of(problem, factors)
        self.steps = problem.process.horizon if only is None else only
        one = np.ones(self.cells.gate.shape[1:])
        before = one if factors.before is None else factors.before
        self.before = Coefficient(before[None, :, :, None], tag="a")
        self.following = self._following(one if factors.after is None else factors.after, only)

    def _following(self, after: Array, only: int | None) -> Array:
        """E[product over j >= t of after_j | s_t = s], (steps + 1, S); lengths that do not count give zero."""
        p = self.problem.process
        ends = np.ones(p.states, bool) if self.steps == p.horizon else p.absorbing
        result = np.zeros((self.steps + 1, p.states))
        result[-1] = ends
        for t in reversed(range(self.steps)):
            result[t] = np.einsum("sat,sa,t->s", self.cells.step, after, result[t + 1])
            result[t, p.absorbing] = only is None
        return result

    def _start(self) -> Array:
        return np.broadcast_to(self.problem.process.initial, (self.cells.levels.size, self.problem.process.states))

    def _own(self, t: int) -> Array:
        """Chance of each action and what follows it, times the own factor and that of later tokens, (K or 1, S, A)."""
        signal = self.problem.signals[0]
        psi = signal.table(t)[None] if signal.table is not None else np.ones((1, 1, 1, 1))
        own = self.factors.own_at(t, self.cells.stat, psi)
        chance = self.cells.step * self.following[t + 1]
        chance = chance if own.shape[-1] > 1 else chance.sum(axis=-1, keepdims=True)
        return np.asarray(np.einsum("ksat,sat->ksa", np.broadcast_to(own, (len(own), *chance.shape)), chance))

    def coefficients(self) -> Array:
        """(T, S, A)."""
        p, cells, u = self.problem.process, self.cells, self._start()
        result = np.zeros((p.horizon, p.states, p.actions))
        for t in range(self.steps):
            result[t] = (_cells_of(u)[:, :, None] * self._own(t)).sum(axis=0)
            u = cells.push(self.before, u)
        return result

    def cumulative_scores(self) -> Array:
        """(T, S, P)."""
        p, cells, u, target = self.problem.process, self.cells, self._start(), self.problem.target
        result = np.zeros((p.horizon, p.states, target.parameter_count))
        v = np.zeros((*u.shape, target.parameter_count))
        for t in range(self.steps):
            own = self._own(t)
            result[t] = scores_by_state(target, (_cells_of(u)[:, :, None] * own).sum(axis=0))
            result[t] += (_cells_of(v) * own.sum(axis=-1)[:, :, None]).sum(axis=0)
            v = cells.push_vectors(self.before, v) + cells.inject(self.before, u)
            u = cells.push(self.before, u)
        return result


def _cells_of(x: Array) -> Array:
    """From thresholds to cells, along the first axis."""
    return -np.diff(x, axis=0, append=0.0)
