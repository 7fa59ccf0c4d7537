"""Exact mean and variance in time polynomial in the horizon, by a forward recursion over (state, statistic) cells.

Each cell holds E[u], E[v], E[u u'], E[u v'] and E[<v, v'>] of the linear system of `slots.py` over the trajectories
that are in it, unnormalised. Products over long sequences overflow, so both moments keep a running log scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from theory.engines.cells import Cells, Coefficient
from theory.engines.problem import Bins, EngineRefusal, Problem, rounded_returns
from theory.engines.slots import Entries, Slots
from theory.value_functions import occupancies
from theory.weights.registry import Factors

Array = NDArray[np.float64]

# Twice this is the log of the largest float64: coefficients are squared.
_LARGEST_LOG_RATIO = 350.0
# Numbers held by the largest array of a step (128 MB).
MOST_NUMBERS = 16_000_000


def bins_of(problem: Problem) -> Bins:
    """Moments by the forward recursion.

    Raises:
        EngineRefusal: what `refusal` says.
    """
    why_not = refusal(problem)
    if why_not:
        raise EngineRefusal(why_not)
    horizon, lengths = problem.process.horizon, possible_lengths(problem)
    if not problem.weight.family.by_length or lengths.size == 1:
        return _Run(problem, problem.factors(max(int(lengths[-1]), 1)), horizon).bins()
    parts = [_Run(problem, problem.factors(max(int(n), 1)), int(n), only=int(n)).bins() for n in lengths]
    return Bins(*(None if c[0] is None else np.concatenate(c) for c in zip(*parts, strict=True)))  # type: ignore[arg-type]


def refusal(problem: Problem) -> str:
    """Why the recursion cannot take a problem, in one sentence; empty where it can."""
    p, weight = problem.process, problem.weight
    others = "engine='enumeration' or 'sampling' can take it"
    if not weight.factorises:
        return f"{weight.label} does not factorise over the tokens; {others}"
    if weight.uses_advantage and any(s.kind != "table" for s in problem.signals):
        return f"{weight.label} looks at the sign of a signal that depends on later rewards; {others}"
    if problem.by_outcome and p.has_step_rewards:
        return f"returns that add up over steps are too many to be told apart by the recursion; {others}"
    used = (problem.behaviour.probabilities > 0.0) & ~p.absorbing[:, None]
    largest_log_ratio = problem.ratios.log_ratio[used].max(initial=0.0)
    if largest_log_ratio > _LARGEST_LOG_RATIO:
        return f"a ratio of exp({largest_log_ratio:.0f}) is beyond what the recursion multiplies in float64; {others}"
    K, P = _levels(problem), problem.target.parameter_count
    vectors = K * p.states * max(P, p.states * p.actions) * (P if problem.outer else 1)
    if K > 1 and (problem.cumulative or problem.outer):
        # What a coefficient of the statistic multiplies with vectors is held for every action.
        vectors *= p.actions
    largest = max(vectors, p.states**2 * p.actions)
    if largest > MOST_NUMBERS:
        return (
            f"the recursion would hold {largest:.3g} numbers at each step ({K} values of the statistic, S = {p.states}"
            f", P = {P}), the limit is {MOST_NUMBERS:.3g}; engine='sampling' can take it, engine='enumeration' a short "
            "horizon"
        )
    return ""


def _levels(problem: Problem) -> int:
    """Number of values of the weight's statistic."""
    factors = problem.factors(problem.process.horizon)
    return 1 if factors.key is None else 1 + np.unique(factors.key).size


def possible_lengths(problem: Problem) -> NDArray[np.int64]:
    """The lengths of positive probability under mu, ascending."""
    p = problem.process
    occupancy = np.where(p.absorbing, 0.0, occupancies(p, problem.behaviour))
    arriving = (p.transition_matrix @ p.absorbing).reshape(p.states, p.actions)
    chance = np.zeros(p.horizon + 1)
    chance[0] = p.initial @ p.absorbing
    chance[1:] = occupancy[:-1] @ (problem.behaviour.probabilities * arriving).sum(axis=1)
    chance[-1] += occupancy[-1].sum()
    return np.flatnonzero(chance)


