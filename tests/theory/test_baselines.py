"""Optimal baselines: against variances of all trajectories one by one, a grid, closed forms and each other."""

from __future__ import annotations

import numpy as np
import pytest

import theory
from tests import brute_force
from tests.instances import random_instance

WEIGHTS = ["token", "sequence", "minpro", "geometric", theory.weight("truncated", cap=1.5)]


def plain_moments(instance, estimator, baseline):
    """Mean (P,) and variance (P,) of each component with a (T, S) baseline, or with one number per component."""
    process, target, behaviour = instance
    per_parameter = np.ndim(baseline) == 1
    chance, values = [], []
    for y in brute_force.trajectories(process, behaviour):

        def estimate(b, y=y):
            return brute_force.estimate(
                process, target, behaviour, estimator.weight, estimator.signal.name, y,
                estimator.score, estimator.reduction.name, baseline=b,
            )  # fmt: skip

        chance.append(y.probability)
        if per_parameter:
            free, one = estimate(0.0), estimate(1.0)
            values.append(free + baseline * (one - free))
        else:
            values.append(estimate(baseline))
    chance, values = np.array(chance), np.array(values)
    mean = chance @ values
    return mean, chance @ values**2 - mean**2


@pytest.fixture(scope="module")
def instance():
    return random_instance(seed=4, S=3, A=2, T=3)


def table(instance, baseline):
    """A baseline per state as it is subtracted, discounted, (T, S)."""
    process = instance.process
    return process.discount ** np.arange(process.horizon)[:, None] * baseline


@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("per", ["constant", "state", "parameter"])
def test_variances_are_those_of_all_trajectories_and_the_least(instance, weight, per):
    e = theory.Estimator(weight, "outcome")
    best = theory.optimal_baseline(*instance, e, per)

    def variance(b):
        return plain_moments(instance, e, np.tile(b, (3, 1)) if per == "state" else b)[1].sum()

    b = best.baseline
    assert b.shape == {"constant": (), "state": (3,), "parameter": (6,)}[per]
    least = variance(b)
    assert best.variance == pytest.approx(least, rel=1e-9)
    # The gradient of a parabola is its central difference.
    scale = variance(np.zeros_like(b)) + 1.0
    for direction in np.eye(b.size).reshape(-1, *b.shape):
        assert abs(variance(b + direction) - variance(b - direction)) < 1e-9 * scale
        assert all(variance(b + x * direction) >= least - 1e-12 * scale for x in np.linspace(-3, 3, 13))
    assert variance(b + 1.0) > least * 1.001  # negative control: another baseline is seen to be worse


@pytest.mark.parametrize("score", ["own", "cumulative"])
@pytest.mark.parametrize("reduction", ["sum", "length_mean"])
@pytest.mark.parametrize("signal", ["outcome", "reward_to_go"])
def test_every_choice_of_estimator(instance, signal, score, reduction):
    e = theory.Estimator("token", signal, score=score, reduction=reduction)
    best = theory.optimal_baseline(*instance, e)
    b = best.baseline if signal == "outcome" else table(instance, np.full(3, best.baseline))
    assert best.variance == pytest.approx(plain_moments(instance, e, b)[1].sum(), rel=1e-9)
    assert best.variance <= min(v for name, v in best.variances.items() if name in ("none", "expected_return"))


def test_usual_baselines_are_those_of_all_trajectories(instance):
    process, target, behaviour = instance
    e = theory.Estimator("minpro", "outcome")
    best = theory.optimal_baseline(*instance, e)
    tables = {"none": 0.0, "expected_return": theory.values(process, behaviour).expected_return}
    for name, policy in (("target_value", target), ("behaviour_value", behaviour)):
        tables[name] = table(instance, theory.values(process, policy).state_value[:-1])
    for name, b in tables.items():
        mean, variance = plain_moments(instance, e, b)
        assert best.variances[name] == pytest.approx(variance.sum(), rel=1e-9), name
        np.testing.assert_allclose(best.moments[name].mean, mean, atol=1e-12)


