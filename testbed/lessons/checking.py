"""Whether an answer to an exercise is right, and what to look at again where it is not."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

import testbed.lessons
from theory import checks


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson. A module `testbed.lessons.lesson_N` lists its own as `EXERCISES`."""

    name: str
    """Lesson and number, such as "3.1"."""
    asks: str
    """What is asked for, in one sentence."""
    objection: Callable[[Any], str]
    """answer -> what to look at again; empty where it is right."""


def check(name: str, answer: Any) -> None:
    """Say whether an answer is right. Ellipsis and None are exercises that nobody has tried yet.

    Args:
        name: of the exercise, such as "3.1".
        answer: what the exercise asks for.

    Raises:
        ValueError: there is no such exercise.
    """
    found = _exercises()
    exercise = found[checks.known_name("exercise", name, found)]
    if answer is None or answer is ...:
        print(f"{name}: not answered yet. {exercise.asks}")
        return
    try:
        said = exercise.objection(answer)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as why:
        said = f"it could not be checked: {why}"
    print(f"{name}: not yet, {said}" if said else f"{name}: right.")


def exercise_names() -> list[str]:
    """Every exercise, in the order of the lessons.

    >>> exercise_names()[:3]
    ['1.1', '1.2', '1.3']
    """
    return list(_exercises())


def number(
    solution: Callable[[], float], hint: str, tolerance: float = 1e-6, decimals: int | None = None
) -> Callable[[Any], str]:
    """The objection to a number that is not the solution, relative to its size, or not to so many decimals."""

    def objection(answer: Any) -> str:
        value, right = float(answer.item() if isinstance(answer, np.ndarray) else answer), float(solution())
        allowed = tolerance * max(abs(right), tolerance) if decimals is None else 0.5 * 10.0**-decimals
        if abs(value - right) <= allowed:
            return ""
        wanted = "six digits" if decimals is None else f"{decimals} decimals"
        return f"it is right as far as it goes; expected {wanted}" if _is_rounded(value, right) else hint

    return objection


def array(solution: Callable[[], Any], hint: str, tolerance: float = 1e-6) -> Callable[[Any], str]:
    """The objection to an array that is not the solution, or is of another shape."""

    def objection(answer: Any) -> str:
        value, right = np.asarray(answer, dtype=np.float64), np.asarray(solution())
        if value.shape != right.shape:
            return f"its shape is {value.shape}; expected {right.shape}"
        return (
            "" if np.allclose(value, right, rtol=tolerance, atol=tolerance * np.abs(right).max(initial=0.0)) else hint
        )

    return objection


def word(solution: Callable[[], str], hint: str) -> Callable[[Any], str]:
    """The objection to a name that is not the solution."""

    def objection(answer: Any) -> str:
        # A search for names gives a list, and what a name belongs to has it.
        if isinstance(answer, (list, tuple, set, frozenset)) and len(answer) == 1:
            (answer,) = answer
        plain = str(getattr(answer, "name", answer)).lower().replace("-", " ").strip("\"'` ")
        return "" if "_".join(plain.split()) == solution().lower() else hint

    return objection


def _is_rounded(value: float, right: float) -> bool:
    """Whether a number of two digits or more is the other one, rounded to as many."""
    if not np.isfinite(value):
        return False
    digits = len(Decimal(repr(value)).normalize().as_tuple().digits)
    return digits > 1 and float(f"{right:.{digits}g}") == value


def _exercises() -> dict[str, Exercise]:
    modules = sorted(m.name for m in pkgutil.iter_modules(testbed.lessons.__path__) if m.name.startswith("lesson_"))
    lessons = [importlib.import_module(f"testbed.lessons.{name}").EXERCISES for name in modules]
    return {exercise.name: exercise for lesson in lessons for exercise in lesson}
