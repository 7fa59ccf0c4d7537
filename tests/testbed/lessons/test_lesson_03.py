"""Answers of lesson 3, in closed form and by walking every trajectory, are accepted; likely mistakes are not."""

import numpy as np
import pytest

import testbed
import theory
from testbed import drift
from testbed.lessons import check, lesson_03
from tests import brute_force

TRIES = [exercise.name for exercise in lesson_03.EXERCISES]
MADE = testbed.environment("token_tree", depth=4)
PAIR = drift.at("noise", MADE.process, MADE.target, kl=0.1)
CASE = (MADE.process, PAIR.target, PAIR.behaviour)


def one_token(pi=0.8, mu=0.5, cap=1.2):
    """mu(a) min(rho(a), cap) z(a), added up by hand: z is (1-p, p-1) for the first action and (-p, p) for the other."""
    first, second = mu * min(pi / mu, cap), (1 - mu) * min((1 - pi) / (1 - mu), cap)
    up = first * (1 - pi) - second * pi
    return [up, -up]


def largest_ratio():
    found = 0.0
    for trajectory in brute_force.trajectories(MADE.process, PAIR.behaviour):
        found = max(found, *np.exp(brute_force.log_ratios(trajectory, PAIR.target, PAIR.behaviour)))
    return found


def leak_without_ratio():
    """In each state, visited with d_mu(s), the expected score of mu's actions is mu - pi, and states are orthogonal."""
    visits = np.zeros(MADE.process.states)
    for trajectory in brute_force.trajectories(MADE.process, PAIR.behaviour):
        for s in trajectory.states[:-1]:
            visits[s] += trajectory.probability
    away = PAIR.behaviour.probabilities - PAIR.target.probabilities
    return np.sqrt(((visits[:, None] * away) ** 2).sum())


def growth(raised=5.0):
    """By every trajectory, of a process whose rewards are raised."""
    p = MADE.process
    other = theory.MarkovProcess(p.initial, p.transition, p.reward, p.horizon, p.terminal_reward + raised)
    weight, errors = theory.weight("truncated", cap=2.0), []
    truth, _ = brute_force.moments(p, PAIR.target, PAIR.target, "none", "outcome")
    for process in (p, other):
        mean, _ = brute_force.moments(process, PAIR.target, PAIR.behaviour, weight, "outcome")
        errors.append(np.linalg.norm(mean - truth))
    return errors[1] / errors[0]


RIGHT = {"3.1": one_token, "3.2": largest_ratio, "3.3": leak_without_ratio, "3.4": growth}
WRONG = {
    "3.1": lambda: one_token(cap=np.inf),  # the cap forgotten
    "3.2": lambda: 1 / largest_ratio(),
    "3.3": lambda: leak_without_ratio() ** 2,
    "3.4": lambda: growth(-5.0),
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


def test_the_smallest_cap_leaks_nothing_and_a_smaller_one_does():
    cap = largest_ratio()
    assert theory.baseline_leak(*CASE, theory.weight("truncated", cap=cap * (1 + 1e-12))).size < 1e-12
    assert theory.baseline_leak(*CASE, theory.weight("truncated", cap=0.999 * cap)).size > 1e-6
