"""A name with options: how a sweep names an environment, a drift, a weight or a signal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A registered name and the options that differ from its defaults.

    >>> testbed.Choice("minpro", {"clip": [0.8, 1.28]}).label
    'minpro(clip=(0.8, 1.28))'
    """

    name: str
    """As it is registered."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Plain data: numbers, strings, booleans, lists of them."""

    def __post_init__(self) -> None:
        """Freeze the options: lists become tuples."""
        object.__setattr__(self, "options", MappingProxyType({k: _frozen(v) for k, v in self.options.items()}))

    @property
    def label(self) -> str:
        """Name and options, such as `garnet(seed=3)`."""
        return self.name + (f"({self.options_text})" if self.options else "")

    @property
    def options_text(self) -> str:
        """The options alone, such as `seed=3, states=5`; empty where there are none."""
        return ", ".join(f"{k}={v}" for k, v in self.options.items())

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"name": self.name, "options": dict(self.options)}

    def with_options(self, **options: Any) -> Choice:
        """The same name with further options."""
        return Choice(self.name, {**self.options, **options})

    def without(self, option: str) -> Choice:
        """The same name without this option."""
        return Choice(self.name, {k: v for k, v in self.options.items() if k != option})

    def __hash__(self) -> int:
        """By content, so that what a choice builds can be cached."""
        return hash(canonical(self.plain))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by content: a mapping proxy cannot be pickled."""
        return Choice, (self.name, dict(self.options))


def choice(key: str, value: Any) -> Choice:
    """A choice from what a user writes: a name, `{name = ..., option = ...}`, or a choice.

    Raises:
        ValueError: anything else; the sentence starts with `key`, where the value stood.
    """
    if isinstance(value, Choice):
        return value
    if isinstance(value, str):
        return Choice(value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return Choice(value["name"], {k: v for k, v in value.items() if k != "name"})
    raise ValueError(f'{key} is {value!r}; expected a name, or {{name = "...", option = ...}}')


def canonical(data: Any) -> str:
    """One text for equal data: JSON with sorted keys, NaN and infinities by name.

    >>> canonical({"b": float("inf"), "a": (1, 2)})
    '{"a":[1,2],"b":Infinity}'
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value
