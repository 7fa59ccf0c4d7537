"""Answers of lesson 7, by hand and by every outcome of a group, are accepted; likely mistakes are not."""

from itertools import product
from math import comb, sqrt

import numpy as np
import pytest

import testbed
from testbed.lessons import check, lesson_07
from tests import brute_force

TRIES = [exercise.name for exercise in lesson_07.EXERCISES]


def advantages(rewards, scale=True):
    """(R - mean) / std with ddof 1; zeros for a group of equal rewards."""
    mean = sum(rewards) / len(rewards)
    deviation = sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    if deviation == 0.0:
        return [0.0 for _ in rewards]
    return [(r - mean) / (deviation if scale else 1.0) for r in rewards]


def factor(size, p, scale=True):
    """E of the group's estimator over g = p (1 - p), in the logit of the right token, whose score is R - p."""
    total = 0.0
    for rewards in product((0.0, 1.0), repeat=size):
        chance = np.prod([p if r else 1 - p for r in rewards])
        made = advantages(rewards, scale)
        total += chance * sum(a * (r - p) for a, r in zip(made, rewards, strict=True)) / size
    return total / (p * (1 - p))


def cosine(divide=True):
    """RLOO's baseline is the others' mean, independent of the answer: its average takes its place."""
    made = testbed.environment("brackets", horizon=5)
    walked = brute_force.trajectories(made.process, made.target)
    chance = np.array([x.probability for x in walked])
    outcome = np.array([x.terminal for x in walked])
    scores = np.array([
        sum(made.target.score[s, a] for s, a in zip(x.states, x.actions, strict=False)) for x in walked
    ])  # fmt: skip
    length = np.array([x.length if divide else 1 for x in walked])
    mean = (chance * (outcome - chance @ outcome) / length) @ scores
    truth = (chance * outcome) @ scores
    return float(mean @ truth / np.linalg.norm(mean) / np.linalg.norm(truth))


def batch_variance(size, split=True, p=0.5, prompts=6):
    """By the number of right answers in a group; both logits of a prompt move oppositely, hence the factor 2."""
    mean = second = 0.0
    for k in range(size + 1):
        rewards = [1.0] * k + [0.0] * (size - k)
        others = [(k - r) / (size - 1) for r in rewards]
        estimate = sum((r - other) * (r - p) for r, other in zip(rewards, others, strict=True)) / size
        chance = comb(size, k) * p**k * (1 - p) ** (size - k)
        mean, second = mean + chance * estimate, second + chance * estimate**2
    # Each prompt has parameters of its own: the expected estimate is mean / prompts in each of them.
    variance = 2 * (second - mean**2 / prompts)
    return variance * size / 64 if split else variance


def best_size(split=True):
    return min((2, 4, 8, 16, 32), key=lambda size: batch_variance(size, split))


RIGHT = {
    "7.1": lambda: factor(5, 0.3, scale=False),
    "7.2": lambda: factor(4, 0.3),
    "7.3": cosine,
    "7.4": best_size,
}
WRONG = {
    "7.1": lambda: 5 / 4,  # the way back
    "7.2": lambda: 1 / sqrt(0.3 * 0.7),  # the limit of large groups
    "7.3": lambda: cosine(divide=False),
    "7.4": lambda: best_size(split=False),  # of one group, however many rollouts it takes
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


def test_the_factors_are_those_of_closed_form():
    assert abs(factor(5, 0.3, scale=False) - 4 / 5) < 1e-12
    assert abs(factor(2, 0.3) - 1 / sqrt(2)) < 1e-12
