"""The true gradient, against finite differences of the naively computed return and against closed forms."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import theory
from tests.instances import instances, random_instance
from tests.theory import plain_values


def derivative(process, target, direction):
    """dJ along a direction: central differences with one Richardson step, error of order step^4."""

    def difference(step):
        ahead, behind = (
            plain_values.expected_return(process, target.with_parameters(target.parameters + x).probabilities)
            for x in (step * direction, -step * direction)
        )
        return (ahead - behind) / (2 * step)

    # The error is the fifth derivative's, which grows with how far the logits move.
    step = 2e-3 / max(1.0, np.abs(target.score @ direction).max())
    return (4 * difference(step / 2) - difference(step)) / 3


def agrees_with_finite_differences(process, target, gradient, direction):
    slope = derivative(process, target, direction)
    size = plain_values.largest_return(process) * max(1.0, np.abs(target.score @ direction).max())
    return abs(gradient @ direction - slope) <= 1e-8 * size


@given(instances(), st.integers(0, 10_000))
@example(random_instance(discount=0.9, T=3), 1)
@example(random_instance(discount=1.0, absorbing=False, T=3), 1)
@example(random_instance(discount=0.5, features=3, T=3), 1)
@example(random_instance(discount=0.0, T=3), 1)
@example(random_instance(T=1), 1)
@example(random_instance(S=1, absorbing=False), 1)
@example(random_instance(A=1), 1)
def test_the_gradient_is_the_derivative_of_the_expected_return(instance, seed):
    process, target, _ = instance
    direction = np.random.default_rng(seed).normal(size=target.parameter_count)
    assert agrees_with_finite_differences(process, target, theory.policy_gradient(process, target), direction)


@pytest.mark.parametrize("features", [0, 3])
def test_finite_differences_reject_a_gradient_that_is_slightly_wrong(features):
    """The tolerance finds one part in 100,000, a swapped policy, and a gradient that forgets the discount."""
    process, target, behaviour = random_instance(features=features, T=3)
    direction = np.random.default_rng(1).normal(size=target.parameter_count)
    g = theory.policy_gradient(process, target)
    undiscounted = theory.MarkovProcess(
        process.initial, process.transition, process.reward, process.horizon, process.terminal_reward, process.absorbing
    )
    assert agrees_with_finite_differences(process, target, g, direction)
    assert not agrees_with_finite_differences(process, target, 1.00001 * g, direction)
    assert not agrees_with_finite_differences(process, target, theory.policy_gradient(undiscounted, target), direction)
    if not features:
        assert not agrees_with_finite_differences(
            process, target, theory.policy_gradient(process, behaviour), direction
        )


def test_one_step_bandit():
    """g_a = pi_a (r_a - J), Sutton & Barto 2018, eq. 2.12."""
    pi, r = np.array([0.1, 0.2, 0.7]), np.array([3.0, -1.0, 0.5])
    process = theory.MarkovProcess([1.0], np.ones((1, 3, 1)), r[None], 1)
    g = theory.policy_gradient(process, theory.SoftmaxPolicy(np.log(pi)[None]))
    np.testing.assert_allclose(g, pi * (r - pi @ r), rtol=1e-13)


def test_two_steps_by_hand():
    """J = p q: state 0 goes on with p, state 1 is won with q. dJ/dlogits = -+ p (1-p) q and -+ p q (1-q)."""
    p, q = 0.3, 0.8
    process = theory.MarkovProcess(
        [1.0, 0.0, 0.0, 0.0],
        np.eye(4)[[[2, 1], [2, 3], [2, 2], [3, 3]]],
        np.zeros((4, 2)),
        2,
        [0.0, 0.0, 0.0, 1.0],
        [False, False, True, True],
    )
    policy = theory.SoftmaxPolicy(np.log([[1 - p, p], [1 - q, q], [0.5, 0.5], [0.5, 0.5]]))
    first, second = p * (1 - p) * q, p * q * (1 - q)
    expected = [-first, first, -second, second, 0, 0, 0, 0]
    np.testing.assert_allclose(theory.policy_gradient(process, policy), expected, rtol=1e-13, atol=1e-16)


@given(instances(features=False))
def test_the_gradient_of_a_tabular_policy_sums_to_zero_in_every_state(instance):
    """Adding a number to all logits of a state changes nothing."""
    process, target, _ = instance
    g = theory.policy_gradient(process, target).reshape(process.states, process.actions)
    np.testing.assert_allclose(g.sum(axis=1), 0.0, atol=1e-13)
    np.testing.assert_array_equal(g[process.absorbing], 0.0)


def test_the_gradient_does_not_see_a_constant_reward_of_a_fixed_length():
    process, target, _ = random_instance(absorbing=False)
    shifted = theory.MarkovProcess(
        process.initial, process.transition, process.reward + 100.0, process.horizon, process.terminal_reward,
        process.absorbing, process.discount,
    )  # fmt: skip
    g = theory.policy_gradient(process, target)
    np.testing.assert_allclose(theory.policy_gradient(shifted, target), g, rtol=1e-10)
    # Where the length varies, a reward per step pays for staying.
    process, target, _ = random_instance(absorbing=True)
    shifted = theory.MarkovProcess(
        process.initial, process.transition, process.reward + 100.0, process.horizon, process.terminal_reward,
        process.absorbing, process.discount,
    )  # fmt: skip
    difference = theory.policy_gradient(shifted, target) - theory.policy_gradient(process, target)
    assert np.linalg.norm(difference) > 1.0


def test_an_ascent_step_raises_the_return():
    process, target, _ = random_instance(seed=4)
    g = theory.policy_gradient(process, target)
    before = theory.values(process, target).expected_return
    after = theory.values(process, target.with_parameters(target.parameters + 1e-3 * g)).expected_return
    assert after - before == pytest.approx(1e-3 * g @ g, rel=1e-2)
