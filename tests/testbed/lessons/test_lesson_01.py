"""Answers of lesson 1, found by walking every trajectory of the river, are accepted; likely mistakes are not."""

import numpy as np
import pytest

import testbed
from testbed.lessons import check, lesson_01

RIVER = testbed.environment("chain").process
TRIES = [exercise.name for exercise in lesson_01.EXERCISES]


def expected_return(logits):
    """By pushing the probability of each state forward, a plain loop."""
    pi = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chance, total = {0: 1.0}, 0.0
    for _ in range(RIVER.horizon):
        after = dict.fromkeys(range(RIVER.states), 0.0)
        for s, p in chance.items():
            for a in range(2):
                total += p * pi[s, a] * RIVER.reward[s, a]
                for s2 in range(RIVER.states):
                    after[s2] += p * pi[s, a] * RIVER.transition[s, a, s2]
        chance = after
    return total


def logits(right):
    return np.tile(np.log([1.0 - right, right]), (4, 1))


def differences(theta, h=1e-5):
    result = np.empty(theta.size)
    for i in range(theta.size):
        step = np.zeros(theta.size)
        step[i] = h
        step = step.reshape(theta.shape)
        result[i] = (expected_return(theta + step) - expected_return(theta - step)) / (2 * h)
    return result


def surrogate_excess(states_of=0.5):
    """sum over t of d_t pi A^mu with the occupancy of the swimmer named, less the true gain."""
    pi = np.array([0.1, 0.9])
    old = np.array([0.5, 0.5])
    occupant = np.array([1.0 - states_of, states_of])
    value = np.zeros(4)
    advantages = []
    for _ in range(RIVER.horizon):
        q = RIVER.reward + RIVER.transition @ value
        value = q @ old
        advantages.insert(0, q - value[:, None])
    at, total = np.array([1.0, 0, 0, 0]), 0.0
    for advantage in advantages:
        total += at @ (advantage @ pi)
        at = sum(at @ RIVER.transition[:, a] * occupant[a] for a in range(2))
    return total - (expected_return(logits(0.9)) - expected_return(logits(0.5)))


def turning_point():
    """By bisection on finite differences."""
    low, high = 0.01, 0.5
    while high - low > 1e-4:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if differences(logits(middle))[1] > 0 else (middle, high)
    return round(high, 3)


RIGHT = {
    "1.1": lambda: expected_return(logits(0.9)),
    "1.2": lambda: differences(logits(0.5)),
    "1.3": surrogate_excess,
    "1.4": turning_point,
}
WRONG = {
    "1.1": lambda: expected_return(np.tile([0.1, 0.9], (4, 1))),  # probabilities taken for logits
    "1.2": lambda: -differences(logits(0.5)),  # a loss is descended
    "1.3": lambda: -surrogate_excess(),
    "1.4": lambda: turning_point() + 0.01,
}


@pytest.mark.parametrize("name", TRIES)
def test_the_answer_found_another_way_is_right(name, capsys):
    check(name, RIGHT[name]())
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize("name", TRIES)
def test_a_likely_mistake_is_not(name, capsys):
    check(name, WRONG[name]())
    assert capsys.readouterr().out.startswith(f"{name}: not yet, ")


@pytest.mark.parametrize("name", TRIES)
def test_nobody_has_answered(name, capsys):
    check(name, ...)
    assert capsys.readouterr().out.startswith(f"{name}: not answered yet. ")


def test_with_the_states_of_the_new_policy_the_surrogate_is_exact():
    assert abs(surrogate_excess(states_of=0.9)) < 1e-12
