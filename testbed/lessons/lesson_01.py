"""Lesson 1, policy gradients from exact values, in the river of four states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

import testbed
import theory
from testbed.lessons.checking import Exercise, array, number


def _river() -> theory.MarkovProcess:
    return testbed.environment("chain").process


def _swimmer(right: float) -> theory.SoftmaxPolicy:
    """Swims right with the same probability in every state."""
    return theory.SoftmaxPolicy(np.tile(np.log([1.0 - right, right]), (_river().states, 1)))


def _gradient(right: float) -> NDArray[np.float64]:
    return theory.policy_gradient(_river(), _swimmer(right))


def _excess() -> float:
    old, new = theory.values(_river(), _swimmer(0.5)), _swimmer(0.9)
    surrogate = np.einsum("ts,sa,tsa->", old.occupancy[:-1], new.probabilities, old.advantage)
    return float(surrogate) - theory.performance_difference(_river(), new, _swimmer(0.5))


def _turning_point() -> float:
    return float(brentq(lambda right: _gradient(right)[1], 0.01, 0.5))


EXERCISES = (
    Exercise(
        "1.1",
        "Expected return of the policy that swims right with probability 0.9 in every state.",
        lambda: theory.values(_river(), _swimmer(0.9)).expected_return,
        number("J is V_0 of the start state; the logits of a policy are the logs of its probabilities"),
    ),
    Exercise(
        "1.2",
        "The gradient of J, shape (8,), at the policy that swims right with probability 1/2 in every state.",
        lambda: _gradient(0.5),
        array("one number per state and action, row by row; finite differences can tell you"),
    ),
    Exercise(
        "1.3",
        "L(pi) - (J(pi) - J(mu)) where mu swims right with probability 1/2 everywhere and pi with 0.9.",
        _excess,
        number("the surrogate has the occupancy and the advantage of mu, and the actions of pi"),
    ),
    Exercise(
        "1.4",
        "The smallest p, to three decimals, from which the gradient pushes towards right in state 0.",
        _turning_point,
        number("look for the p where component 1 of the gradient changes sign", decimals=3),
    ),
)