def test_leave_one_out_is_counted_per_trajectory():
    """On-policy with equal start, its variance is that of the mean baseline times G / (G - 1), at large G none."""
    bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    pi = theory.SoftmaxPolicy(np.log([[0.7, 0.3]]))
    e = theory.Estimator("token", "outcome")
    two, many = (theory.optimal_baseline(bandit, pi, pi, e, group_size=g).variances for g in (2, 60))
    # G = 2: g = (R_1 - R_2)(z_1 - z_2) / 2, with z = (R - 0.3)(-1, 1): 2 (R_1 - R_2)^4 / 4 per draw, so R_1 != R_2.
    differ = 2 * 0.7 * 0.3
    assert two["leave_one_out"] == pytest.approx(2 * 2 * 0.25 * (differ - differ**2))
    assert two["none"] == many["none"]
    assert many["leave_one_out"] == pytest.approx(many["expected_return"], rel=0.05)


def test_two_arms_need_no_variance_and_three_do():
    """R - b = 1 - p on arm 1 and -b on the other: with b = 1 - p, (R - b) z is the same vector for both."""
    p = 0.3
    bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    pi = theory.SoftmaxPolicy(np.log([[1 - p, p]]))
    best = theory.optimal_baseline(bandit, pi, pi, theory.Estimator("token", "outcome"), "parameter")
    np.testing.assert_allclose(best.baseline, [1 - p, 1 - p], atol=1e-12)
    assert best.variance == pytest.approx(0.0, abs=1e-12)
    three = theory.MarkovProcess([1.0], [[[1.0]] * 3], [[0.0, 1.0, 5.0]], horizon=1)
    even = theory.SoftmaxPolicy([[0.0, 1.0, 0.3]])
    for per in ("constant", "parameter"):
        assert theory.optimal_baseline(three, even, even, theory.Estimator("token", "outcome"), per).variance > 0.1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weight", ["none", "token", "sequence"])
@pytest.mark.parametrize("discount", [1.0, 0.3])
def test_finer_baselines_never_have_more_variance(seed, weight, discount):
    instance, e = random_instance(seed=seed, T=3, S=3, discount=discount), theory.Estimator(weight, "outcome")
    constant, state, parameter = (
        theory.optimal_baseline(*instance, e, per) for per in ("constant", "state", "parameter")
    )
    assert parameter.variance < constant.variance
    assert constant.variance <= min(constant.variances["none"], constant.variances["expected_return"])
    assert state.variance < constant.variance


def test_agrees_with_the_signal_of_that_name(instance):
    for per, per_state in (("constant", False), ("state", True)):
        e = theory.Estimator("minpro", theory.signal("outcome", baseline="optimal", per_state=per_state))
        assert theory.optimal_baseline(*instance, e, per).variance == pytest.approx(
            theory.moments(*instance, e).variance, rel=1e-10
        )


def test_a_component_that_no_baseline_moves_keeps_the_constant_one():
    """A second state is never visited: its scores are always zero."""
    process = theory.MarkovProcess([1.0, 0.0], [[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2], [[0.0, 1.0], [0.0, 0.0]], 2)
    pi = theory.SoftmaxPolicy([[0.3, 0.0], [0.0, 0.0]])
    best = theory.optimal_baseline(process, pi, pi, theory.Estimator("token", "outcome"), "parameter")
    constant = theory.optimal_baseline(process, pi, pi, theory.Estimator("token", "outcome"))
    np.testing.assert_allclose(best.baseline[2:], constant.baseline)


def test_what_has_no_answer_is_refused(instance):
    with pytest.raises(ValueError, match="signal 'target_advantage' takes no baseline"):
        theory.optimal_baseline(*instance, theory.Estimator("token", "target_advantage"))
    with pytest.raises(ValueError, match="takes no baseline"):
        theory.optimal_baseline(*instance, theory.Estimator("token", theory.group(4)))
    with pytest.raises(ValueError, match="nearest known name is 'parameter'"):
        theory.optimal_baseline(*instance, theory.Estimator("token", "outcome"), "parameters")
    with pytest.raises(ValueError, match="change with the sign of the advantage"):
        theory.optimal_baseline(*instance, theory.Estimator("ppo_clip", "outcome"))
