"""Answers of lesson 2, in closed form and by walking every trajectory, are accepted; likely mistakes are not."""

import numpy as np
import pytest

import testbed
from testbed import drift
from testbed.lessons import check, lesson_02
from tests import brute_force

TRIES = [exercise.name for exercise in lesson_02.EXERCISES]
EPSILON = 0.2


def effective_sample_size(eps):
    """W is (1/2 - eps) / (1/2 + eps) with chance 1/2 + eps, and its inverse with the rest."""
    return 1 / ((0.5 - eps) ** 2 / (0.5 + eps) + (0.5 + eps) ** 2 / (0.5 - eps))


def unbiased():
    """By every trajectory of a random pair, one weight after the other."""
    made = testbed.environment("token_tree", depth=3, vocabulary=2, seed=1)
    pair = drift.at("noise", made.process, made.target, kl=0.2)
    case = (made.process, pair.target, pair.behaviour)
    truth, _ = brute_force.moments(made.process, pair.target, pair.target, "none", "outcome")
    errors = {
        name: np.abs(brute_force.moments(*case, name, "reward_to_go")[0] - truth).max()
        for name in ("none", "token", "prefix", "suffix", "sequence")
    }
    return [name for name, error in errors.items() if error < 1e-12]


def first_horizon():
    for horizon in range(1, 11):
        made = testbed.environment("parity", horizon=horizon)
        pair = drift.at("noise", made.process, made.target, kl=0.1)
        second = 0.0
        for trajectory in brute_force.trajectories(made.process, pair.behaviour):
            ratios = brute_force.log_ratios(trajectory, pair.target, pair.behaviour)
            second += trajectory.probability * np.exp(2 * sum(ratios))
        if 1 / second < 0.2:
            return horizon
    return None


RIGHT = {
    "2.1": lambda: EPSILON / 2 - (-EPSILON / 2),
    "2.2": lambda: effective_sample_size(EPSILON),
    "2.3": lambda: unbiased()[0],
    "2.4": first_horizon,
}
WRONG = {
    "2.1": lambda: EPSILON / 2,  # the mean, not the bias
    "2.2": lambda: 1 / effective_sample_size(EPSILON),
    "2.3": lambda: "prefix",
    "2.4": lambda: first_horizon() + 1,
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


def test_only_one_weight_is_unbiased_for_rewards_to_go():
    assert len(unbiased()) == 1
