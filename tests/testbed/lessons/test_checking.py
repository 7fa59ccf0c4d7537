"""Answers in another admissible form are right; one that is near is not; a rounded one is told so."""

from fractions import Fraction

import numpy as np
import pytest

import testbed.lessons
import theory
from testbed.lessons import Exercise, check, exercise_names, solution
from testbed.lessons.checking import array, count, number, word

HINT = "look again"


def asked(right, comparison):
    """answer -> the objection to it."""
    return Exercise("0.1", "A number.", lambda: right, comparison).objection


@pytest.mark.parametrize(
    "answer",
    [2 / 3, "0.6666667", np.float32(2 / 3), np.array([2 / 3]), np.array(2 / 3), "2/3", " 4 / 6 ", Fraction(2, 3)],
)
def test_a_number_in_any_form(answer):
    assert asked(2 / 3, number(HINT))(answer) == ""


@pytest.mark.parametrize("answer", [2 / 3 + 1e-5, -2 / 3, np.nan, np.inf, 0.0, 1, 0.6, 0.68, "3/2", "-2/3"])
def test_another_number(answer):
    assert asked(2 / 3, number(HINT))(answer) == HINT


@pytest.mark.parametrize("answer", [0.67, 0.667, 0.66667])
def test_a_rounded_number_lacks_digits(answer):
    assert asked(2 / 3, number(HINT))(answer) == "it is right as far as it goes; expected six digits"


@pytest.mark.parametrize("answer", ["two thirds", "1/0", [1.0, 2.0], object()])
def test_what_is_no_number_cannot_be_checked(answer, capsys):
    check("7.1", answer)
    assert capsys.readouterr().out.startswith("7.1: not yet, it could not be checked: ")


def test_a_count_is_exact():
    objection = asked(6841, count(HINT))
    for right in (6841, 6841.0, "6841", np.int64(6841), np.array([6841])):
        assert objection(right) == ""
    # A number of four digits would take 6840 for a rounding.
    assert asked(6841.0, number(HINT))(6840.0) != HINT
    for wrong in (6840, 6842, 6840.0, 7000, 0, -6841):
        assert objection(wrong) == HINT
    assert objection(6840.39) == "it is 6840.39; expected a whole number"
    assert "whole number" in objection(np.nan)


def test_counts_are_asked_for_as_such(capsys):
    """In every exercise whose answer is a whole number, its neighbours get the hint and no talk of digits."""
    names = [name for name in exercise_names() if isinstance(solution(name), int)]
    assert names == ["2.4", "4.4", "5.3", "6.4", "7.4", "8.3"]
    for name in names:
        for wrong in (solution(name) - 1, solution(name) + 1):
            check(name, wrong)
            said = capsys.readouterr().out
            assert said.startswith(f"{name}: not yet, ")
            assert "digits" not in said


def test_to_so_many_decimals_and_no_others():
    objection = asked(1.1439, number(HINT, decimals=2))
    assert objection(1.14) == objection(1.1439) == ""
    assert objection(1.13) == objection(1.15) == HINT
    assert "2 decimals" in objection(1.1)


def test_arrays_in_any_form():
    objection = asked(np.array([0.5, 0.25]), array(HINT))
    for right in ([0.5, 0.25], (0.5, 0.25), np.array([[0.5, 0.25]]), ["1/2", "1/4"], np.array([[[0.5, 0.25]]])):
        assert objection(right) == ""
    assert objection([0.25, 0.5]) == HINT
    for other in ([0.5, 0.25, 0.0], [[0.5], [0.25]], 0.5):
        assert "its shape is" in objection(other)


@pytest.mark.parametrize(
    "answer", ["baseline_leak", "baseline leak", " Baseline-Leak ", "'baseline_leak'", ["baseline_leak"]]
)
def test_a_name_in_any_spelling(answer):
    assert asked("baseline_leak", word(HINT))(answer) == ""


@pytest.mark.parametrize("answer", ["leak", "baselineleak", "", [], ["baseline_leak", "action"], 3.0])
def test_another_name(answer):
    assert asked("baseline_leak", word(HINT))(answer) == HINT


def test_what_has_the_name():
    objection = asked("token", word(HINT))
    assert objection(theory.weight("token")) == ""
    assert objection(theory.weight("none")) == HINT


@pytest.mark.parametrize(("name", "right", "near"), [("1.4", 0.43, 0.431), ("10.3", 1.14, 1.15)])
def test_an_exercise_that_asks_for_digits(capsys, name, right, near):
    check(name, right)
    check(name, near)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{name}: right."
    assert lines[1].startswith(f"{name}: not yet, ")


def test_exercises_are_in_the_order_of_the_lessons():
    numbers = [tuple(int(part) for part in name.split(".")) for name in exercise_names()]
    assert numbers == sorted(numbers)
    assert {lesson for lesson, _ in numbers} == set(range(1, 11))


@pytest.mark.parametrize("name", exercise_names())
def test_the_solution_is_right(capsys, name):
    check(name, solution(name))
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize("name", ["9.1", "9.2", "10.1", "10.2"])
def test_where_many_answers_are_right_the_solution_is_judged_as_any_other(capsys, name):
    """The control: the solution of the neighbouring exercise is not let through."""
    lesson, number_ = name.split(".")
    check(name, solution(f"{lesson}.{3 - int(number_)}"))
    assert capsys.readouterr().out.startswith(f"{name}: not yet, ")


@pytest.mark.parametrize("ask", [solution, lambda name: check(name, 1.0)])
def test_an_exercise_that_does_not_exist(ask):
    with pytest.raises(ValueError, match=r"unknown exercise '2\.9'"):
        ask("2.9")


def test_the_public_list_is_documented():
    for name in testbed.lessons.__all__:
        value = getattr(testbed.lessons, name)
        assert value.__doc__ or isinstance(value, tuple)
