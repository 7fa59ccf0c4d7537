"""Lesson 5: answers from moments by brute force and from closed forms are accepted, likely mistakes are not."""

import math

import pytest

import testbed
import theory
from testbed import drift
from testbed.lessons import check
from tests import brute_force

NAMES = ("none", "token", "minpro", "prefix", "sequence")


def verdict(capsys, name, answer):
    check(name, answer)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def numbers():
    """weight -> (|bias|^2, variance), and |g|, over all trajectories."""
    made = testbed.environment("modular_sum", horizon=6)
    pair = drift.at("noise", made.process, made.target, kl=0.1)
    gradient = theory.policy_gradient(made.process, pair.target)
    found = {}
    for name in NAMES:
        mean, second = brute_force.moments(made.process, pair.target, pair.behaviour, name, "target_advantage")
        found[name] = float((mean - gradient) @ (mean - gradient)), second - float(mean @ mean)
    return found, math.sqrt(float(gradient @ gradient))


def error(numbers, name, n):
    bias, variance = numbers[0][name]
    return bias + variance / n


def test_crossing_by_bisection(numbers, capsys):
    low, high = 1e-3, 1e6
    assert error(numbers, "minpro", low) < error(numbers, "token", low)
    assert error(numbers, "minpro", high) > error(numbers, "token", high)
    for _ in range(200):
        middle = math.sqrt(low * high)
        less = error(numbers, "minpro", middle) < error(numbers, "token", middle)
        low, high = (middle, high) if less else (low, middle)
    assert "right" in verdict(capsys, "5.1", low)
    (minpro, v), (token, w) = numbers[0]["minpro"], numbers[0]["token"]
    for wrong in (-low, low * 1.01, (w - v) / (math.sqrt(minpro) - math.sqrt(token)) ** 2):
        assert "not yet" in verdict(capsys, "5.1", wrong)


def test_effective_sample_size_in_closed_form(capsys):
    growth = 0.2**2 / 0.3 + 0.3**2 / 0.3 + 0.5**2 / 0.4
    assert "right" in verdict(capsys, "5.2", growth**-50)
    reverse = 0.3**2 / 0.2 + 0.3**2 / 0.3 + 0.4**2 / 0.5
    for wrong in (1 / growth, growth**-49, reverse**-50, 50 / growth):
        assert "not yet" in verdict(capsys, "5.2", wrong)


def test_enough_trajectories_by_counting(numbers, capsys):
    size = numbers[1]
    assert numbers[0]["prefix"][0] < 1e-20
    n = 1
    while error(numbers, "prefix", n) > (0.1 * size) ** 2:
        n += 1
    assert "right" in verdict(capsys, "5.3", n)
    for wrong in (n - 1, n + 1, math.ceil(n / 10)):
        assert "not yet" in verdict(capsys, "5.3", wrong)


def test_winner_at_a_thousand(numbers, capsys):
    ranked = sorted(NAMES, key=lambda name: error(numbers, name, 1000))
    assert error(numbers, ranked[0], 1000) < 0.99 * error(numbers, ranked[1], 1000)
    assert "right" in verdict(capsys, "5.4", ranked[0])
    for wrong in ranked[1:]:
        assert "not yet" in verdict(capsys, "5.4", wrong)


@pytest.mark.parametrize("name", ["5.1", "5.2", "5.3", "5.4"])
def test_unanswered(capsys, name):
    assert "not answered yet" in verdict(capsys, name, ...)
