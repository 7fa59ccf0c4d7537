"""The registry's weights with the settings that a loss may have: common ones, and those read off the loss itself."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator
from types import CodeType
from typing import Any

import numpy as np

import theory
from testbed.auditing.loss import Loss

BOUNDS = (
    (0.8, 1.2), (0.8, 1.28), (0.7, 1.3), (0.9, 1.1), (0.5, 1.5), (0.5, 2.0), (0.5, 5.0), (0.0, 1.2), (0.0, 1.28),
    (0.0, 2.0), (0.0, 3.0), (0.0, 5.0), (0.0, 10.0), (1.0 - 3e-4, 1.0 + 4e-4), (0.0, math.inf),
)  # fmt: skip
NUMBERS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 10.0)
# What one family may be tried with; where all combinations are more, at most two options leave their defaults.
_MOST_PER_FAMILY = 600
_MOST_HARVESTED = 5


def candidates(loss: Loss) -> Iterator[theory.Weight]:
    """Every weight that the loss's tensors suffice for, each with its defaults first."""
    can = {"log_probability"} | ({"old_log_ratio"} if len(loss.anchors) == 2 else set())
    numbers, bounds = harvested(loss)
    for name in theory.weight_cards():
        seen: list[theory.Weight] = []
        for options in _settings(dict(theory.weight(name).options), numbers, bounds):
            try:
                made = theory.weight(name, **options)
                needs = set(made.needs)
            except (ValueError, TypeError):
                continue  # a value of another option's kind
            if needs <= can and made not in seen:
                seen.append(made)
                yield made


def harvested(loss: Loss) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Numbers that the loss is set with or has in its code, and the bounds of a ratio they may stand for.

    A pair (a, b) may be bounds, or offsets below and above one; a number alone may be either offset, or a bound.
    """
    found: list[float] = []
    pairs: list[tuple[float, float]] = []
    own = [*loss.options.values(), *_constants(getattr(loss.function, "__code__", None)), *_outside(loss.function)]
    for value in own:
        numbers = [float(x) for x in (value if isinstance(value, (tuple, list)) else [value]) if _is_setting(x)]
        found += [x for x in numbers if x not in found]
        if len(numbers) == 2:
            pairs.append((numbers[0], numbers[1]))
    found = found[:_MOST_HARVESTED]
    pairs += [(a, b) for a in found for b in found]
    bounds: dict[tuple[float, float], None] = {}
    for a, b in pairs:
        for low, high in ((a, b), (1.0 - a, 1.0 + b)):
            if 0.0 <= low <= 1.0 <= high:
                bounds[low, high] = None
    for a in found:
        for low, high in ((0.0, a), (0.0, 1.0 + a), (a, math.inf), (1.0 - a, math.inf)):
            if 0.0 <= low < high:
                bounds[low, high] = None
    return tuple(found), tuple(bounds)


def _is_setting(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def _constants(code: CodeType | None) -> Iterator[Any]:
    """Floating-point constants in a function's code; whole numbers are mostly axes."""
    if code is None:
        return
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant)
        elif isinstance(constant, float) and constant != 1.0:
            yield constant


def _outside(function: Any) -> Iterator[Any]:
    """Floating-point numbers that a function reads from around it, or that a callable object has."""
    if inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        values = [*names.nonlocals.values(), *names.globals.values()]
    else:
        values = list(getattr(function, "__dict__", {}).values())
    yield from (x for x in values if isinstance(x, float))


def _parts(numbers: tuple[float, ...], bounds: tuple[tuple[float, float], ...]) -> list[theory.Weight]:
    """Weights that another weight may be made of: the defaults of all that ratios suffice for, and usual clips."""
    made = [theory.weight(name) for name in theory.weight_cards()]
    simple = [w for w in made if not w.needs and not w.family.couples_batch and not _names_weights(w)]
    few = (*bounds, *BOUNDS[:2])
    simple += [theory.weight("ppo_clip", clip=pair) for pair in few if pair[0] > 0.0 and np.isfinite(pair[1])]
    simple += [theory.weight("truncated", cap=cap, level=level) for cap in (*numbers, 2.0, 5.0)
               for level in ("token", "sequence")]  # fmt: skip
    simple += [theory.weight("masked", interval=pair) for pair in (*bounds, (0.5, 2.0))
               if pair[0] > 0.0 or np.isfinite(pair[1])]  # fmt: skip
    return list(dict.fromkeys(simple))


def _words() -> tuple[str, ...]:
    """What options of any weight say in words."""
    values = [value for name in theory.weight_cards() for value in theory.weight(name).options.values()]
    return tuple(dict.fromkeys([v for v in values if isinstance(v, str)] + ["token", "sequence"]))


def _names_weights(weight: theory.Weight) -> bool:
    known = theory.weight_cards()
    return any(isinstance(value, theory.Weight) or value in known for value in map(_hashable, weight.options.values()))


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _settings(
    defaults: dict[str, Any], numbers: tuple[float, ...], bounds: tuple[tuple[float, float], ...]
) -> Iterator[dict[str, Any]]:
    values = {name: _values(default, numbers, bounds) for name, default in defaults.items()}
    if math.prod(map(len, values.values())) <= _MOST_PER_FAMILY:
        for chosen in itertools.product(*values.values()):
            yield dict(zip(values, chosen, strict=True))
        return
    yield defaults
    for name in values:
        for value in values[name][1:]:
            yield {**defaults, name: value}
    for one, other in itertools.combinations(values, 2):
        for pair in itertools.product(values[one][1:], values[other][1:]):
            yield {**defaults, one: pair[0], other: pair[1]}


def _values(default: Any, numbers: tuple[float, ...], bounds: tuple[tuple[float, float], ...]) -> list[Any]:
    """The default, then what else an option of its kind may be."""
    if isinstance(default, bool):
        others: tuple[Any, ...] = (not default,)
    elif isinstance(default, str):
        others = tuple(_parts(numbers, bounds)) if default in theory.weight_cards() else _words()
    elif isinstance(default, int):
        others = tuple(int(x) for x in (1, 2, 3, 4, *numbers) if float(x).is_integer())
    elif isinstance(default, float):
        others = (*numbers, *NUMBERS)
    elif isinstance(default, tuple):
        others = (*bounds, *BOUNDS)
    else:
        others = (None, *bounds, *BOUNDS, *numbers, *NUMBERS)
    return list(dict.fromkeys([default, *others]))
