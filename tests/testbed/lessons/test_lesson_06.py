"""Lesson 6: answers found by hand, by brute force and by quadrature are accepted; likely mistakes are not."""

import math
from itertools import product

import numpy as np
import pytest

import testbed
import theory
from testbed import drift
from testbed.lessons import check
from tests import brute_force


def verdict(capsys, name, answer):
    check(name, answer)
    return capsys.readouterr().out


def minpro(ratios, clip=None, inclusive=False, after=True):
    """MinPRO's coefficients by a plain loop."""
    result = []
    for t, rho in enumerate(ratios):
        earlier = ratios[: t + 1] if inclusive else ratios[:t]
        smallest = min(earlier, default=1.0)
        low, high = clip or (0.0, math.inf)
        result.append(min(max(smallest * rho, low), high) if after else smallest * min(max(rho, low), high))
    return result


RATIOS = [0.9, 1.4, 0.7, 1.1, 2.0]


def test_coefficients_by_hand(capsys):
    right = minpro(RATIOS, (0.8, 1.28))
    assert right == pytest.approx([0.9, 1.26, 0.8, 0.8, 1.28])
    assert "right" in verdict(capsys, "6.1", right)
    for wrong in (
        minpro(RATIOS),
        minpro(RATIOS, (0.8, 1.28), inclusive=True),
        minpro(RATIOS, (0.8, 1.28), after=False),
    ):
        assert "not yet" in verdict(capsys, "6.1", wrong)
    assert "its shape is (4,)" in verdict(capsys, "6.1", right[:4])


def test_mean_of_a_minimum_in_closed_form(capsys):
    # 3/2 only if all three earlier ratios are.
    right = 0.5 * (1 - 1 / 8) + 1.5 / 8
    assert "right" in verdict(capsys, "6.2", right)
    brute = np.mean([minpro(list(ratios))[3] for ratios in product((0.5, 1.5), repeat=4)])
    assert brute == pytest.approx(right)
    for wrong in (0.5 * (1 - 1 / 16) + 1.5 / 16, 1.0, 0.5):
        assert "not yet" in verdict(capsys, "6.2", wrong)


def test_best_baseline_by_brute_force(capsys):
    made = testbed.environment("parity", horizon=6)
    pair = drift.at("noise", made.process, made.target, kl=0.1)
    without, one = 0.0, 0.0
    for path in brute_force.trajectories(made.process, pair.behaviour):
        ratios = [math.exp(x) for x in brute_force.log_ratios(path, pair.target, pair.behaviour)]
        for c, s, a in zip(minpro(ratios, (0.8, 1.28)), path.states, path.actions, strict=False):
            score = np.zeros((2, 2))
            score[s] = -pair.target.probabilities[s]
            score[s, a] += 1.0
            without = without + path.probability * c * path.terminal * score.ravel()
            one = one + path.probability * c * score.ravel()
    bias = without - theory.policy_gradient(made.process, pair.target)
    right = float(bias @ one / (one @ one))
    assert "right" in verdict(capsys, "6.3", right)
    for wrong in (-right, 0.0, theory.values(made.process, pair.behaviour).expected_return):
        assert "not yet" in verdict(capsys, "6.3", wrong)


def test_shortest_length_by_a_grid(capsys):
    s = 0.2
    x = np.linspace(-9.0, 9.0, 40001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    above = 0.5 * np.vectorize(math.erfc)((math.log(0.8) + s * s - s * x) / s / math.sqrt(2))
    first = 0.5 * math.erfc(-(math.log(0.8) + s * s / 2) / s / math.sqrt(2))
    shares = [first] + [1.0 - float(density @ above**t) for t in range(1, 60)]
    running = np.cumsum(shares) / np.arange(1, 61)
    right = int(np.argmax(running >= 0.5)) + 1
    assert 1 < right < 60
    assert "right" in verdict(capsys, "6.4", right)
    position = int(np.argmax(np.array(shares) >= 0.5)) + 1
    assert position != right
    for wrong in (position, right - 1, right + 1):
        assert "not yet" in verdict(capsys, "6.4", wrong)


@pytest.mark.parametrize("name", ["6.1", "6.2", "6.3", "6.4"])
def test_unanswered(capsys, name):
    assert "not answered yet" in verdict(capsys, name, ...)
