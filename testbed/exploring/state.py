"""What the page shows, as plain data, and as the query of an address that anyone can open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

import theory
from testbed import drift, spelling
from testbed.drifting.registry import KINDS
from testbed.environments import environment, environment_cards
from theory import checks

LENGTHS = ("horizon", "depth", "digits", "rounds")
"""Options of environments that say how long an episode may be; each environment has one of them, or none."""
SEPARATOR = ";"
MOST_WEIGHTS = 8
"""On one page."""
MOST_OF_AN_OPTION = 500
"""Whole numbers in an environment's options, seeds apart: building more than that takes a while already."""
MOST_STATES = 50_000
MOST_STEPS = 50
"""Whole numbers in a drift's options, and the size of a group."""
BOUNDS = "clip"
"""In a weight such as `minpro(clip=clip)` the word stands for the page's clip."""


@dataclass(frozen=True)
class State:
    """Everything that decides the numbers of the page.

    Raises:
        ValueError: a value without meaning, in one sentence.
    """

    environment: str = "token_tree"
    options: str = ""
    """Of the environment, where they differ from its defaults, such as `depth=4, seed=1`."""
    drift: str = "noise"
    drift_options: str = ""
    """Of the kind of drift, where they differ from its defaults, such as `seed=1`."""
    kl: float = 0.1
    """KL(mu || pi) in nats per token."""
    weights: tuple[str, ...] = ("none", "token", "prefix", "minpro", "minpro(clip=clip)")
    """As spelled."""
    clip: tuple[float, float] = (0.8, 1.28)
    """What `clip` stands for in a weight."""
    signal: str = "target_advantage"
    batch: int = 256
    """Trajectories whose estimates are averaged."""

    def __post_init__(self) -> None:
        """Check every value against what there is."""
        checks.known_name("environment", self.environment, environment_cards())
        object.__setattr__(self, "options", written(options_of(self.environment, self.options)))
        checks.known_name("kind of drift", self.drift, drift.kinds())
        object.__setattr__(self, "drift_options", written(drift_options_of(self.drift, self.drift_options)))
        object.__setattr__(self, "kl", checks.non_negative("kl", self.kl, "nats per token"))
        low, high = self.clip
        if not 0.0 <= low <= high:
            raise ValueError(f"clip is {self.clip!r}; expected two bounds of the ratio, 0 <= low <= high")
        if len(self.weights) > MOST_WEIGHTS:
            raise ValueError(f"{len(self.weights)} weights are asked for; expected at most {MOST_WEIGHTS} on one page")
        for text in self.weights:
            weight_of(text, self.clip)
        signal = spelling.signal(self.signal)
        if isinstance(signal, theory.GroupSignal):
            _check_affordable({"size": signal.size}, MOST_STEPS)
        object.__setattr__(self, "batch", checks.whole_number("batch", self.batch, 1, "trajectories"))


def options_of(name: str, text: str) -> dict[str, Any]:
    """The options that a text gives to an environment; what equals its default is left out.

    >>> options_of("token_tree", "depth=4, seed=0")
    {'depth': 4}
    """
    return dict(_options_of(name, text))


def drift_options_of(kind: str, text: str) -> dict[str, Any]:
    """The options that a text gives to a kind of drift; what equals its default is left out.

    >>> drift_options_of("noise", "seed=3"), drift_options_of("staleness", "steps=8")
    ({'seed': 3}, {})
    """
    given = spelling.call(f"{kind}({text})", "noise(seed=1)")[1]
    known = KINDS[kind].options
    for option in given:
        checks.known_name("option", option, known, of=f"drift {kind!r}")
    _check_affordable(given, MOST_STEPS)
    return _changed(given, known)


def written(options: Mapping[str, Any]) -> str:
    """Options as a text that `options_of` reads."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def length_option(name: str) -> str | None:
    """Which option of an environment is the length of its episodes.

    >>> length_option("token_tree"), length_option("two_token_counterexample")
    ('depth', None)
    """
    return next((option for option in LENGTHS if option in environment_cards()[name].options), None)


def weight_of(text: str, clip: tuple[float, float]) -> theory.Weight:
    """A weight as spelled, its `clip=clip` filled in.

    >>> weight_of("minpro(clip=clip)", (0.5, 2.0)).label
    'minpro(clip=(0.5, 2.0))'
    """
    name, given = spelling.call(text, "minpro(clip=(0.8, 1.28))")
    return theory.weight(name, **{option: clip if value == BOUNDS else value for option, value in given.items()})


def to_query(state: State) -> str:
    """The query of the address: what differs from the defaults.

    >>> to_query(State(kl=0.3, clip=(0.5, 2.0)))
    '?kl=0.3&clip=0.5;2.0'
    """
    default = State()
    changed = {
        f.name: getattr(state, f.name) for f in fields(State) if getattr(state, f.name) != getattr(default, f.name)
    }
    texts = {name: _text(value) for name, value in changed.items()}
    return f"?{urlencode(texts, safe=';(),=')}" if texts else ""


def from_query(query: str) -> tuple[State, list[str]]:
    """The state of an address, and a sentence for each part without meaning, which stays as it is by default."""
    known = {f.name for f in fields(State)}
    state, wrong = State(), []
    given: dict[str, str] = {}
    for name, text in parse_qsl(query.removeprefix("?"), keep_blank_values=True):
        try:
            given[checks.known_name("part of the address", name, known)] = text
        except ValueError as why:
            wrong.append(str(why))
    # What has options comes before them; fields() has that order.
    for name in (f.name for f in fields(State) if f.name in given):
        try:
            state = replace(state, **{name: _READ[name](given[name])})
        except (ValueError, TypeError) as why:
            wrong.append(f"{name}: {why}")
    return state, wrong


@lru_cache(maxsize=256)  # it builds the environment, and is asked many times of the same one
def _options_of(name: str, text: str) -> tuple[tuple[str, Any], ...]:
    given = spelling.call(f"{name}({text})", "token_tree(depth=4)")[1]
    _check_affordable(given, MOST_OF_AN_OPTION)
    states = environment(name, **given).process.states
    if states > MOST_STATES:
        raise ValueError(
            f"{name}({text}) has {states:,} states; expected at most {MOST_STATES:,} for an answer at once"
        )
    return tuple(_changed(given, environment_cards()[name].options).items())


def _changed(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in given.items() if value != defaults[option]}


def _check_affordable(given: Mapping[str, Any], most: int) -> None:
    for option, value in given.items():
        if option != "seed" and isinstance(value, int) and value > most:
            raise ValueError(f"{option} is {value}; expected at most {most} for an answer at once")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return SEPARATOR.join(map(str, value))
    return str(value)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value


def _whole(text: str) -> int:
    value = _number(text)
    if value != int(value):
        raise ValueError(f"{text!r} is no whole number")
    return int(value)


def _pair(text: str) -> tuple[float, float]:
    parts = text.split(SEPARATOR)
    if len(parts) != 2:
        raise ValueError(f"{text!r} is no pair; expected two numbers such as 0.8;1.28")
    low, high = (float(part) if part.strip() in ("inf", "Infinity") else _number(part) for part in parts)
    return low, high


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(SEPARATOR) if part.strip()))


_READ: dict[str, Callable[[str], Any]] = {
    "environment": str, "options": str, "drift": str, "drift_options": str, "kl": _number, "weights": _list,
    "clip": _pair, "signal": str, "batch": _whole,
}  # fmt: skip
