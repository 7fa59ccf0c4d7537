"""The registry of environments: an environment is one builder function and one card."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from testbed.environments.tables import trajectory_count
from theory import MarkovProcess, SoftmaxPolicy, checks

NAMESPACE = "offpolicy"


@dataclass(frozen=True)
class EnvironmentCard:
    """What is known of an environment."""

    name: str
    summary: str
    """One line."""
    knob: str
    """The option that makes it harder or easier; the others fix size, horizon or seed."""
    source: str
    """Paper or book that the environment comes from."""
    reference: str
    """The closed form or published value that the tests assert."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Every option and its default; filled in by the registry from the builder's signature."""

    @property
    def gymnasium_id(self) -> str:
        """Under which `gymnasium.make` knows it, such as offpolicy/ModularSum-v0."""
        return f"{NAMESPACE}/{''.join(word.capitalize() for word in self.name.split('_'))}-v0"


class Parts(NamedTuple):
    """What a builder returns."""

    process: MarkovProcess
    target: SoftmaxPolicy
    behaviour: SoftmaxPolicy | None = None
    acting: NDArray[np.int64] | None = None


class _Entry(NamedTuple):
    card: EnvironmentCard
    build: Callable[..., Parts]


BUILDERS: dict[str, _Entry] = {}


def register(card: EnvironmentCard) -> Callable[[Callable[..., Parts]], Callable[..., Parts]]:
    """Decorator: enter a builder here and with Gymnasium. Its keyword-only arguments are the environment's options."""

    def enter(build: Callable[..., Parts]) -> Callable[..., Parts]:
        parameters = inspect.signature(build).parameters.values()
        options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if card.name in BUILDERS:
            raise ValueError(f"environment {card.name!r} is registered already")
        if card.knob not in options:
            raise ValueError(f"the knob of environment {card.name!r} is {card.knob!r}; expected one of {list(options)}")
        filled = replace(card, options=MappingProxyType(options))
        BUILDERS[card.name] = _Entry(filled, build)
        # nondeterministic stays False: with the same seed an episode repeats exactly.
        gymnasium.register(
            filled.gymnasium_id, "testbed.environments.process_env:named_process_env", kwargs={"name": card.name}
        )
        return build

    return enter


@dataclass(frozen=True, eq=False)
class Environment:
    """A process with its default policies. Made by `testbed.environment(name, **options)`."""

    name: str
    options: Mapping[str, Any]
    """Every option, defaults included."""
    process: MarkovProcess
    target: SoftmaxPolicy
    """A half-trained policy under which every action is possible."""
    behaviour: SoftmaxPolicy | None = None
    """Only where the environment prescribes who generated the data."""
    acting: NDArray[np.int64] | None = None
    """(S,) which agent moves in each state, counted from 0; only where there are several."""

    @property
    def card(self) -> EnvironmentCard:
        """The card of the environment."""
        return BUILDERS[self.name].card

    @property
    def label(self) -> str:
        """Name and the options that differ from their defaults, such as `parity(horizon=6)`."""
        changed = {k: v for k, v in self.options.items() if v != self.card.options[k]}
        return self.name + (f"({', '.join(f'{k}={v}' for k, v in changed.items())})" if changed else "")

    @cached_property
    def trajectories(self) -> int:
        """The number of (action, next state) sequences that the enumeration engine would walk."""
        return trajectory_count(self.process)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name and options."""
        return _restore, (self.name, dict(self.options))

    def __repr__(self) -> str:
        """As it is made."""
        return f"testbed.environment({', '.join([repr(self.name)] + [f'{k}={v!r}' for k, v in self.options.items()])})"


def environment(name: str, **options: Any) -> Environment:
    """An environment by its registered name, with options.

    >>> testbed.environment("parity", horizon=6).label
    'parity(horizon=6)'

    Raises:
        ValueError: an unknown name or option, or an option's value without meaning.
    """
    card, build = BUILDERS[checks.known_name("environment", name, BUILDERS)]
    for option in options:
        checks.known_name("option", option, card.options, of=f"environment {name!r}")
    merged = {**card.options, **options}
    return Environment(name, MappingProxyType(merged), *build(**merged))


def environment_cards() -> dict[str, EnvironmentCard]:
    """The registry: name -> card.

    >>> testbed.environment_cards()["parity"].knob
    'horizon'
    """
    return {name: entry.card for name, entry in sorted(BUILDERS.items())}


def _restore(name: str, options: Mapping[str, Any]) -> Environment:
    return environment(name, **options)
