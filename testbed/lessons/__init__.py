"""The exercises of the notebooks: each is checked against a number that is computed, not written down."""

from testbed.lessons.checking import Exercise, check, exercise_names

__all__ = ["Exercise", "check", "exercise_names"]
