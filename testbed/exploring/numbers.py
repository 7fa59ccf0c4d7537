"""The exact numbers of the page, from a state to plain records; what cannot be had exactly at once is said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

import theory
from testbed import spelling
from testbed.exploring.case import MOST_TRAJECTORIES, Place, case_of, exact_moments, tokens_at
from testbed.exploring.state import State, weight_of
from testbed.sweep.token_weights import Tokens
from theory.engines.problem import Problem
from theory.engines.trajectories import coefficients, token_signals
from theory.signals import ResolvedSignal, resolve

Array = NDArray[np.float64]
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class WeightNumbers:
    """What is known of one weight; `reason` says what is not, and then its numbers are NaN."""

    label: str
    engine: str = ""
    relative_bias: float = math.nan
    cosine: float = math.nan
    effective_step: float = math.nan
    relative_std: float = math.nan
    """Of one trajectory, sqrt(variance of one draw x trajectories per draw) / |g|."""
    least_batch: int = 1
    """Trajectories of one draw."""
    positions: tuple[tuple[float, ...], ...] = ()
    """Per position t = 1..T: quantiles of the weight under mu, then its mean."""
    share_zero: float = math.nan
    reason: str = ""
    beside: str = ""
    """Why there is no distribution."""

    def relative_mse(self, batch: float) -> float:
        """E|average of n estimates - g|^2 / |g|^2; NaN below one draw."""
        if not batch >= self.least_batch:
            return math.nan
        return self.relative_bias**2 + self.relative_std**2 / batch


@dataclass(frozen=True, eq=False)
class Numbers:
    """Everything that is shown at once."""

    weights: tuple[WeightNumbers, ...]
    kl: float = math.nan
    """Reached, in nats per token."""
    lost_mass: float = 0.0
    expected_return: float = math.nan
    horizon: int = 0
    trajectories: int = 0
    reason: str = ""
    """Why there is nothing."""

    def least_error(self, batch: float) -> WeightNumbers | None:
        """The weight with the least error at a batch size."""
        known = [(w.relative_mse(batch), i) for i, w in enumerate(self.weights) if math.isfinite(w.relative_mse(batch))]
        return self.weights[min(known)[1]] if known else None

    def winners(self, most: float = 2.0**40) -> list[tuple[float, str]]:
        """From which batch size on which weight has the least error, exactly, beginning with one draw.

        The errors b_i^2 + v_i / n are lines in 1/n, so that their lower envelope changes at most once per weight.
        """
        batch = float(min((w.least_batch for w in self.weights if not w.reason), default=1))
        found: list[tuple[float, str]] = []
        best = self.least_error(batch)
        while best is not None and batch <= most:
            found.append((batch, best.label))
            later = [(c, w) for w in self.weights if (c := crossover(best, w)) > batch * (1 + 1e-12)]
            if not later:
                break
            # Of weights that cross at the same place, the one that is lower from there on.
            batch = min(c for c, _ in later)
            best = min((w for c, w in later if c <= batch * (1 + 1e-12)), key=lambda w: (w.relative_bias, w.label))
        return found


def crossover(first: WeightNumbers, second: WeightNumbers) -> float:
    """From which batch size `second` has less error than `first`: (v_2 - v_1) / (b_1^2 - b_2^2); inf if from none."""
    gain = first.relative_bias**2 - second.relative_bias**2
    cost = second.relative_std**2 - first.relative_std**2
    if not (gain > 0.0 and math.isfinite(cost)):
        return math.inf
    return max(cost / gain, float(second.least_batch), float(first.least_batch))


@dataclass(frozen=True, eq=False)
class Causes:
    """Where the bias of one weight comes from; `reason` says why that is not known."""

    label: str
    relative_bias: float = math.nan
    terms: tuple[tuple[str, float], ...] = ()
    """Cause -> length of its vector over |g|."""
    reason: str = ""


def place_of(state: State) -> Place:
    """The part of a state that decides the environment and its two policies."""
    return Place(state.environment, state.options, state.drift, state.drift_options, state.kl)


def numbers_of(state: State) -> Numbers:
    """The numbers of a state; a case that does not exist is one sentence."""
    place = place_of(state)
    try:
        case = case_of(place)
    except ValueError as why:
        return Numbers((), reason=str(why))
    process, target, _ = case.three
    return Numbers(
        tuple(weight_numbers(place, label, state.signal) for label in _labels(state)),
        case.pair.kl, case.pair.lost_mass, theory.values(process, target).expected_return, process.horizon,
        case.trajectories,
    )  # fmt: skip


def causes_of(state: State) -> tuple[Causes, ...]:
    """Where the bias comes from, weight by weight: several times the work of `numbers_of`, so that it comes after."""
    place = place_of(state)
    found = [weight_numbers(place, label, state.signal) for label in _labels(state)] if _exists(place) else []
    return tuple(weight_causes(place, w.label, state.signal) for w in found if not w.reason)


@lru_cache(maxsize=4096)
def weight_numbers(place: Place, label: str, signal: str) -> WeightNumbers:
    """The numbers of one weight in one case."""
    case = case_of(place)
    try:
        estimator = theory.Estimator(spelling.weight(label), spelling.signal(signal))
        moments = exact_moments(case, estimator)
    except (ValueError, TypeError) as why:
        return WeightNumbers(label, reason=str(why))
    length = float(np.linalg.norm(moments.gradient))
    if length < 1e-12:
        return WeightNumbers(label, moments.engine, reason="the true gradient is zero: nothing is relative to it")
    beside, zero = "", math.nan
    positions: tuple[tuple[float, ...], ...] = ()
    try:
        positions, zero = _distribution(tokens_at(place), estimator)
    except ValueError as why:
        beside = str(why)
    return WeightNumbers(
        label, moments.engine, moments.relative_bias, moments.cosine, moments.effective_step,
        math.sqrt(moments.variance * moments.trajectories_per_draw) / length, moments.trajectories_per_draw,
        positions, zero, beside=beside,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def weight_causes(place: Place, label: str, signal: str) -> Causes:
    """The causes of the bias of a weight whose numbers are known."""
    numbers = weight_numbers(place, label, signal)
    estimator = theory.Estimator(spelling.weight(label), spelling.signal(signal))
    three = case_of(place).three
    try:
        parts = theory.decompose(*three, estimator, numbers.engine, missing_support="allow")
    except ValueError as why:
        return Causes(label, numbers.relative_bias, reason=str(why))
    length = float(np.linalg.norm(theory.policy_gradient(*three[:2])))
    terms = tuple((name, float(np.linalg.norm(vector)) / length) for name, vector in parts.terms.items())
    return Causes(label, numbers.relative_bias, terms)


def _labels(state: State) -> list[str]:
    return list(dict.fromkeys(weight_of(text, state.clip).label for text in state.weights))


def _exists(place: Place) -> bool:
    try:
        case_of(place)
    except ValueError:
        return False
    return True


def _distribution(tokens: Tokens | None, estimator: theory.Estimator) -> tuple[tuple[tuple[float, ...], ...], float]:
    """Quantiles and mean of the weight under mu at each position, among episodes that get there; the share of zeros.

    Raises:
        ValueError: too many trajectories, or a weight that looks at advantages that belong to no single trajectory.
    """
    weight, signal = estimator.weight, estimator.signal
    if tokens is None:
        raise ValueError(f"the weight's distribution is shown for at most {MOST_TRAJECTORIES:,} trajectories")
    if weight.uses_advantage and isinstance(signal, theory.GroupSignal):
        raise ValueError("the weight looks at the sign of a group's advantage, which no single trajectory has")
    advantage = None
    signals: tuple[ResolvedSignal, ...] = ()
    if weight.uses_advantage:
        signals = (resolve(signal, tokens.process, tokens.target, tokens.behaviour),)
    problem = Problem(tokens.process, tokens.target, tokens.behaviour, tokens.ratios, weight, signals)
    if signals:
        advantage = token_signals(tokens.walk, tokens.block, problem)[0]
    c = coefficients(tokens.walk, tokens.block, problem, advantage)
    acting, chance = tokens.block.acting, tokens.block.probability
    rows = [_row(c[acting[:, t], t], chance[acting[:, t]]) for t in range(c.shape[1]) if acting[:, t].any()]
    zero = float(tokens.share[c[acting] == 0.0].sum())
    return tuple(rows), zero


def _row(c: Array, chance: Array) -> tuple[float, ...]:
    order = np.argsort(c, kind="stable")
    mass = np.cumsum(chance[order]) / chance.sum()
    places = [min(int(np.searchsorted(mass, level - 1e-12)), c.size - 1) for level in QUANTILES]
    return (*(float(c[order[place]]) for place in places), float(c @ chance / chance.sum()))
