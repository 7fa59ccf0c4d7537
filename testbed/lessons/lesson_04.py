"""Lesson 4, where the bias comes from: terms, positions, and the order of substitution."""

from __future__ import annotations

from itertools import permutations

import numpy as np

import testbed
import theory
from testbed import drift
from testbed.lessons.checking import Exercise, array, count, number, word

_NAMES = ("occupancy", "action", "continuation", "truncation", "baseline_leak", "reduction")


def _case() -> tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]:
    made = testbed.environment("token_tree", depth=3)
    pair = drift.at("noise", made.process, made.target, kl=0.3)
    return made.process, pair.target, pair.behaviour


def _terms(weight: str | theory.Weight) -> theory.Decomposition:
    signal = theory.signal("outcome", baseline="expected_return")
    return theory.decompose(*_case(), theory.Estimator(weight, signal))


def _largest() -> str:
    terms = _terms(theory.weight("minpro", clip=(0.8, 1.28))).terms
    return max(terms, key=lambda name: float(np.linalg.norm(terms[name])))


def _without_continuation() -> float:
    found, case = _terms("token"), _case()
    gradient = theory.policy_gradient(case[0], case[1])
    return float(np.linalg.norm(found.bias - found["continuation"]) / np.linalg.norm(gradient))


def _continuation_by_position() -> object:
    return np.linalg.norm(_terms("prefix").by_position["continuation"], axis=1)


def _orders() -> int:
    coin = theory.MarkovProcess(np.ones(1), np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), horizon=1)
    policies = theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy([[0.0, 1.0]])
    possible = 0
    for order in permutations(_NAMES):
        try:
            theory.decompose(coin, *policies, theory.Estimator("token", "outcome"), order=order)
        except ValueError:
            continue
        possible += 1
    return possible


_WHERE = "token_tree(depth=3), noise drift at KL 0.3, signal outcome with baseline expected_return"

EXERCISES = (
    Exercise(
        "4.1",
        f"The name of the largest term of minpro(clip=(0.8, 1.28)). Setting: {_WHERE}.",
        _largest,
        word("compare the lengths of the six vectors of theory.decompose(...).terms"),
    ),
    Exercise(
        "4.2",
        f"The relative bias of the token ratio if its continuation alone were repaired. Setting: {_WHERE}.",
        _without_continuation,
        number("take the vector, not its length, away from the bias; then divide by |g|"),
    ),
    Exercise(
        "4.3",
        f"The length of the continuation term at each position for the prefix ratio, an array (T,). Setting: {_WHERE}.",
        _continuation_by_position,
        array("by_position['continuation'] has a row per position; |row|, not divided by |g|"),
    ),
    Exercise(
        "4.4",
        "The number of orders that theory.decompose takes.",
        _orders,
        count("truncation follows the first three, the leak the continuation, the reduction the leak"),
    ),
)
