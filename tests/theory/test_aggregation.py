"""Mean over each response's tokens against mean over all tokens, where responses differ in length: brackets.

A documented comparison: the numbers are exact, and those of the default `brackets` (405 responses, on-policy) are
printed here because libraries differ in nothing but this one division.

    group of 4, RLOO     cosine with the true gradient    |mean| / |g|
    sum                  1                                1
    constant (1/T)       1                                0.1
    length_mean (1/L)    0.9322                           0.5326
    token_mean           0.9980                           0.4165
"""

import numpy as np
import pytest

import testbed
import theory
from testbed import drift
from tests import brute_force
from tests.brute_force_batches import group_moments

RLOO = {"centre": "leave_one_out", "scale": "none"}


@pytest.fixture(scope="module")
def brackets():
    return testbed.environment("brackets")


def ask(made, size, reduction, behaviour=None, group=RLOO):
    estimator = theory.Estimator("token", theory.group(size, **group), reduction=reduction)
    return theory.moments(made.process, made.target, behaviour or made.target, estimator)


def expected_length(made):
    occupancy = theory.values(made.process, made.target).occupancy[:-1]
    return occupancy[:, ~made.process.absorbing].sum()


@pytest.mark.parametrize("reduction", ["length_mean", "token_mean"])
@pytest.mark.parametrize("group", [RLOO, {}])
def test_against_every_pair_of_responses(reduction, group):
    """Small brackets, where every pair can be visited, under drift."""
    made = testbed.environment("brackets", depth=2, horizon=4)
    pair = drift.at("noise", made.process, made.target, 0.1)
    found = ask(made, 2, reduction, pair.behaviour, group)
    instance = (made.process, pair.target, pair.behaviour)
    mean, outer = group_moments(*instance, "token", theory.group(2, **group), reduction=reduction)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-13)
    assert found.variance == pytest.approx(np.trace(outer) - mean @ mean, rel=1e-12)
    # The control: the other mean is another estimator.
    other = ask(made, 2, {"length_mean": "token_mean", "token_mean": "length_mean"}[reduction], pair.behaviour, group)
    assert np.abs(other.mean - mean).max() > 1e-3


@pytest.mark.parametrize(
    ("reduction", "cosine", "step"),
    [("sum", 1.0, 1.0), ("constant", 1.0, 0.1), ("length_mean", 0.9322, 0.5326), ("token_mean", 0.9980, 0.4165)],
)
def test_the_table(brackets, reduction, cosine, step):
    m = ask(brackets, 4, reduction)
    assert m.cosine == pytest.approx(cosine, abs=5e-5)
    assert m.effective_step == pytest.approx(step, abs=5e-5)


def test_a_mean_over_each_response_bends_the_gradient_at_every_group_size(brackets):
    """E = E[(R - J) X / L]: a policy gradient of R / L with a baseline that leaks through the length."""
    process, target = brackets.process, brackets.target
    J, expected, straight = theory.values(process, target).expected_return, 0.0, 0.0
    for x in brute_force.trajectories(process, target):
        score = sum(target.score[s, a] for s, a in zip(x.states, x.actions, strict=False))
        expected = expected + x.probability * (x.terminal - J) * score / x.length
        straight = straight + x.probability * (x.terminal - J) * score
    np.testing.assert_allclose(straight, theory.policy_gradient(process, target), rtol=0, atol=1e-13)
    for size in (2, 4, 16):
        m = ask(brackets, size, "length_mean")
        np.testing.assert_allclose(m.mean, expected, rtol=0, atol=1e-13)
    assert m.cosine < 0.94


def test_a_mean_over_all_tokens_straightens_as_the_group_grows(brackets):
    """sum A_i X_i / sum L_i tends to g / E[L]: the angle to g halves when the group doubles."""
    sizes = (2, 4, 8)
    found = [ask(brackets, size, "token_mean") for size in sizes]
    angle = np.arccos([m.cosine for m in found])
    assert angle[-1] < 0.04
    np.testing.assert_allclose(angle[1:] / angle[:-1], 0.5, rtol=0, atol=0.1)
    step = np.array([m.effective_step for m in found])
    # Richardson's extrapolation of the last two, whose error is of second order in 1 / size.
    assert 2 * step[-1] - step[-2] == pytest.approx(1.0 / expected_length(brackets), rel=2e-2)


def test_where_all_responses_are_as_long_the_two_means_are_one():
    """The control: nothing above would be seen in a task of fixed length."""
    made = testbed.environment("parity", horizon=5)
    by_response, by_token = (ask(made, 4, reduction) for reduction in ("length_mean", "token_mean"))
    np.testing.assert_allclose(by_response.mean, by_token.mean, rtol=0, atol=1e-15)
    assert by_response.variance == pytest.approx(by_token.variance, rel=1e-12)
    assert by_token.cosine == pytest.approx(1.0, abs=1e-12)
    assert by_token.effective_step == pytest.approx(1 / 5, rel=1e-12)
