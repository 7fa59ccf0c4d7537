"""Whether an answer to an exercise is right, and what to look at again where it is not."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

import testbed.lessons
from theory import checks

Comparison = Callable[[Any, Callable[[], Any]], str]
"""(answer, solution) -> what to look at again; empty where the answer is right."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson. A module `testbed.lessons.lesson_N` lists its own as `EXERCISES`."""

    name: str
    """Lesson and number, such as "3.1"."""
    asks: str
    """What is asked for, in one sentence."""
    solution: Callable[[], Any]
    """-> an answer that is right; where only one is, what others are compared with."""
    compare: Comparison
    """(answer, solution) -> what to look at again; empty where the answer is right."""

    def objection(self, answer: Any) -> str:
        """What to look at again; empty where the answer is right."""
        return self.compare(answer, self.solution)


def check(name: str, answer: Any) -> None:
    """Say whether an answer is right. Ellipsis and None are exercises that nobody has tried yet.

    Args:
        name: of the exercise, such as "3.1".
        answer: what the exercise asks for.

    Raises:
        ValueError: there is no such exercise.
    """
    exercise = _exercise(name)
    if answer is None or answer is ...:
        print(f"{name}: not answered yet. {exercise.asks}")
        return
    try:
        said = exercise.objection(answer)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, ArithmeticError) as why:
        said = f"it could not be checked: {why}"
    print(f"{name}: not yet, {said}" if said else f"{name}: right.")


def solution(name: str) -> Any:
    """An answer that `check` calls right, computed when asked for: a number, an array, a name or a function.

    It is what the checker compares with. Where many answers are right, as with losses and weights, it is one of them,
    and `inspect.getsource` shows it. How a number is found stands in the module `testbed.lessons.lesson_N`.

    >>> from testbed.lessons import solution
    >>> solution("2.4"), solution("5.4")
    (7, 'token')

    Args:
        name: of the exercise, such as "3.1".

    Raises:
        ValueError: there is no such exercise.
    """
    return _exercise(name).solution()


def exercise_names() -> list[str]:
    """Every exercise, in the order of the lessons.

    >>> from testbed.lessons import exercise_names
    >>> exercise_names()[:3], exercise_names()[-1]
    (['1.1', '1.2', '1.3'], '10.3')
    """
    return list(_exercises())


def number(hint: str, tolerance: float = 1e-6, decimals: int | None = None) -> Comparison:
    """The objection to a number that is not the solution, relative to its size, or not to so many decimals."""

    def compare(answer: Any, solution: Callable[[], Any]) -> str:
        value, right = _one(answer), float(solution())
        allowed = tolerance * max(abs(right), tolerance) if decimals is None else 0.5 * 10.0**-decimals
        if abs(value - right) <= allowed:
            return ""
        wanted = "six digits" if decimals is None else f"{decimals} decimals"
        return f"it is right as far as it goes; expected {wanted}" if _is_rounded(value, right) else hint

    return compare


def count(hint: str) -> Comparison:
    """The objection to another whole number than the solution: a neighbour is as wrong as any other."""

    def compare(answer: Any, solution: Callable[[], Any]) -> str:
        value = _one(answer)
        if not value.is_integer():
            return f"it is {value:g}; expected a whole number"
        return "" if value == solution() else hint

    return compare


def array(hint: str, tolerance: float = 1e-6) -> Comparison:
    """The objection to an array that is not the solution, or is of another shape but for leading axes of length 1."""

    def compare(answer: Any, solution: Callable[[], Any]) -> str:
        value, right = _numbers(answer), np.asarray(solution())
        while value.ndim > right.ndim and len(value) == 1:
            value = value[0]
        if value.shape != right.shape:
            return f"its shape is {value.shape}; expected {right.shape}"
        return (
            "" if np.allclose(value, right, rtol=tolerance, atol=tolerance * np.abs(right).max(initial=0.0)) else hint
        )

    return compare


def word(hint: str) -> Comparison:
    """The objection to a name that is not the solution."""

    def compare(answer: Any, solution: Callable[[], Any]) -> str:
        # A search for names gives a list, and what a name belongs to has it.
        if isinstance(answer, (list, tuple, set, frozenset)) and len(answer) == 1:
            (answer,) = answer
        plain = str(getattr(answer, "name", answer)).lower().replace("-", " ").strip("\"'` ")
        return "" if "_".join(plain.split()) == solution().lower() else hint

    return compare


def _one(answer: Any) -> float:
    return float(_numbers(answer).item())


def _numbers(answer: Any) -> NDArray[np.float64]:
    """Numbers, and text such as "4/5", alone or in lists."""
    if isinstance(answer, str):
        return np.asarray(float(Fraction("".join(answer.split()))))
    if isinstance(answer, (list, tuple)):
        return np.array([_numbers(one) for one in answer])
    return np.asarray(answer, dtype=np.float64)


def _is_rounded(value: float, right: float) -> bool:
    """Whether a number of two digits or more is the other one, rounded to as many."""
    if not np.isfinite(value):
        return False
    digits = len(Decimal(repr(value)).normalize().as_tuple().digits)
    return digits > 1 and float(f"{right:.{digits}g}") == value


def _exercise(name: str) -> Exercise:
    found = _exercises()
    return found[checks.known_name("exercise", name, found)]


def _exercises() -> dict[str, Exercise]:
    modules = [m.name for m in pkgutil.iter_modules(testbed.lessons.__path__) if m.name.startswith("lesson_")]
    in_order = sorted(modules, key=lambda name: int(name.split("_")[1]))
    lessons = [importlib.import_module(f"testbed.lessons.{name}").EXERCISES for name in in_order]
    return {exercise.name: exercise for lesson in lessons for exercise in lesson}
