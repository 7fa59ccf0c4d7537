"""Checks at the door: each raises one sentence that says what was passed and what was expected."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Probabilities are sums of a few dozen float64 numbers, often written out with 7 or more digits elsewhere.
TOLERANCE = 1e-8


# Below this similarity of spelling a name is no misspelt one: difflib's ratio of "gspo" and "minpro" is 0.4.
SIMILAR = 0.4


def known_name(kind: str, name: object, known: Iterable[str], *, of: str = "") -> str:
    """Return `name` if it is one of `known`; otherwise raise ValueError naming the nearest known one, if one is near.

    `of` says whose name it is: "unknown option 'clp' of weight 'minpro'".
    """
    names = sorted(known)
    if isinstance(name, str) and name in names:
        return name
    nearest = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=SIMILAR)
    hint = f"; the nearest known name is {nearest[0]!r}" if nearest else ""
    whose = f" of {of}" if of else ""
    raise ValueError(f"unknown {kind} {name!r}{whose}{hint} (known: {', '.join(names)})")


def numbers(name: str, value: Any) -> NDArray[np.float64]:
    """Return `value` as a float64 array of any shape."""
    try:
        if not np.iscomplexobj(value):
            return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as why:
        raise ValueError(f"{name} is {value!r}; expected an array of numbers") from why
    raise ValueError(f"{name} is complex; expected an array of real numbers")


def whole_number(name: str, value: Any, least: int, of_what: str) -> int:
    """Return `value` as an int; raise unless it is a whole number of at least `least`."""
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if whole and not isinstance(value, bool) and value >= least:
        return int(value)
    raise ValueError(f"{name} is {value!r}; expected a whole number of {of_what}, at least {least}")


def non_negative(name: str, value: Any, of_what: str = "") -> float:
    """Return `value` as a float; raise unless it is a finite number of at least zero."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if 0.0 <= number < math.inf:
        return number
    unit = f" of {of_what}" if of_what else ""
    raise ValueError(f"{name} is {value!r}; expected a finite number{unit} of at least 0")


def float_array(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a read-only float64 copy of `value` with exactly this shape and no NaN."""
    array = numbers(name, value).copy()
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} contains NaN at index {_first(np.isnan(array))}; expected numbers")
    array.flags.writeable = False
    return array


def finite(name: str, array: NDArray[np.float64]) -> None:
    """Raise if any entry is infinite or NaN."""
    wrong = ~np.isfinite(array)
    if wrong.any():
        raise ValueError(f"{name} is {array[wrong][0]} at index {_first(wrong)}; expected finite numbers")


def rows_are_distributions(name: str, rows: NDArray[np.float64]) -> None:
    """Raise unless all entries are non-negative and the last axis sums to one within 1e-8."""
    finite(name, rows)
    if (rows < 0).any():
        raise ValueError(
            f"{name} is {rows[rows < 0][0]:.6g} at index {_first(rows < 0)}; expected non-negative probabilities"
        )
    total = rows.sum(axis=-1)
    wrong = np.abs(total - 1.0) > TOLERANCE
    if np.any(wrong):
        where = f" at index {_first(np.asarray(wrong))}" if rows.ndim > 1 else ""
        raise ValueError(f"{name} sums to {total[wrong].flat[0]:.9g}{where}; expected 1")


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
