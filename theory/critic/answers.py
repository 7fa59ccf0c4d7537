"""Three ways to the moments of a method: the recursion, every trajectory, or samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.critic.steps import Setting, Step, conditional_moments, trajectory_values
from theory.engines.enumeration import count_trajectories, enumerate_blocks
from theory.engines.problem import EngineRefusal
from theory.engines.sampling import Sampled, sample_block

Array = NDArray[np.float64]

# Numbers in one table (trajectories, P) of a block.
_BLOCK_NUMBERS = 2_000_000


class Asked(NamedTuple):
    """A method in its setting, and the true gradient."""

    setting: Setting
    method: Callable[[Setting], Iterator[Step]]
    truth: Array

    def steps(self) -> Iterator[Step]:
        """The method's steps, from the last one."""
        return self.method(self.setting)


class Answer(NamedTuple):
    """Exact moments of one trajectory."""

    mean: Array
    variance: float
    covariance: Array | None


def by_recursion(asked: Asked, outer: bool) -> Answer:
    """The backward recursion, and the law of total variance over start states."""
    x = asked.setting
    start = x.process.initial
    given = conditional_moments(x.walk, asked.steps(), x.target.parameter_count, outer)
    mean = start @ given.gradient
    off = given.gradient - mean
    with np.errstate(invalid="ignore"):
        variance = float(start @ (given.variance + (off**2).sum(axis=1)))
    matrix = None
    if given.covariance is not None:
        matrix = np.einsum("s,spq->pq", start, given.covariance) + (start[:, None] * off).T @ off
    # Second moments beyond float64 arrive as inf, or as the NaN of a difference of such.
    return Answer(mean, variance if math.isfinite(variance) else math.inf, matrix)


def by_enumeration(asked: Asked, most: int, outer: bool) -> Answer:
    """Every trajectory of positive probability."""
    x, P = asked.setting, asked.setting.target.parameter_count
    needed = count_trajectories(x.process, x.behaviour)
    if needed > most:
        raise EngineRefusal(
            f"enumeration needs {needed:.3g} trajectories, the limit is {most}; engine='recursion' can take it"
        )
    total, second, matrix = np.zeros(P), 0.0, np.zeros((P, P)) if outer else None
    rows = max(64, _BLOCK_NUMBERS // max(P, x.process.horizon))
    for walk, block in enumerate_blocks(x.process, x.behaviour, rows):
        # Measured from the truth, which most means are, so that a small variance keeps its digits.
        g = trajectory_values(walk, block, asked.steps(), P) - asked.truth
        total += block.probability @ g
        second += float(block.probability @ (g**2).sum(axis=1))
        if matrix is not None:
            matrix += (block.probability[:, None] * g).T @ g
    variance = max(second - float(total @ total), 0.0)
    return Answer(asked.truth + total, variance, None if matrix is None else matrix - np.outer(total, total))


def by_sampling(asked: Asked, draws: int, seed: int, outer: bool) -> Sampled:
    """Monte Carlo with standard errors."""
    x, P, rng = asked.setting, asked.setting.target.parameter_count, np.random.default_rng(seed)
    total, squares, norms = np.zeros(P), np.zeros(P), []
    matrix = np.zeros((P, P)) if outer else None
    rows = max(2, _BLOCK_NUMBERS // max(P, x.process.horizon))
    chance = x.process.initial / x.process.initial.sum()
    for first in range(0, draws, rows):
        start = rng.choice(x.process.states, size=min(rows, draws - first), p=chance)
        block = sample_block(x.walk, start, rng)
        g = trajectory_values(x.walk, block, asked.steps(), P) - asked.truth
        total += g.sum(axis=0)
        squares += (g**2).sum(axis=0)
        norms.append((g**2).sum(axis=1))
        if matrix is not None:
            matrix += g.T @ g
    off = total / draws
    spread = np.maximum(squares / draws - off**2, 0.0) * draws / (draws - 1)
    if matrix is not None:
        matrix = (matrix / draws - np.outer(off, off)) * draws / (draws - 1)
    # |g - truth|^2 spreads as |g - mean|^2 does where the bias is small beside the deviation.
    error = float(np.concatenate(norms).std(ddof=1) / np.sqrt(draws))
    return Sampled(asked.truth + off, np.sqrt(spread / draws), float(spread.sum()), error, matrix, draws)
