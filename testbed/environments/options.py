"""Checks of option values: each raises one sentence that says what was passed and what was expected."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return `value` as an int if it is a whole number in [least, most]."""
    wanted = f">= {least}" if most is None else f"from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        raise ValueError(f"{name} is {value!r}; expected a whole number {wanted}")
    return number


# With a million states one array per step and action is a few hundred megabytes.
MOST_STATES = 1_000_000


def fitting(options: str, states: int, most: int = MOST_STATES) -> None:
    """Raise if the process would have more states than fit: before anything of that size is made."""
    if states > most:
        size = f"{states}" if states < 10**12 else f"over {10**12:.0e}"
        raise ValueError(f"{options} make a process of {size} states; expected at most {most}")


def number_between(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a float if it lies strictly between low and high."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low < float(value) < high:
        raise ValueError(f"{name} is {value!r}; expected a number strictly between {low:g} and {high:g}")
    return float(value)


def share(name: str, value: Any) -> float:
    """Return `value` as a float if it lies in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"{name} is {value!r}; expected a number from 0 to 1")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; expected True or False")
    return value
