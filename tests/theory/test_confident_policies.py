"""Policies almost sure of an action: their scores are as small as the other probabilities, to all digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

import theory

REWARDS = (1.0, -0.5, 0.25)


def _bandit():
    return theory.MarkovProcess([1.0], np.ones((1, 3, 1)), [REWARDS], horizon=1)


def _softmax(logits):
    weights = [Decimal(x).exp() for x in logits]
    return [w / sum(weights) for w in weights]


def _exact(gap):
    """(pi_a (r_a - J), |z_a|^2) of the three-armed bandit, with 120 digits."""
    with localcontext() as context:
        context.prec = 120
        pi = _softmax((0.0, -gap, -gap - 1.0))
        rewards = [Decimal(r) for r in REWARDS]
        expected = sum(p * r for p, r in zip(pi, rewards, strict=True))
        gradient = [p * (r - expected) for p, r in zip(pi, rewards, strict=True)]
        squared = [sum((Decimal(int(a == b)) - pi[b]) ** 2 for b in range(3)) for a in range(3)]
        return np.array([float(x) for x in gradient]), np.array([float(x) for x in squared])


def _policies(gap):
    """Tabular, and log-linear with one feature per action, which has the same scores."""
    logits = np.array([[0.0, -gap, -gap - 1.0]])
    return theory.SoftmaxPolicy(logits), theory.SoftmaxPolicy.from_features(np.eye(3)[None], logits[0])


@pytest.mark.parametrize("gap", [1.0, 10.0, 20.0, 40.0, 60.0])
@pytest.mark.parametrize("engine", ["recursion", "enumeration"])
@pytest.mark.parametrize("which", [0, 1], ids=["tabular", "features"])
def test_every_component_keeps_its_digits(gap, engine, which):
    gradient, squared = _exact(gap)
    target = _policies(gap)[which]
    behaviour = theory.SoftmaxPolicy(target.logits * 0.5)
    np.testing.assert_allclose(theory.policy_gradient(_bandit(), target), gradient, rtol=1e-12)
    np.testing.assert_allclose(target.squared_score[0], squared, rtol=1e-12)
    np.testing.assert_allclose(np.sum(target.score[0] ** 2, axis=-1), squared, rtol=1e-12)
    for weight in ("token", "sequence"):
        m = theory.moments(_bandit(), target, behaviour, theory.Estimator(weight, "outcome"), engine)
        np.testing.assert_allclose(m.mean, gradient, rtol=1e-12)
        assert m.relative_bias < 1e-12
        second = np.dot(
            behaviour.probabilities[0] * np.exp(2 * _log_ratio(target, behaviour)) * np.square(REWARDS), squared
        )
        assert m.variance + m.mean @ m.mean == pytest.approx(second, rel=1e-10)


def _log_ratio(target, behaviour):
    return (target.log_probabilities - behaviour.log_probabilities)[0]


def test_written_as_one_minus_pi_nothing_is_left():
    """The control: the textbook formula in float64 fails the test above."""
    gradient, squared = _exact(40.0)
    pi = _policies(40.0)[0].probabilities[0]
    weights = pi * np.array(REWARDS)
    assert np.abs((weights - pi * weights.sum()) / gradient - 1.0).max() > 0.5
    assert np.abs((1.0 - 2.0 * pi + np.sum(pi**2)) / squared - 1.0).max() > 0.5


@pytest.mark.parametrize("horizon", [1, 5, 50])
def test_a_gradient_that_is_only_rounding_is_zero_and_its_ratios_do_not_exist(horizon):
    """The same reward whatever is done: no direction is better, and 0.1 + ... + 0.1 must not invent one."""
    rng = np.random.default_rng(0)
    process = theory.MarkovProcess(
        rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), (3, 2)), np.full((3, 2), 0.1), horizon
    )
    target, behaviour = (theory.SoftmaxPolicy(rng.normal(size=(3, 2))) for _ in range(2))
    m = theory.moments(process, target, behaviour, theory.Estimator("token", "outcome"))
    assert not m.gradient.any()
    assert np.isnan([m.relative_bias, m.cosine, m.effective_step]).all()
    # The control: a reward that is better by 1e-9 in one state has a gradient.
    reward = process.reward.copy()
    reward[0, 0] += 1e-9
    better = theory.MarkovProcess(process.initial, process.transition, reward, horizon)
    assert theory.policy_gradient(better, target).any()
