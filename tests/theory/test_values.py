"""Values, occupancies and the performance difference, against naive recursion over the tree of futures and by hand."""

import numpy as np
import pytest
from hypothesis import given

import theory
from tests import brute_force
from tests.instances import instances, random_instance
from tests.theory import plain_values


@given(instances())
def test_values_are_those_of_the_tree(instance):
    process, target, _ = instance
    v, pi = theory.values(process, target), target.probabilities
    for t in range(process.horizon + 1):
        for s in range(process.states):
            assert v.state_value[t, s] == pytest.approx(
                plain_values.state_value(process, pi, t, s), rel=1e-12, abs=1e-13
            )
        np.testing.assert_allclose(v.occupancy[t], plain_values.occupancy(process, pi, t), rtol=1e-12, atol=1e-14)
    for t in range(process.horizon):
        for s in np.flatnonzero(~process.absorbing):
            for a in range(process.actions):
                expected = plain_values.action_value(process, pi, t, s, a)
                assert v.action_value[t, s, a] == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert v.expected_return == pytest.approx(plain_values.expected_return(process, pi), rel=1e-12, abs=1e-13)


@given(instances())
def test_the_expected_return_is_the_mean_return_of_all_trajectories(instance):
    process, target, _ = instance
    mean = 0.0
    for x in brute_force.trajectories(process, target):
        paid = sum(process.discount**t * r for t, r in enumerate(x.rewards))
        mean += x.probability * (paid + process.discount**x.length * x.terminal)
    assert theory.values(process, target).expected_return == pytest.approx(mean, rel=1e-12, abs=1e-13)


@given(instances())
def test_advantages_have_mean_zero_and_occupancies_sum_to_one(instance):
    process, target, _ = instance
    v = theory.values(process, target)
    np.testing.assert_allclose(np.einsum("sa,tsa->ts", target.probabilities, v.advantage), 0.0, atol=1e-13)
    np.testing.assert_allclose(v.occupancy.sum(axis=1), 1.0, rtol=1e-13)


def test_shapes_and_what_stands_in_absorbing_states():
    process, target, _ = random_instance(S=4, A=3, T=5)
    v = theory.values(process, target)
    assert v.state_value.shape == v.occupancy.shape == (6, 4)
    assert v.action_value.shape == v.advantage.shape == (5, 4, 3)
    ended = process.terminal_reward[3]
    assert ended != 0.0
    np.testing.assert_array_equal(v.state_value[:, 3], ended)
    np.testing.assert_array_equal(v.action_value[:, 3], ended)
    np.testing.assert_array_equal(v.advantage[:, 3], 0.0)


def test_two_steps_by_hand():
    """Pays 1 per step; action 1 ends the episode with 10. pi(1) = 3/4, discount 1/2."""
    process = theory.MarkovProcess(
        [1.0, 0.0], [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0]] * 2], [[1.0, 1.0], [7.0, 7.0]], 2, [0.0, 10.0],
        [False, True], 0.5,
    )  # fmt: skip
    v = theory.values(process, theory.SoftmaxPolicy(np.log([[0.25, 0.75], [0.5, 0.5]])))
    np.testing.assert_allclose(v.action_value[1, 0], [1.0, 6.0])
    np.testing.assert_allclose(v.state_value[:, 0], [0.25 * (1 + 0.5 * 4.75) + 0.75 * 6.0, 4.75, 0.0])
    np.testing.assert_allclose(v.occupancy, [[1, 0], [0.25, 0.75], [0.0625, 0.9375]])


def test_an_episode_that_starts_at_its_end_pays_the_terminal_reward_alone():
    process = theory.MarkovProcess(
        [0.25, 0.75], [[[1.0, 0.0]], [[0.0, 1.0]]], [[1.0], [50.0]], 3, [0.0, 8.0], [False, True]
    )
    assert theory.values(process, theory.SoftmaxPolicy([[0.0], [0.0]])).expected_return == 0.25 * 3 + 0.75 * 8


@given(instances())
def test_performance_difference_is_the_difference_of_expected_returns(instance):
    process, target, behaviour = instance
    returns = [plain_values.expected_return(process, policy.probabilities) for policy in (target, behaviour)]
    difference = theory.performance_difference(process, target, behaviour)
    assert difference == pytest.approx(returns[0] - returns[1], rel=1e-11, abs=1e-12)


def test_performance_difference_knows_which_policy_is_which():
    process, target, behaviour = random_instance()
    there, back = (theory.performance_difference(process, *pair) for pair in ((target, behaviour), (behaviour, target)))
    assert there == pytest.approx(-back, rel=1e-12)
    assert abs(there) > 1e-2


def test_performance_difference_needs_the_targets_occupancy():
    """With the states of mu in place of those of pi the sum is another number, the trust-region surrogate."""
    process, target, behaviour = random_instance()
    v = theory.values(process, behaviour)
    alive = np.where(process.absorbing, 0.0, v.occupancy[:-1]) * 0.9 ** np.arange(process.horizon)[:, None]
    surrogate = np.einsum("ts,sa,tsa->", alive, target.probabilities, v.advantage)
    assert abs(surrogate - theory.performance_difference(process, target, behaviour)) > 1e-3