def cost(problem: Problem) -> float:
    """Numbers touched by a run: what the choice between engines compares."""
    p = problem.process
    runs = len(possible_lengths(problem)) if problem.weight.family.by_length else 1
    slots = (len(problem.signals) + 2) * (2 if problem.cumulative else 1)
    # A step costs about 50,000 numbers' worth of calls, however small its arrays.
    step = float(_levels(problem)) * p.states * problem.target.parameter_count * slots * 4 + 50_000
    return step * p.horizon * runs


@dataclass
class _Moments:
    """The cells' content, in threshold form, each times exp of its log scale."""

    u: list[Array]
    v: list[Array]
    uu: list[list[Array]]
    uv: list[list[Array]]
    vv: list[list[Array]]
    vv_outer: list[list[Array]] | None
    log_scale: float = 0.0
    """Of the first moments."""
    log_scale_second: float = 0.0


@dataclass
class _Run:
    """One pass over the horizon."""

    problem: Problem
    factors: Factors
    horizon: int
    only: int | None = None
    """Keep only the episodes of exactly this length."""
    found: dict[tuple[int, float], list[Array]] = field(default_factory=dict)

    def bins(self) -> Bins:
        """Run, and return the moments by length and, where asked for, by return."""
        problem = self.problem
        self.cells = Cells.of(problem, self.factors)
        self.slots = Slots(problem, self.factors, self.cells)
        p = problem.process
        alive = np.where(p.absorbing, 0.0, p.initial)
        self.mass = alive
        self.moments = self._start(alive)
        # With one scalar that stays 1, E[u] = E[u u] and E[v] = E[u v]: they are kept once. Not where later tokens
        # multiply v, since E[v v] then grows so far beyond E[v] that its scale would take all digits of the mean.
        grows = self.slots.carries or self.factors.after is not None
        self.shared = not grows and self.slots.scalars == 1 and not problem.mean_only
        self._finish(0, np.where(p.absorbing, p.initial, 0.0), None)
        for t in range(self.horizon):
            self._advance(t)
            last = t + 1 == self.horizon and self.horizon == p.horizon
            ends = np.ones_like(p.absorbing) if last else p.absorbing
            self._finish(t + 1, np.where(ends, self.mass, 0.0), self.moments)
            self._keep(~ends)
        return self._collect()

    def _start(self, alive: Array) -> _Moments:
        K, S = self.cells.levels.size, alive.size
        P, nu, nv = self.problem.target.parameter_count, self.slots.scalars, self.slots.vectors
        zero, zeros, one = np.zeros((K, S)), np.zeros((K, S, P)), np.broadcast_to(alive, (K, S))
        matrices = np.zeros((K, S, P, P)) if self.problem.outer else None
        return _Moments(
            u=[one] + [zero] * (nu - 1),
            v=[zeros] * nv,
            uu=[[one if i == j == 0 else zero for j in range(nu)] for i in range(nu)],
            uv=[[zeros] * nv for _ in range(nu)],
            vv=[[zero if self.problem.cumulative else zero[:1]] * nv for _ in range(nv)],
            vv_outer=None if matrices is None else [[matrices] * nv for _ in range(nv)],
        )

    def _advance(self, t: int) -> None:
        A, B, C = self.slots.at(t)
        m, cells = self.moments, self.cells
        new = _Moments([], [], m.uu, m.uv, m.vv, None, m.log_scale, m.log_scale_second)
        nu, nv = self.slots.scalars, self.slots.vectors
        if not self.problem.mean_only:
            self._advance_second(new, A, B, C)
        if self.shared:
            new.u, new.v = new.uu[0], new.uv[0]
        else:
            new.u = [_sum(cells.push(a, m.u[x]) for a, x in _row(A, i)) for i in range(nu)]
            new.v = [
                _sum([cells.push_vectors(b, m.v[y]) for b, y in _row(B, j)])
                + _sum([cells.inject(c, m.u[x]) for c, x in _row(C, j)])
                for j in range(nv)
            ]
        self.mass = np.einsum("s,sat->t", self.mass, cells.step)
        self.moments = self._rescaled(new)

    def _advance_second(self, new: _Moments, A: Entries, B: Entries, C: Entries) -> None:
        m, cells, nu, nv = self.moments, self.cells, self.slots.scalars, self.slots.vectors
        new.uu = [
            [_sum(cells.push(a * b, m.uu[x][y]) for a, x in _row(A, i) for b, y in _row(A, j)) for j in range(nu)]
            for i in range(nu)
        ]
        new.uv = [[self._uv(_row(A, i), _row(B, j), _row(C, j)) for j in range(nv)] for i in range(nu)]
        projected = [[self.problem.target.project_on_scores(x) for x in row] for row in m.uv]
        new.vv = [[np.empty(0)] * nv for _ in range(nv)]
        for i in range(nv):
            for j in range(i + 1):
                new.vv[i][j] = new.vv[j][i] = self._vv(_row(B, i), _row(C, i), _row(B, j), _row(C, j), projected)
        if m.vv_outer is not None:
            new.vv_outer = [
                [self._vv_outer(_row(B, i), _row(C, i), _row(B, j), _row(C, j)) for j in range(nv)] for i in range(nv)
            ]

    def _uv(self, a: _Row, b: _Row, c: _Row) -> Array:
        m, cells = self.moments, self.cells
        pushed = [cells.push_vectors(x * y, m.uv[i][j]) for x, i in a for y, j in b]
        return _sum(pushed + [cells.inject(x * y, m.uu[i][j]) for x, i in a for y, j in c])

    def _vv(self, b: _Row, c: _Row, b2: _Row, c2: _Row, projected: list[list[Array]]) -> Array:
        m, cells, squared = self.moments, self.cells, self.problem.target.squared_score
        # Only the cumulative score looks at the vectors through the statistic; else their products need no levels.
        push = cells.push if self.problem.cumulative else cells.push_total
        terms = [push(x * y, m.vv[i][j]) for x, i in b for y, j in b2]
        terms += [push(x * y, projected[j][i]) for x, i in b for y, j in c2]
        terms += [push(x * y, projected[i][j]) for x, i in c for y, j in b2]
        terms += [push(x * y, m.uu[i][j][:, :, None] * squared) for x, i in c for y, j in c2]
        return _sum(terms)

    def _vv_outer(self, b: _Row, c: _Row, b2: _Row, c2: _Row) -> Array:
        m, cells = self.moments, self.cells
        assert m.vv_outer is not None
        terms = [cells.push_matrices(x * y, m.vv_outer[i][j]) for x, i in b for y, j in b2]
        terms += [cells.outer(x * y, m.uv[j][i]) for x, i in b for y, j in c2]
        terms += [cells.outer(x * y, m.uv[i][j]).swapaxes(-1, -2) for x, i in c for y, j in b2]
        terms += [cells.squared(x * y, m.uu[i][j]) for x, i in c for y, j in c2]
        return _sum(terms)

    def _rescaled(self, m: _Moments) -> _Moments:
        """Divide by the size of what is held, and remember its logarithm, before it over- or underflows."""
        second = max(np.abs(x).max() for row in (*m.uu, *m.vv) for x in row)
        shift2 = _shift(second)
        if shift2:
            factor = np.exp(-shift2)
            m.uu, m.uv, m.vv = ([[x * factor for x in row] for row in rows] for rows in (m.uu, m.uv, m.vv))
            if m.vv_outer is not None:
                m.vv_outer = [[x * factor for x in row] for row in m.vv_outer]
            m.log_scale_second += shift2
        if self.shared:
            m.u, m.v, m.log_scale = m.uu[0], m.uv[0], m.log_scale_second
            return m
        shift = _shift(max(np.abs(x).max() for x in (*m.u, *m.v)))
        if shift:
            m.u, m.v = [x * np.exp(-shift) for x in m.u], [x * np.exp(-shift) for x in m.v]
            m.log_scale += shift
        return m

    def _finish(self, length: int, mass: Array, m: _Moments | None) -> None:
        """Read the estimators of the episodes that end now in each state, and put them into their bins."""
        if self.only is not None and length != self.only:
            return
        p = self.problem.process
        terminal = p.discount**length * p.terminal_reward
        states = np.flatnonzero(mass)
        if not states.size:
            return
        P, n = self.problem.target.parameter_count, len(self.problem.signals)
        readout = self.slots.readout(terminal)[states]
        if m is None:
            parts = [mass[states], np.zeros((states.size, n, P)), np.zeros((states.size, n, n))]
            parts += [np.zeros((states.size, n, P, P))] if self.problem.outer else []
        else:
            v = np.stack([x[0, states] for x in m.v], axis=1)
            products = np.full((states.size, n, n), np.nan)
            if not self.problem.mean_only:
                products = self._products(m, states, readout)
            parts = [mass[states], _scaled(readout @ v, m.log_scale), products]
            if m.vv_outer is not None:
                matrices = np.stack([np.stack([x[0, states] for x in row], axis=1) for row in m.vv_outer], axis=1)
                products = np.einsum("son,snmpq,som->sopq", readout, matrices, readout)
                parts.append(_scaled(products, m.log_scale_second))
        outcome = rounded_returns(p, terminal[states]) if self.problem.by_outcome else np.zeros(states.size)
        for value in np.unique(outcome):
            chosen = outcome == value
            sums = [x[chosen].sum(axis=0) for x in parts]
            old = self.found.get((length, float(value)))
            self.found[length, float(value)] = sums if old is None else [x + y for x, y in zip(old, sums, strict=True)]

    def _products(self, m: _Moments, states: NDArray[np.int64], readout: Array) -> Array:
        """E[<X_o, X_q>] of the episodes that end in each of these states."""
        vv = np.stack([np.stack([x[0, states] for x in row], axis=1) for row in m.vv], axis=1)
        return _scaled(np.einsum("son,snm,sqm->soq", readout, vv, readout), m.log_scale_second)

    def _keep(self, alive: NDArray[np.bool_]) -> None:
        """Remove the episodes that ended."""
        if alive.all():
            return
        m, scalar, vector = self.moments, alive[None, :], alive[None, :, None]
        self.mass = self.mass * alive
        m.uu, m.vv = ([[x * scalar for x in row] for row in rows] for rows in (m.uu, m.vv))
        m.uv = [[x * vector for x in row] for row in m.uv]
        if m.vv_outer is not None:
            m.vv_outer = [[x * vector[..., None] for x in row] for row in m.vv_outer]
        m.u, m.v = (m.uu[0], m.uv[0]) if self.shared else ([x * scalar for x in m.u], [x * vector for x in m.v])

    def _collect(self) -> Bins:
        keys = sorted(self.found)
        P, n = self.problem.target.parameter_count, len(self.problem.signals)
        shapes = [(), (n, P), (n, n), (n, P, P)]
        columns = [
            np.stack([self.found[k][i] for k in keys]) if keys else np.zeros((0, *shapes[i]))
            for i in range(3 + self.problem.outer)
        ]
        outcome = [k[1] if self.problem.by_outcome else np.nan for k in keys]
        return Bins(
            np.array([k[0] for k in keys], dtype=np.int64), np.array(outcome), columns[0], columns[1], columns[2],
            columns[3] if self.problem.outer else None,
        )  # fmt: skip


_Row = list[tuple[Coefficient, int]]


def _row(entries: Entries, row: int) -> _Row:
    return [(coefficient, column) for i, column, coefficient in entries if i == row]


def _sum(terms: object) -> Array:
    """Sum of arrays; 0 where there are none."""
    total = None
    for term in terms:  # type: ignore[attr-defined]
        total = term if total is None else total + term
    return total if total is not None else 0.0  # type: ignore[return-value]


def _shift(size: float) -> float:
    """Log of the size where it has left the comfortable range of float64, otherwise 0."""
    return float(np.log(size)) if size > 1e100 or 0.0 < size < 1e-100 else 0.0


def _scaled(x: Array, log_scale: float) -> Array:
    """x exp(log_scale); infinite where it is beyond float64, and zero where x is."""
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(np.sign(x) * np.exp(np.log(np.abs(x)) + log_scale)) if log_scale else x
