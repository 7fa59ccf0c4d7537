"""From names to objects: what a choice of a sweep stands for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np

import theory
from testbed import drift, environments
from testbed.drifting.registry import KINDS
from testbed.sweep.choices import Choice
from theory import checks
from theory.estimator import SCORES

# A kind of drift beside those of `testbed.drift`: the behaviour policy that the environment itself brings.
GIVEN = "given"
GIVEN_CARD = "in sweeps only: mu = the behaviour policy that the environment brings with it, where it brings one"


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
    options = choice.without("kl").options
    if choice.name == GIVEN:
        _no_options("drift", choice.without("kl"))
    elif (said := said_strength(choice)) is None:
        drift.apply(choice.name, *_COIN, 0.0, **options)
    elif "kl" in choice.options:
        raise ValueError(f"drift {choice.label} says how strong it is by {said}; expected no kl beside it")
    else:
        drift.apply(choice.name, *_COIN, **options)


def said_strength(choice: Choice) -> str | None:
    """The option by which a drift says how strong it is, such as p of top_p; None where a divergence does."""
    names = ("strength", *(KINDS[choice.name].settings if choice.name in KINDS else ()))
    return next((name for name in names if name in choice.options), None)


OLD = {
    "none": "there is no third policy: weights that tell three apart are refused",
    "halfway": "pi_old(a|s) in proportion to sqrt(pi(a|s) mu(a|s)), half of the way from mu to pi in the logits; for "
    "weights that look at a token's lag it is 1 update",
}
"""What a sweep can give to weights that look at the policy of the start of the update: name -> what it is."""
BESIDE = ("old_log_ratio", "lag")
"""What a weight may need (`theory.NEEDS`) that two policies do not say."""


def check_old(weight: theory.Weight, old: str) -> None:
    """Raise where a weight needs a third policy and the sweep has none."""
    missing = [need for need in weight.needs if need in BESIDE]
    if missing and old == "none":
        raise ValueError(
            f'weight {weight.label!r} needs {missing[0]}, which two policies do not say; expected old = "halfway"'
        )


def beside(old: str, target: theory.SoftmaxPolicy, behaviour: theory.SoftmaxPolicy) -> Mapping[str, Any]:
    """What `theory.moments` takes beside two policies: `old` and `lag`."""
    if old == "none":
        return {}
    middle = 0.5 * (target.log_probabilities + behaviour.log_probabilities)
    # Where the two have no action in common, there is no way between them.
    shared = np.isfinite(middle).any(axis=1, keepdims=True)
    return {"old": theory.SoftmaxPolicy(np.where(shared, middle, behaviour.log_probabilities)), "lag": 1.0}


def all_weights() -> list[Choice]:
    """Every weight of the registry at its default options."""
    return [Choice(name) for name in theory.weight_cards()]


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
