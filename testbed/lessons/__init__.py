"""The exercises of the notebooks: each is checked against a number that is computed, not written down."""

from testbed.lessons.checking import Exercise, check, exercise_names, solution
from testbed.lessons.lesson_10 import RIVALS, Score, score, scratch

__all__ = ["RIVALS", "Exercise", "Score", "check", "exercise_names", "score", "scratch", "solution"]
