"""Lesson 10, design your own weight: a function is registered while it is measured, and then taken out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

import testbed
import theory
from testbed import drift
from testbed.lessons.checking import Exercise, number
from theory.weights.registry import FAMILIES

SETTINGS: tuple[tuple[str, dict[str, int], float], ...] = (
    ("token_tree", {"depth": 4}, 0.1),
    ("parity", {"horizon": 8}, 0.1),
    ("modular_sum", {"horizon": 6}, 0.1),
)
"""Environment, its options, and KL(mu || pi) in nats per token of the noise drift."""
RIVALS = ("token", "minpro", "prefix")
TRAJECTORIES = 256
BAR = 0.95
"""Of exercise 10.1: no power of MinPRO's minimum scores below it."""
SIGNAL = "target_advantage"
_SCRATCH = "scratch"
_ZERO = 1e-9

Case = tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]


@dataclass(frozen=True)
class Score:
    """How a weight does beside token, minpro and prefix; all numbers are exact."""

    errors: dict[str, dict[str, float]]
    """Environment -> weight -> root mean squared error of 256 trajectories over |g|; the scored one is "yours"."""
    leak: float
    """The largest |leak| of any baseline between -1 and 1, over |g|, in any setting; below 1e-9 where none."""
    on_policy: float
    """The largest relative bias where mu = pi; below 1e-9 for a weight that is 1 there."""

    @property
    def total(self) -> float:
        """Geometric mean of the errors over the settings, over the least of the rivals' means.

        Below 1 it is better than each rival on that average, not in every setting.
        """

        def mean(name: str) -> float:
            return float(np.exp(np.mean([np.log(errors[name]) for errors in self.errors.values()])))

        return mean("yours") / min(mean(rival) for rival in RIVALS)


@contextmanager
def scratch(function: Callable[..., Any]) -> Iterator[theory.Weight]:
    """The function, tokens -> (N, T) coefficients, as a registered weight inside of a `with` block, and not after it.

    Raises:
        ValueError: it is no function.
    """
    if not callable(function):
        raise ValueError(f"the weight is {function!r}; expected a function tokens -> (N, T) coefficients")
    card = theory.Card(_SCRATCH, "A weight that is being tried.", "c_t", source="none", defaults="As in the function.")
    FAMILIES.pop(_SCRATCH, None)
    theory.register(card)(function)
    try:
        yield theory.weight(_SCRATCH)
    finally:
        FAMILIES.pop(_SCRATCH, None)


def score(function: Callable[..., Any]) -> Score:
    """Measure a weight in all settings by enumeration: errors beside its rivals', leak, and bias on data of pi.

    Raises:
        ValueError: it is no function, or gives coefficients that do not broadcast to (N, T), or NaN.
    """
    with scratch(function) as weight:
        _check_coefficients(weight)
        cases = {name: _case(i) for i, (name, _, _) in enumerate(SETTINGS)}
        errors = {
            name: {**{rival: _error(case, theory.weight(rival)) for rival in RIVALS}, "yours": _error(case, weight)}
            for name, case in cases.items()
        }
        leak = max(_leak(case, weight) for case in cases.values())
        on_policy = max(_moments((p, pi, pi), weight).relative_bias for p, pi, _ in cases.values())
    return Score(errors, leak, on_policy)


@cache
def _case(setting: int) -> Case:
    name, options, kl = SETTINGS[setting]
    made = testbed.environment(name, **options)
    pair = drift.at("noise", made.process, made.target, kl=kl)
    return made.process, pair.target, pair.behaviour


def _moments(case: Case, weight: theory.Weight) -> theory.Moments:
    return theory.moments(*case, theory.Estimator(weight, SIGNAL), engine="enumeration")


def _error(case: Case, weight: theory.Weight) -> float:
    m = _moments(case, weight)
    return float(np.sqrt(m.mean_squared_error(TRAJECTORIES)) / np.linalg.norm(m.gradient))


def _leak(case: Case, weight: theory.Weight) -> float:
    found = theory.baseline_leak(*case, weight, engine="enumeration")
    return float(found.worst().upper / np.linalg.norm(found.gradient))


def _check_coefficients(weight: theory.Weight) -> None:
    log_ratio = np.random.default_rng(0).normal(size=(3, 5))
    if np.isnan(weight.coefficients(log_ratio)).any():
        raise ValueError("its coefficients are NaN for log-ratios of ordinary size; expected numbers")


def _sound(found: Score) -> str:
    """The objection to a weight that leaks baselines, or is not exact on policy."""
    if found.on_policy > _ZERO:
        return (
            f"where mu = pi the expected gradient is off by {found.on_policy:.1%}: all coefficients should be 1 there"
        )
    if found.leak > _ZERO:
        return (
            f"a baseline leaks up to {found.leak:.2g} |g|: the own ratio has to stand whole beside earlier tokens alone"
        )
    return ""


def _better(answer: Any, solution: Callable[[], Any]) -> str:
    found = score(answer)
    if found.total >= BAR:
        return _sound(found) or f"its score is {found.total:.4f}; expected one below {BAR}"
    return _sound(found)


def _best_in_the_tree(answer: Any, solution: Callable[[], Any]) -> str:
    found = score(answer)
    tree = found.errors["token_tree"]
    best = min(tree[name] for name in RIVALS)
    if tree["yours"] >= best * (1.0 - _ZERO):
        return _sound(found) or f"its error in token_tree is {tree['yours']:.4f}; the best rival's is {best:.4f}"
    return _sound(found)


def _power_of_the_prefix(tokens: Any) -> Any:
    """P_t^0.15 rho_t: a little of the whole prefix in the place of the minimum."""
    return tokens.xp.exp(0.15 * tokens.log_prefix + tokens.log_ratio)


def _capped_prefix(tokens: Any) -> Any:
    """min(P_t, 2) rho_t: the cap is on earlier tokens alone, so that no baseline leaks."""
    return tokens.ratio * tokens.xp.exp(tokens.xp.clip(tokens.log_prefix, None, float(np.log(2.0))))


def _best_power() -> float:
    def error(power: float) -> float:
        with scratch(lambda tokens: tokens.xp.exp(power * tokens.log_ratio)) as weight:
            return _error(_case(1), weight)

    return float(minimize_scalar(error, bounds=(0.0, 1.5), method="bounded", options={"xatol": 1e-6}).x)


EXERCISES = (
    Exercise(
        "10.1",
        "A function tokens -> coefficients that is exact where mu = pi, leaks no baseline, and scores below "
        f"{BAR}: better than each of token, minpro and prefix in the geometric average over the settings, not in every "
        "setting.",
        lambda: _power_of_the_prefix,
        _better,
    ),
    Exercise(
        "10.2",
        "A function that is exact where mu = pi, leaks no baseline, and has less error in token_tree than each of "
        "token, minpro and prefix.",
        lambda: _capped_prefix,
        _best_in_the_tree,
    ),
    Exercise(
        "10.3",
        "The power p between 0 and 1.5 for which rho_t^p has the least error in parity(horizon=8), to two digits.",
        _best_power,
        number("minimise the error of 256 trajectories over p; its curve has one valley", decimals=2),
    ),
)
