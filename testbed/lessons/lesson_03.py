"""Lesson 3, baseline invariance: which weights keep baselines out, and what the others let in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import testbed
import theory
from testbed import drift
from testbed.lessons.checking import Exercise, array, number


def _tree() -> tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]:
    made = testbed.environment("token_tree", depth=4)
    pair = drift.at("noise", made.process, made.target, kl=0.1)
    return made.process, pair.target, pair.behaviour


def _one_token() -> NDArray[np.float64]:
    successor = np.zeros((2, 2, 2))
    successor[:, :, 1] = 1.0
    process = theory.MarkovProcess(np.array([1.0, 0.0]), successor, np.zeros((2, 2)), horizon=1)
    target, behaviour = (theory.SoftmaxPolicy(np.log([row, [0.5, 0.5]])) for row in ([0.8, 0.2], [0.5, 0.5]))
    return theory.baseline_leak(process, target, behaviour, theory.weight("truncated", cap=1.2)).leak[:2]


def _smallest_cap() -> float:
    """The largest ratio of a token that mu can draw."""
    process, target, behaviour = _tree()
    acting = theory.values(process, behaviour).occupancy[:-1].any(axis=0)
    return float((target.probabilities / behaviour.probabilities)[acting].max())


def _growth() -> float:
    """A reward raised by 5 is a baseline of -5; the bias is linear in it."""
    weight = theory.weight("truncated", cap=2.0)
    before = theory.moments(*_tree(), theory.Estimator(weight, "outcome"))
    after = theory.moments(*_tree(), theory.Estimator(weight, theory.signal("outcome", baseline=-5.0)))
    return after.relative_bias / before.relative_bias


EXERCISES = (
    Exercise(
        "3.1",
        "One token, pi = (0.8, 0.2), mu = (0.5, 0.5): the leak of the baseline 1 under truncated(cap=1.2), in the two "
        "logits of the state.",
        _one_token,
        array("sum over a of mu(a) min(rho(a), cap) z(a), with z = (1 - p, -(1 - p)) for the first action"),
    ),
    Exercise(
        "3.2",
        "On the tree: the smallest cap for which truncated(cap=...) at token level leaks nothing.",
        _smallest_cap,
        number("a cap leaks as soon as it cuts the ratio of a token that mu can draw"),
    ),
    Exercise(
        "3.3",
        'On the tree, with the weight "none": |leak| of the baseline 1.',
        lambda: theory.baseline_leak(*_tree(), "none").size,
        number("in each state the expected score is mu - pi"),
    ),
    Exercise(
        "3.4",
        "On the tree: the relative bias of truncated(cap=2.0) x outcome with all rewards raised by 5, over that with "
        "the rewards as they are.",
        _growth,
        number("the truth stays; the mean moves by 5 times the leak of the baseline 1"),
    ),
)
