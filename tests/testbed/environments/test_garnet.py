"""Garnet: its structure, and the resolvent."""

import numpy as np
import pytest

import testbed
from tests.testbed.environments.plain import expected_return


def resolvent_return(process, policy, horizon):
    """start (I - discount P)^-1 (I - (discount P)^T) r."""
    P = process.discount * np.einsum("sa,san->sn", policy.probabilities, process.transition)
    r = np.einsum("sa,sa->s", policy.probabilities, process.reward)
    identity = np.eye(process.states)
    return process.initial @ np.linalg.solve(identity - P, (identity - np.linalg.matrix_power(P, horizon)) @ r)


@pytest.mark.parametrize("seed", range(3))
def test_expected_return_is_the_resolvents(seed):
    made = testbed.environment("garnet", discount=0.9, horizon=7, seed=seed)
    value = expected_return(made.process, made.target)
    np.testing.assert_allclose(value, resolvent_return(made.process, made.target, 7), rtol=1e-10)
    assert abs(value - resolvent_return(made.process, made.target, 6)) > 1e-6  # a horizon off by one is noticed


@pytest.mark.parametrize("branching", [1, 3, 6])
def test_every_action_has_exactly_the_asked_for_successors(branching):
    process = testbed.environment("garnet", branching=branching).process
    assert ((process.transition > 0).sum(axis=2) == branching).all()


def test_probabilities_are_pieces_of_the_unit_interval():
    # The largest of two pieces cut by one uniform point has mean 3/4 and variance 1/48.
    process = testbed.environment("garnet", states=40, actions=5, horizon=1).process
    largest = process.transition.max(axis=2).ravel()
    z = (largest.mean() - 3 / 4) / np.sqrt(1 / 48 / largest.size)
    assert abs(z) < 3.3  # two-sided false-alarm rate 0.1 %; the seed is fixed
    assert abs((largest.mean() - 2 / 3) / np.sqrt(1 / 48 / largest.size)) > 3.3


def test_seeds_differ_and_repeat():
    one, again, two = (testbed.environment("garnet", seed=seed).process.reward for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, two)
