"""From names to objects: what a choice of a sweep stands for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

import numpy as np

import theory
from testbed import drift, environments
from testbed.sweep.choices import Choice
from theory import checks
from theory.estimator import SCORES

# A kind of drift beside those of `testbed.drift`: the behaviour policy that the environment itself brings.
GIVEN = "given"
GIVEN_CARD = "mu = the behaviour policy that the environment brings with it; in environments that bring one"


@lru_cache(maxsize=64)
def environment_of(choice: Choice) -> environments.Environment:
    """The environment of that name, built."""
    return environments.environment(choice.name, **choice.options)


def weight_of(choice: Choice) -> theory.Weight:
    """The weight of that name."""
    return theory.weight(choice.name, **choice.options)


def signal_of(choice: Choice) -> Any:
    """The signal of that name; `group` is the group-relative one."""
    if choice.name == "group":
        return theory.group(**_known_options("signal", choice, theory.group))
    checks.known_name("signal", choice.name, [*theory.signal_cards(), "group"])
    return theory.signal(choice.name, **_known_options("signal", choice, theory.signal, leave_out=("name",)))


def reduction_of(choice: Choice) -> Any:
    """The reduction of that name."""
    return theory.reduction(choice.name, **_known_options("reduction", choice, theory.reduction, leave_out=("name",)))


def check_score(choice: Choice) -> None:
    """Raise unless the score is known."""
    checks.known_name("score", choice.name, SCORES)
    _no_options("score", choice)


def drift_cards() -> dict[str, str]:
    """Every kind of drift that a sweep knows, and its card."""
    return {**drift.kinds(), GIVEN: GIVEN_CARD}


def check_drift(choice: Choice) -> None:
    """Raise unless the kind of drift, its options and their values are known."""
    checks.known_name("kind of drift", choice.name, drift_cards())
    if choice.name == GIVEN:
        _no_options("drift", choice)
    else:
        drift.apply(choice.name, *_COIN, 0.0, **choice.options)


@cache
def takes_seed(kind: str) -> bool:
    """Whether a kind of drift draws something."""
    try:
        check_drift(Choice(kind, {"seed": 0}))
    except ValueError:
        return False
    return True


_COIN = (
    theory.MarkovProcess(np.ones(1), np.ones((1, 2, 1)), np.zeros((1, 2)), horizon=1),
    theory.SoftmaxPolicy([[0.0, 1.0]]),
)


def _known_options(kind: str, choice: Choice, function: Any, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    known = [name for name in inspect.signature(function).parameters if name not in leave_out]
    for option in choice.options:
        checks.known_name("option", option, known, of=f"{kind} {choice.name!r}")
    return dict(choice.options)


def _no_options(kind: str, choice: Choice) -> None:
    if choice.options:
        raise ValueError(f"{kind} {choice.name!r} has no options; got {next(iter(choice.options))!r}")
