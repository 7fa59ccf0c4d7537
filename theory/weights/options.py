"""Checks of the options that several weights share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def check_bounds(name: str, bounds: Any, *, optional: bool = False) -> None:
    """Raise unless `bounds` is (low, high) with 0 <= low <= high: bounds of the ratio itself, never offsets."""
    if bounds is None and optional:
        return
    pair = isinstance(bounds, tuple) and len(bounds) == 2 and all(map(_is_number, bounds))
    if not pair or not 0.0 <= bounds[0] <= bounds[1]:
        raise ValueError(f"{name} is {bounds!r}; expected (low, high), bounds of the ratio with 0 <= low <= high")


def check_trust_region(name: str, bounds: Any) -> None:
    """Raise unless `bounds` is (low, high) with 0 <= low <= 1 <= high: the ratio 1 of equal policies lies inside."""
    check_bounds(name, bounds)
    if not bounds[0] <= 1.0 <= bounds[1]:
        raise ValueError(f"{name} is {bounds!r}; expected bounds of the ratio itself around 1, such as (0.8, 1.2)")


def check_cap(name: str, cap: Any) -> None:
    """Raise unless `cap` is a positive number; infinity means no cap."""
    if not _is_number(cap) or not cap > 0.0:
        raise ValueError(f"{name} is {cap!r}; expected a positive number, an upper bound of the ratio")


def check_dual(name: str, dual: Any) -> None:
    """Raise unless `dual` is None or a number above 1: the ratio above which a negative advantage has no gradient."""
    if dual is not None and (not _is_number(dual) or not dual > 1.0):
        raise ValueError(f"{name} is {dual!r}; expected None or a number above 1, a bound of the ratio")


def check_budget(name: str, budget: Any) -> None:
    """Raise unless `budget` is a finite number of at least zero."""
    if not _is_number(budget) or not 0.0 <= budget < math.inf:
        raise ValueError(f"{name} is {budget!r}; expected a finite number >= 0, a mean squared log-ratio")


def check_level(level: Any) -> None:
    """Raise unless `level` says whose ratio is meant: the token's, or the product over its prefix or the sequence."""
    if level not in ("token", "prefix", "sequence"):
        raise ValueError(f"level is {level!r}; expected 'token', 'prefix' or 'sequence'")


def check_flag(name: str, flag: Any) -> None:
    """Raise unless `flag` is True or False."""
    if not isinstance(flag, bool):
        raise ValueError(f"{name} is {flag!r}; expected True or False")


def check_number(name: str, value: Any, of_what: str) -> None:
    """Raise unless `value` is a finite number."""
    if not _is_number(value) or math.isinf(value):
        raise ValueError(f"{name} is {value!r}; expected a finite number, {of_what}")


def check_positive(name: str, value: Any, of_what: str) -> None:
    """Raise unless `value` is a finite number above 0."""
    if not _is_number(value) or not 0.0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; expected a finite number above 0, {of_what}")


def check_fraction(name: str, value: Any, of_what: str = "", *, zero: bool = True) -> None:
    """Raise unless `value` is a number from 0 to 1, with `zero` including 0."""
    if not _is_number(value) or not 0.0 <= value <= 1.0 or (value == 0.0 and not zero):
        what = f", {of_what}" if of_what else ""
        raise ValueError(f"{name} is {value!r}; expected a number {'from 0' if zero else 'above 0 and up'} to 1{what}")


def check_limit(name: str, value: Any, of_what: str, *, optional: bool = False) -> None:
    """Raise unless `value` is a number of at least zero, infinity allowed; or None where that is `optional`."""
    if not ((_is_number(value) and value >= 0.0) or (optional and value is None)):
        none = "None or " if optional else ""
        raise ValueError(f"{name} is {value!r}; expected {none}a number >= 0, {of_what}")


def check_pair(name: str, value: Any, of_what: str) -> None:
    """Raise unless `value` is (low, high) with low <= high, of any sign, infinities allowed."""
    pair = isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value))
    if not pair or not value[0] <= value[1]:
        raise ValueError(f"{name} is {value!r}; expected (low, high), {of_what}, with low <= high")


def check_word(name: str, value: Any, words: Iterable[str]) -> None:
    """Raise unless `value` is one of the words."""
    known = tuple(words)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")


def bounds_nothing(bounds: tuple[float, float] | None) -> bool:
    """Whether every ratio lies inside the bounds."""
    return bounds is None or (bounds[0] == 0.0 and math.isinf(bounds[1]))
