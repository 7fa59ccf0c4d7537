"""Three ways to the moments of a method: the recursion, every trajectory, or samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.critic.limits import refuse_large_covariance
from theory.critic.rounding import settled_variance
from theory.critic.steps import Setting, Step, conditional_moments, trajectory_values
from theory.engines.enumeration import count_trajectories, enumerate_blocks
from theory.engines.problem import EngineRefusal
from theory.engines.sampling import Sampled, moments_of_draws, sample_block

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
    """inf where it is beyond float64; NaN where rounding decides it."""
    covariance: Array | None
    """None where it was not asked for, or cannot be given."""


def settled(asked: Asked, moments: Callable[[Asked, bool], Answer], outer: bool) -> Answer:
    """The moments, with NaN for a variance that hangs on rounding of the critic's errors."""
    answer = moments(asked, outer)
    x = asked.setting
    other = asked._replace(setting=replace(x, keep_rounding=True))
    pairs = zip(asked.steps(), other.steps(), strict=True)
    if all((a.value == b.value).all() and (a.gradient == b.gradient).all() for a, b in pairs):
        return answer
    sizes = (x.critic.action_value, x.walk.reward, x.process.terminal_reward)
    scale = max(float(np.abs(size).max()) for size in sizes) ** 2 * float(x.target.squared_score.max())
    dropped, kept = np.array([answer.variance]), np.array([moments(other, False).variance])
    variance = float(settled_variance(dropped, kept, scale)[0])
    return Answer(answer.mean, variance, None if math.isnan(variance) else answer.covariance)


def by_recursion(asked: Asked, outer: bool) -> Answer:
    """The backward recursion, and the law of total variance over start states."""
    x, P = asked.setting, asked.setting.target.parameter_count
    if outer:
        refuse_large_covariance(x.process.states, P)
    given = conditional_moments(x.walk, asked.steps(), P, outer)
    on = np.flatnonzero(x.process.initial)
    start, gradient = x.process.initial[on], given.gradient[on]
    mean = start @ gradient
    _refuse_infinite(mean)
    off = gradient - mean
    with np.errstate(invalid="ignore", over="ignore"):
        variance = float(start @ (given.variance[on] + (off**2).sum(axis=1)))
        matrix = None
        if given.covariance is not None:
            matrix = np.einsum("s,spq->pq", start, given.covariance[on]) + (start[:, None] * off).T @ off
    return Answer(mean, finite_or_inf(variance), readable(matrix))


def by_enumeration(asked: Asked, outer: bool, most: int) -> Answer:
    """Every trajectory of positive probability."""
    x, P = asked.setting, asked.setting.target.parameter_count
    needed = count_trajectories(x.process, x.behaviour)
    if needed > most:
        raise EngineRefusal(
            f"enumeration needs {needed:.3g} trajectories, the limit is {most}; engine='recursion' can take it"
        )
    if outer:
        refuse_large_covariance(1, P)
    total, second, matrix = np.zeros(P), 0.0, np.zeros((P, P)) if outer else None
    rows = max(64, _BLOCK_NUMBERS // max(P, x.process.horizon))
    with np.errstate(over="ignore", invalid="ignore"):
        for walk, block in enumerate_blocks(x.process, x.behaviour, rows):
            # Measured from the truth, which most means are, so that a small variance keeps its digits.
            g = trajectory_values(walk, block, asked.steps(), P) - asked.truth
            total += block.probability @ g
            g *= np.sqrt(block.probability)[:, None]
            second += float((g**2).sum())
            if matrix is not None:
                matrix += g.T @ g
        variance = max(second - float(total @ total), 0.0)
        matrix = None if matrix is None else matrix - np.outer(total, total)
    mean = asked.truth + total
    _refuse_infinite(mean)
    return Answer(mean, finite_or_inf(variance), readable(matrix))


def by_sampling(asked: Asked, draws: int, seed: int, outer: bool) -> Sampled:
    """Monte Carlo with standard errors."""
    x, P, rng = asked.setting, asked.setting.target.parameter_count, np.random.default_rng(seed)
    if outer:
        refuse_large_covariance(1, P)
    rows = max(2, _BLOCK_NUMBERS // max(P, x.process.horizon))
    chance = x.process.initial / x.process.initial.sum()

    def blocks() -> Iterator[Array]:
        for first in range(0, draws, rows):
            start = rng.choice(x.process.states, size=min(rows, draws - first), p=chance)
            yield trajectory_values(x.walk, sample_block(x.walk, start, rng), asked.steps(), P)

    with np.errstate(over="ignore", invalid="ignore"):
        s = moments_of_draws(blocks(), draws, outer)
    _refuse_infinite(s.mean)
    return s._replace(
        standard_error=np.where(np.isfinite(s.standard_error), s.standard_error, np.inf),
        variance=finite_or_inf(s.variance),
        variance_standard_error=finite_or_inf(s.variance_standard_error),
        covariance=readable(s.covariance),
    )


def _refuse_infinite(mean: Array) -> None:
    if not np.isfinite(mean).all():
        raise EngineRefusal(
            "the mean is beyond float64; expected policies that are closer, or rewards and a critic that are smaller"
        )


def finite_or_inf(variance: float) -> float:
    """Second moments beyond float64 arrive as inf, or as the NaN of a difference of such."""
    return variance if math.isfinite(variance) else math.inf


def readable(matrix: Array | None) -> Array | None:
    """The covariance, or None where it has entries that float64 does not hold."""
    return None if matrix is None or not np.isfinite(matrix).all() else matrix
