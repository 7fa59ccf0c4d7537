"""Checks of the options that several weights share."""

from __future__ import annotations

from typing import Any


def check_bounds(name: str, bounds: Any) -> None:
    """Raise unless `bounds` is None or (low, high) with 0 <= low <= high: bounds of the ratio itself, never offsets."""
    if bounds is None:
        return
    if not isinstance(bounds, tuple) or len(bounds) != 2 or not 0.0 <= bounds[0] <= bounds[1]:
        raise ValueError(f"{name} is {bounds!r}; expected (low, high), bounds of the ratio with 0 <= low <= high")


def check_cap(name: str, cap: Any) -> None:
    """Raise unless `cap` is a positive number."""
    if isinstance(cap, bool) or not isinstance(cap, (int, float)) or not cap > 0.0:
        raise ValueError(f"{name} is {cap!r}; expected a positive number, an upper bound of the ratio")


def check_level(level: Any, known: tuple[str, ...]) -> None:
    """Raise unless `level` is one of the known levels of a ratio."""
    if level not in known:
        raise ValueError(f"level is {level!r}; expected one of {', '.join(map(repr, known))}")
