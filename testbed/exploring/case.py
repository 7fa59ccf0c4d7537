"""An environment with its two policies, and what of it can be computed exactly at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

import theory
from testbed import drift
from testbed.drift import Drifted
from testbed.environments import Environment, environment
from testbed.exploring.state import drift_options_of, options_of
from testbed.sweep.token_weights import Tokens, tokens_of
from theory.engines.problem import EngineRefusal

MOST_TRAJECTORIES = 20_000
"""Larger trees are left to scripts: the page answers at once."""
MOST_WORK = 6_000_000
"""The same for the recursion: steps x numbers that it holds, about half a second."""
STEP = 3_000
"""What a step costs beside its numbers, in numbers."""


class Place(NamedTuple):
    """What decides an environment and its two policies."""

    environment: str
    options: str
    drift: str
    drift_options: str
    kl: float


@dataclass(frozen=True, eq=False)
class Case:
    """An environment and its two policies."""

    environment: Environment
    pair: Drifted
    trajectories: int

    @property
    def three(self) -> tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]:
        """What every function of `theory` begins with."""
        return self.environment.process, self.pair.target, self.pair.behaviour


@lru_cache(maxsize=64)
def case_of(place: Place) -> Case:
    """The environment, and its policy drifted to the divergence, or as near as the kind of drift can.

    Raises:
        ValueError: an option without meaning, a drift that has no such divergence, or a process that is too large.
    """
    made = environment(place.environment, **options_of(place.environment, place.options))
    trajectories = made.trajectories
    work = work_of(made.process, made.target)
    if trajectories > MOST_TRAJECTORIES and work > MOST_WORK:
        raise ValueError(
            f"{made.label} is too large for an answer at once: {work:.2g} numbers to go through; expected at most "
            f"{MOST_WORK:.2g}, so a smaller size, or theory.moments in a script"
        )
    given = drift_options_of(place.drift, place.drift_options)
    pair = drift.at(place.drift, made.process, made.target, kl=place.kl, nearest=True, **given)
    return Case(made, pair, trajectories)


def work_of(process: theory.MarkovProcess, target: theory.SoftmaxPolicy, levels: int = 1) -> int:
    """Numbers that the recursion goes through, where the weight's statistic takes so many values."""
    return process.horizon * (STEP + levels * process.states * process.actions * target.parameters.size)


def exact_moments(case: Case, estimator: theory.Estimator) -> theory.Moments:
    """Enumeration where the tree is small, recursion else.

    Raises:
        ValueError: neither can, at the sizes of the page.
    """
    reasons = []
    for engine in ("enumeration", "recursion"):
        if engine == "enumeration" and case.trajectories > MOST_TRAJECTORIES:
            continue
        if engine == "recursion" and (work := work_of(*case.three[:2], _levels(case, estimator))) > MOST_WORK:
            reasons.append(
                f"{estimator.weight.label} would take the recursion {work:.2g} numbers here; expected at most "
                f"{MOST_WORK:.2g} for an answer at once"
            )
            continue
        try:
            return theory.moments(
                *case.three, estimator, engine, missing_support="allow", most_trajectories=MOST_TRAJECTORIES
            )
        except EngineRefusal as why:
            reasons.append(str(why))
    if case.trajectories > MOST_TRAJECTORIES and not estimator.weight.factorises:
        count = in_words(case.trajectories)
        raise ValueError(
            f"{estimator.weight.label} needs every trajectory, and there are {count}; expected at most "
            f"{MOST_TRAJECTORIES:,} for an answer at once"
        )
    raise ValueError(reasons[0])


@lru_cache(maxsize=16)
def tokens_at(place: Place) -> Tokens | None:
    """Every token of every trajectory; None where there are too many."""
    case = case_of(place)
    return None if case.trajectories > MOST_TRAJECTORIES else tokens_of(*case.three)


def _levels(case: Case, estimator: theory.Estimator) -> int:
    """How many values the weight's statistic can take: those of its key, and none yet."""
    weight, (_, target, behaviour) = estimator.weight, case.three
    if weight.needs or not weight.factorises:
        return 1
    with np.errstate(invalid="ignore"):
        log_ratio = target.log_probabilities - behaviour.log_probabilities
    factors = weight.factors(np.where(np.isfinite(log_ratio), log_ratio, 0.0), case.environment.process.horizon)
    return 1 if factors is None or factors.key is None else np.unique(factors.key).size + 1


def in_words(trajectories: int) -> str:
    """How many there are.

    >>> in_words(1_234_567), in_words(2**100)
    ('1,234,567', 'about 10^30')
    """
    return f"{trajectories:,}" if trajectories < 10**9 else f"about 10^{len(str(trajectories)) - 1}"
