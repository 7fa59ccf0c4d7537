"""Exact errors with each baseline: against all trajectories one by one, and their optimum against a grid."""

from __future__ import annotations

import numpy as np
import pytest

import testbed
import theory
from tests import brute_force
from tests.instances import random_instance

N = 64


def plain_error(instance, weight, baseline):
    """E|mean of N - g|^2 / |g|^2 with a baseline, a number or (T, S)."""
    process, target, behaviour = instance
    mean, second = brute_force.moments(process, target, behaviour, weight, "outcome", baseline=baseline)
    g = theory.policy_gradient(process, target)
    return (float((mean - g) @ (mean - g)) + (second - float(mean @ mean)) / N) / float(g @ g)


@pytest.fixture(scope="module")
def instance():
    return random_instance(seed=4, S=3, A=2, T=3)


@pytest.mark.parametrize("weight", ["none", "token", "geometric", theory.weight("truncated", cap=1.2)], ids=str)
def test_errors_are_those_of_all_trajectories_one_by_one(instance, weight):
    process, target, behaviour = instance
    exact = testbed.baseline_errors(*instance, weight, trajectories=N)
    scale = process.discount ** np.arange(process.horizon)[:, None]
    tables = {"none": 0.0, "expected_return": theory.values(process, behaviour).expected_return}
    tables["target_value"] = scale * theory.values(process, target).state_value[:-1]
    tables["behaviour_value"] = scale * theory.values(process, behaviour).state_value[:-1]
    estimator = theory.Estimator(weight, "outcome")
    tables["optimal_constant"] = float(theory.optimal_baseline(*instance, estimator).baseline)
    tables["optimal_per_state"] = np.tile(theory.optimal_baseline(*instance, estimator, "state").baseline, (3, 1))
    for name, table in tables.items():
        assert exact.errors[name] == pytest.approx(plain_error(instance, weight, table), rel=1e-8), name
    for constant in (-1.5, 0.3, 2.0):
        assert exact.at_constant(constant) == pytest.approx(plain_error(instance, weight, constant), rel=1e-8)
    # Negative control: the error with another number of trajectories, or another baseline, is not the same.
    assert exact.errors["none"] != pytest.approx(plain_error(instance, weight, 0.1), rel=1e-4)


@pytest.mark.parametrize("weight", ["none", "token"])
def test_no_constant_has_less_error_than_the_best_one(instance, weight):
    exact = testbed.baseline_errors(*instance, weight, trajectories=N)
    grid = [exact.at_constant(x) for x in np.linspace(-3, 3, 601)]
    assert exact.errors["mse_constant"] <= min(grid)
    assert min(grid) == pytest.approx(exact.errors["mse_constant"], rel=1e-3)
    assert max(grid) > 1.5 * min(grid)
    assert exact.regret(exact.errors[exact.best]) == 0.0
    assert all(exact.regret(x) >= 0.0 for x in exact.errors.values())


@pytest.mark.parametrize("weight", ["token", "prefix", "sequence", "minpro"])
def test_where_no_baseline_moves_the_bias_least_variance_is_least_error(instance, weight):
    exact = testbed.baseline_errors(*instance, weight, trajectories=N)
    biases = list(exact.squared_biases.values())
    np.testing.assert_allclose(biases, biases[0], rtol=1e-9, atol=1e-20)
    assert exact.regret(exact.errors[exact.least_variance]) == pytest.approx(0.0, abs=1e-9)
    assert exact.errors["mse_constant"] == pytest.approx(exact.errors["optimal_constant"], rel=1e-9)


def test_elsewhere_it_is_not(instance):
    """Negative control: without any weight, mu's scores do not average to zero, and a baseline moves the bias."""
    exact = testbed.baseline_errors(*instance, "none", trajectories=1000)
    biases = exact.squared_biases
    assert biases["none"] != pytest.approx(biases["target_value"], rel=1e-2)
    assert exact.errors["mse_constant"] < 0.99 * exact.errors["optimal_constant"]


def test_bad_questions_are_refused(instance):
    with pytest.raises(ValueError, match="change with the sign of the advantage"):
        testbed.baseline_errors(*instance, "ppo_clip")
    bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    pi = theory.SoftmaxPolicy([[0.0, 0.5]])
    with pytest.raises(ValueError, match="trajectories is 4; expected at least 8"):
        testbed.baseline_errors(bandit, pi, pi, trajectories=4)
    flat = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[1.0, 1.0]], horizon=1)
    with pytest.raises(ValueError, match="the true gradient is zero"):
        testbed.baseline_errors(flat, theory.SoftmaxPolicy([[0.0, 0.5]]), theory.SoftmaxPolicy([[0.0, 0.0]]))
