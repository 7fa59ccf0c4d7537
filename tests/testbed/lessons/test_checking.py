"""Answers in another admissible form are right; one that is near is not; a rounded one is told so."""

import numpy as np
import pytest

import theory
from testbed.lessons import check
from testbed.lessons.checking import number, word

HINT = "look again"


@pytest.mark.parametrize("answer", [2 / 3, "0.6666667", np.float32(2 / 3), np.array([2 / 3]), np.array(2 / 3)])
def test_a_number_in_any_form(answer):
    assert number(lambda: 2 / 3, HINT)(answer) == ""


@pytest.mark.parametrize("answer", [2 / 3 + 1e-5, -2 / 3, np.nan, np.inf, 0.0, 1, 0.6, 0.68])
def test_another_number(answer):
    assert number(lambda: 2 / 3, HINT)(answer) == HINT


@pytest.mark.parametrize("answer", [0.67, 0.667, 0.66667])
def test_a_rounded_number_lacks_digits(answer):
    assert number(lambda: 2 / 3, HINT)(answer) == "it is right as far as it goes; expected six digits"


def test_neighbours_of_a_count_are_not_roundings_of_it():
    objection = number(lambda: 6841.0, HINT)
    assert objection(6841) == ""
    assert objection(6840.0) != ""
    assert objection(6842) == objection(7000) == HINT


def test_to_so_many_decimals_and_no_others():
    objection = number(lambda: 1.1439, HINT, decimals=2)
    assert objection(1.14) == objection(1.1439) == ""
    assert objection(1.13) == objection(1.15) == HINT
    assert "2 decimals" in objection(1.1)


@pytest.mark.parametrize(
    "answer", ["baseline_leak", "baseline leak", " Baseline-Leak ", "'baseline_leak'", ["baseline_leak"]]
)
def test_a_name_in_any_spelling(answer):
    assert word(lambda: "baseline_leak", HINT)(answer) == ""


@pytest.mark.parametrize("answer", ["leak", "baselineleak", "", [], ["baseline_leak", "action"], 3.0])
def test_another_name(answer):
    assert word(lambda: "baseline_leak", HINT)(answer) == HINT


def test_what_has_the_name():
    objection = word(lambda: "token", HINT)
    assert objection(theory.weight("token")) == ""
    assert objection(theory.weight("none")) == HINT


@pytest.mark.parametrize(("name", "right", "near"), [("1.4", 0.43, 0.431), ("10.3", 1.14, 1.15)])
def test_an_exercise_that_asks_for_digits(capsys, name, right, near):
    check(name, right)
    check(name, near)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{name}: right."
    assert lines[1].startswith(f"{name}: not yet, ")
