"""Checks of options that are numbers or one of a few words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any


def _number(value: Any) -> float:
    """As a float, NaN for what is no number."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def check_positive(name: str, value: Any, what: str) -> None:
    """Raise unless `value` is a finite number above zero; `what` says what it is."""
    if not 0.0 < _number(value) < math.inf:
        raise ValueError(f"{name} is {value!r}; expected a finite number above 0, {what}")


def check_limit(name: str, value: Any, what: str, *, optional: bool = False) -> None:
    """Raise unless `value` is a number of at least zero, infinity allowed; or None where that is `optional`."""
    if not (_number(value) >= 0.0 or (optional and value is None)):
        none = "None or " if optional else ""
        raise ValueError(f"{name} is {value!r}; expected {none}a number >= 0, {what}")


def check_fraction(name: str, value: Any, what: str) -> None:
    """Raise unless `value` is a number from 0 to 1."""
    if not 0.0 <= _number(value) <= 1.0:
        raise ValueError(f"{name} is {value!r}; expected a number from 0 to 1, {what}")


def check_pair(name: str, value: Any, what: str) -> None:
    """Raise unless `value` is (low, high) with low <= high, of any sign, infinities allowed."""
    if not (isinstance(value, tuple) and len(value) == 2 and _number(value[0]) <= _number(value[1])):
        raise ValueError(f"{name} is {value!r}; expected (low, high), {what}, with low <= high")


def check_word(name: str, value: Any, words: Iterable[str]) -> None:
    """Raise unless `value` is one of the words."""
    known = tuple(words)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")
