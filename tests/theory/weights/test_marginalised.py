"""Marginalised importance sampling: the prefix ratio in a token tree, less variance where prefixes meet."""

import numpy as np
import pytest

import theory
from tests import brute_force
from tests.instances import random_instance
from tests.theory.engines.comparing import ask, assert_same
from tests.theory.test_truths import token_tree


def along(instance, trajectory):
    """Coefficients of `marginalised` and of `prefix` along a trajectory."""
    log_ratio = np.array([brute_force.log_ratios(trajectory, instance.target, instance.behaviour)])
    state_ratio = np.array([brute_force.given(*instance, "state_ratio", trajectory)])
    return (
        theory.weight("marginalised").coefficients(log_ratio, state_ratio=state_ratio)[0],
        theory.weight("prefix").coefficients(log_ratio)[0],
    )


@pytest.mark.parametrize("signal", ["target_advantage", "behaviour_advantage", "outcome"])
def test_in_a_token_tree_it_is_the_prefix_ratio(signal):
    instance = token_tree(0, 0.7, V=2, T=4)
    for trajectory in brute_force.trajectories(instance.process, instance.behaviour):
        ours, prefix = along(instance, trajectory)
        np.testing.assert_allclose(ours, prefix, rtol=1e-12)
    for engine in ("recursion", "enumeration"):
        assert_same(ask(instance, "marginalised", signal, engine), ask(instance, "prefix", signal, engine))


def test_where_prefixes_meet_it_is_another_weight_of_less_variance():
    """Negative control of the tree: the same comparison fails where states are merged."""
    instance = random_instance(seed=0, S=3, A=2, T=4, absorbing=False)
    worst = max(
        np.abs(np.subtract(*along(instance, x))).max()
        for x in brute_force.trajectories(instance.process, instance.behaviour)
    )
    assert worst > 0.1
    marginal, prefix = (ask(instance, w, "target_advantage", "recursion") for w in ("marginalised", "prefix"))
    g = theory.policy_gradient(*instance[:2])
    for m in (marginal, prefix):
        np.testing.assert_allclose(m.mean, g, rtol=1e-10, atol=1e-13)
    assert marginal.variance < 0.95 * prefix.variance


def test_it_is_the_mean_of_the_prefix_ratio_given_the_state_and_the_action():
    """E_mu[P_t | s_t] is the state's ratio: the same expectation for whatever depends on state and action alone."""
    instance = random_instance(seed=1, S=3, A=2, T=3)
    total = {}
    for x in brute_force.trajectories(instance.process, instance.behaviour):
        ours, prefix = along(instance, x)
        for t, s in enumerate(x.states[: x.length]):
            for kind, c in (("ours", ours), ("prefix", prefix)):
                key = (t, s, x.actions[t], kind)
                total[key] = total.get(key, 0.0) + x.probability * c[t]
    for (t, s, a, kind), value in total.items():
        assert value == pytest.approx(total[t, s, a, "prefix"], rel=1e-12), kind
