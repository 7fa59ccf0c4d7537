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


def variances(kind="staleness"):
    """Of I1 and I4 in the river, by every trajectory: states, and the score of each step, pushed forward by a loop."""
    made = testbed.environment("chain")
    pair = drift.at(kind, made.process, made.target, kl=0.1)
    truth, _ = brute_force.moments(made.process, pair.target, pair.target, "none", "outcome")
    p, pi, mu = made.process, pair.target, pair.behaviour
    ratio = pi.probabilities / mu.probabilities
    means, seconds = np.zeros((2, truth.size)), np.zeros(2)

    def walk(t, s, chance, before, scores, paid, per_decision):
        nonlocal means, seconds
        if t == p.horizon:
            for i, estimate in enumerate((before * paid * scores, per_decision)):
                means[i] += chance * estimate
                seconds[i] += chance * (estimate @ estimate)
            return
        for a in range(p.actions):
            product, summed = before * ratio[s, a], scores + pi.score[s, a]
            rest = per_decision + product * p.reward[s, a] * summed
            for after in np.flatnonzero(p.transition[s, a]):
                reached = chance * mu.probabilities[s, a] * p.transition[s, a, after]
                walk(t + 1, after, reached, product, summed, paid + p.reward[s, a], rest)

    walk(0, 0, 1.0, 1.0, np.zeros(truth.size), 0.0, np.zeros(truth.size))
    assert np.allclose(means, truth, atol=1e-12)
    return seconds - (means**2).sum(axis=1)


def saving(kind="staleness"):
    whole, per_decision = variances(kind)
    return whole / per_decision


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
    "2.3": saving,
    "2.4": first_horizon,
}
WRONG = {
    "2.1": lambda: EPSILON / 2,  # the mean, not the bias
    "2.2": lambda: 1 / effective_sample_size(EPSILON),
    "2.3": lambda: 1 / saving(),
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


def test_the_lesson_prints_another_ratio_than_the_exercise_asks_for():
    assert abs(saving("noise") - saving()) > 0.5
