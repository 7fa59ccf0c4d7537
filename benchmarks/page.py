"""How long the page of `testbed explore` takes to answer, at every environment's default size and with every signal."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.report import Row
from benchmarks.timing import Seconds, clock
from testbed import environment_cards
from testbed.exploring import numbers
from testbed.exploring.case import case_of
from testbed.exploring.controls import SIGNALS
from testbed.exploring.state import State

ANSWER = 1.0
"""Seconds."""


def run(quick: bool) -> list[Row]:
    """The slowest answers: of the table and most charts, and of the causes that follow."""
    states = [State(environment=name, signal=signal) for name in environment_cards() for signal in SIGNALS]
    states = states[::20] if quick else states
    rows = []
    for what, answer in (("numbers", numbers.numbers_of), ("causes", numbers.causes_of)):
        state, seconds = max(((s, _first(answer, s)) for s in states), key=lambda pair: pair[1].best)
        rows.append(Row(
            f"explore: slowest {what} of {len(states)} pages", f"{state.environment}, {state.signal}", seconds.best,
            "s", ANSWER, seconds=seconds,
        ))  # fmt: skip
    return rows


def _first(answer: Callable[[State], object], state: State) -> Seconds:
    """The first answer to a state whose environment is known."""
    place = numbers.place_of(state)
    for cached in (numbers.weight_numbers, numbers.weight_causes):
        cached.cache_clear()
    try:
        case_of(place)
    except ValueError:  # the page says so
        return clock(lambda: None, 1)
    if answer is numbers.causes_of:
        numbers.numbers_of(state)  # which the page has asked for before
    return clock(lambda: answer(state), 1)
