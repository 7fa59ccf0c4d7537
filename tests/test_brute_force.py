"""The brute force itself, against numbers worked by hand."""

import numpy as np
import pytest

import theory
from tests import brute_force
from tests.instances import random_instance


def coin(discount=1.0):
    """Two steps of a fair-coin policy; 'stop' (action 1) ends at once. The step pays 1, the end pays 10."""
    process = theory.MarkovProcess(
        initial=[1.0, 0.0],
        transition=[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]],
        reward=[[1.0, 1.0], [0.0, 0.0]],
        horizon=2,
        terminal_reward=[0.0, 10.0],
        absorbing=[False, True],
        discount=discount,
    )
    mu = theory.SoftmaxPolicy([[0.0, 0.0], [0.0, 0.0]])
    pi = theory.SoftmaxPolicy(np.log([[0.25, 0.75], [0.5, 0.5]]))
    return process, pi, mu


def test_trajectories_of_the_coin():
    process, pi, mu = coin()
    found = {x.actions: x for x in brute_force.trajectories(process, mu)}
    assert set(found) == {(1,), (0, 0), (0, 1)}
    assert found[(1,)].probability == 0.5
    assert found[(0, 1)] == (0.25, (0, 0, 1), (0, 1), (1.0, 1.0), 10.0)
    assert found[(0, 0)].terminal == 0.0
    np.testing.assert_allclose(brute_force.log_ratios(found[(0, 1)], pi, mu), np.log([0.5, 1.5]))


def test_signals_of_the_coin_are_discounted_to_the_start():
    process, pi, mu = coin(discount=0.5)
    (path,) = [x for x in brute_force.trajectories(process, mu) if x.actions == (0, 1)]
    # Pays 1 at t = 0, then 0.5 and 0.25 x 10.
    for name, expected in [("reward", [1, 3]), ("reward_to_go", [4, 3]), ("outcome", [4, 4])]:
        np.testing.assert_allclose(brute_force.signals(process, pi, mu, name, path), expected)
    np.testing.assert_allclose(brute_force.signals(process, pi, mu, "outcome", path, baseline=1.5), [2.5, 2.5])
    # Q_1(stop) = 1 + 0.5 x 10 = 6, halved; Q_0(go) = 1 + 0.5 (6 x 3/4 + 1 x 1/4).
    np.testing.assert_allclose(brute_force.signals(process, pi, mu, "target_action_value", path), [3.375, 3])


def test_moments_of_the_coin():
    process, pi, mu = coin()
    # Score under pi: (3/4, -3/4) of go, (-1/4, 1/4) of stop. Outcomes: stop 11, go-stop 12, go-go 2.
    mean, second = brute_force.moments(process, pi, mu, "none", "outcome")
    along = [(0.5, 11 * -0.25), (0.25, 12 * (0.75 - 0.25)), (0.25, 2 * 1.5)]
    expected = sum(p * x for p, x in along)
    np.testing.assert_allclose(mean, [expected, -expected, 0, 0])
    assert second == pytest.approx(2 * sum(p * x**2 for p, x in along))
    mean, _ = brute_force.moments(process, pi, mu, "none", "outcome", reduction="length_mean")
    expected = 0.5 * 11 * -0.25 + 0.25 * 12 * 0.25 + 0.25 * 2 * 0.75
    np.testing.assert_allclose(mean, [expected, -expected, 0, 0])
    mean, _ = brute_force.moments(process, pi, mu, "none", "outcome", score="cumulative", reduction="constant")
    expected = 0.5 * (0.5 * 11 * -0.25 + 0.25 * 12 * (0.75 + 0.5) + 0.25 * 2 * (0.75 + 1.5))
    np.testing.assert_allclose(mean, [expected, -expected, 0, 0])


def test_probabilities_sum_to_one_and_the_leak_of_no_correction_is_its_own():
    process, target, behaviour = random_instance(T=3)
    paths = brute_force.trajectories(process, behaviour)
    assert sum(x.probability for x in paths) == pytest.approx(1.0, rel=1e-13)
    b = np.array([1.0, -2.0, 0.5, 3.0])
    assert np.linalg.norm(brute_force.leak(process, target, behaviour, "token", "outcome", b)) < 1e-14
    assert np.linalg.norm(brute_force.leak(process, target, behaviour, "none", "outcome", b)) > 1e-2
