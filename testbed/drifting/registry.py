"""The registry of kinds of drift: a kind is one function and one card."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import theory

Pair = tuple[theory.SoftmaxPolicy, theory.SoftmaxPolicy]
Strengths = Callable[[theory.MarkovProcess, theory.SoftmaxPolicy], Sequence[float]]
Setting = Callable[[Any, theory.SoftmaxPolicy], float]


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of drift."""

    name: str
    card: str
    """What it does, what its strength means, and its options, in one line."""
    function: Callable[..., Pair]
    """(process, policy, strength, **options) -> (target, behaviour)."""
    options: Mapping[str, Any]
    """Option -> default."""
    unit: Callable[[theory.MarkovProcess, theory.SoftmaxPolicy], float]
    """The strength at which drift is neither small nor large; zero where the kind cannot drift at all."""
    limit: float
    """The largest strength tried, in units."""
    steps: Strengths | None = None
    """Every strength at which something changes, ascending, where the divergence is a step function of the strength."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Other words for the strength, such as p of top_p: name -> (value, policy) -> strength."""


KINDS: dict[str, Kind] = {}


def kind(
    card: str,
    *,
    limit: float = 1.0,
    unit: Callable[[theory.MarkovProcess, theory.SoftmaxPolicy], float] = lambda process, policy: 1.0,
    steps: Strengths | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Callable[[Callable[..., Pair]], Callable[..., Pair]]:
    """Decorator: enter a kind under its function's name; its keyword-only arguments are its options.

    A function of the strength that is continuous says how far to look, by `limit` and `unit`; a step function of it
    lists its `steps`.
    """

    def enter(function: Callable[..., Pair]) -> Callable[..., Pair]:
        name = function.__name__.strip("_")
        parameters = inspect.signature(function).parameters.values()
        options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        KINDS[name] = Kind(name, card, function, options, unit, limit, steps, settings or {})
        return function

    return enter
