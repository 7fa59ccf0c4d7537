"""Plain twins of the engines: dictionaries, loops and small vectors, as one would first write them.

MinPRO with the target's advantage, own score and sum: c_t = m_t rho_t. The tests hold them to the engines' numbers.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from typing import NamedTuple

import numpy as np

import theory
from benchmarks.problems import Problem


class Result(NamedTuple):
    """E[g_hat] and the trace of its covariance."""

    mean: np.ndarray
    variance: float


def recursion(given: Problem) -> Result:
    """Forward over cells (state, minimum so far), one dictionary entry each: E[1], E[X], E|X|^2."""
    process, mu = given.process, given.behaviour.probabilities
    rho, z = _ratios(given), given.target.score
    advantage = theory.values(process, given.target).advantage
    zero = np.zeros(given.target.parameter_count)
    cells = {(s, math.inf): (p, zero, 0.0) for s, p in enumerate(process.initial.tolist()) if p > 0.0}
    mean, second = zero, 0.0
    successors = _successors(process)
    for t in range(process.horizon):
        following: dict[tuple[int, float], tuple[float, np.ndarray, float]] = defaultdict(lambda: (0.0, zero, 0.0))
        for (s, least), (mass, x, xx) in cells.items():
            if process.absorbing[s]:
                mean, second = mean + x, second + xx
                continue
            for a in range(process.actions):
                o = rho[s][a] * (1.0 if math.isinf(least) else least) * advantage[t, s, a]
                moved = x + o * mass * z[s, a]
                squares = xx + 2.0 * o * (x @ z[s, a]) + o * o * mass * (z[s, a] @ z[s, a])
                for after, p in successors[s][a]:
                    b = mu[s, a] * p
                    key = (after, min(least, rho[s][a]))
                    old = following[key]
                    following[key] = (old[0] + b * mass, old[1] + b * moved, old[2] + b * squares)
        cells = following
    for _, x, xx in cells.values():
        mean, second = mean + x, second + xx
    return Result(mean, second - float(mean @ mean))


def enumeration(given: Problem) -> Result:
    """Visit every trajectory, and add up its estimate."""
    process, mu = given.process, given.behaviour.probabilities.tolist()
    rho, pi = _ratios(given), given.target.probabilities.tolist()
    advantage = theory.values(process, given.target).advantage.tolist()
    S, A, T = process.states, process.actions, process.horizon
    successors = _successors(process)
    mean, second = [0.0] * (S * A), 0.0

    def finish(probability: float, states: tuple[int, ...], actions: tuple[int, ...]) -> None:
        nonlocal second
        g, least = [0.0] * (S * A), 1.0
        for t, (s, a) in enumerate(zip(states, actions, strict=False)):
            c = least * rho[s][a] * advantage[t][s][a]
            least = rho[s][a] if t == 0 else min(least, rho[s][a])
            g[s * A + a] += c
            for other in range(A):
                g[s * A + other] -= c * pi[s][other]
        for i, x in enumerate(g):
            mean[i] += probability * x
        second += probability * sum(x * x for x in g)

    def walk(probability: float, states: tuple[int, ...], actions: tuple[int, ...]) -> None:
        s = states[-1]
        if len(actions) == T or process.absorbing[s]:
            finish(probability, states, actions)
            return
        for a in range(A):
            for after, p in successors[s][a]:
                walk(probability * mu[s][a] * p, (*states, after), (*actions, a))

    for s, p in enumerate(process.initial.tolist()):
        if p > 0.0:
            walk(p, (s,), ())
    total = np.array(mean)
    return Result(total, second - float(total @ total))


def sampling(given: Problem, trajectories: int, seed: int = 0) -> list[list[tuple[int, int]]]:
    """Trajectories under mu, as lists of (state, action), drawn one token after the other."""
    process, mu = given.process, given.behaviour.probabilities.tolist()
    successors, draw = _successors(process), random.Random(seed)
    states, actions = range(process.states), range(process.actions)
    start, result = process.initial.tolist(), []
    for _ in range(trajectories):
        s = draw.choices(states, start)[0]
        path: list[tuple[int, int]] = []
        while len(path) < process.horizon and not process.absorbing[s]:
            a = draw.choices(actions, mu[s])[0]
            path.append((s, a))
            after, chance = zip(*successors[s][a], strict=True)
            s = draw.choices(after, chance)[0]
        result.append(path)
    return result


def _ratios(given: Problem) -> list[list[float]]:
    log_ratio = given.target.log_probabilities - given.behaviour.log_probabilities
    return np.exp(log_ratio).tolist()


def _successors(process: theory.MarkovProcess) -> list[list[list[tuple[int, float]]]]:
    result: list[list[list[tuple[int, float]]]] = [[[] for _ in range(process.actions)] for _ in range(process.states)]
    for s, a, after, p in zip(*(column.tolist() for column in process.edges[:4]), strict=True):
        result[s][a].append((after, p))
    return result
