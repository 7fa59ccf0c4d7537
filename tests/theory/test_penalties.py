"""KL penalties against plain loops, finite differences of a loss with frozen sampling, and PyTorch's autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import theory
from tests import brute_force
from tests.instances import instances, random_instance
from tests.theory.weights import twins
from tests.theory.weights.variants import VARIANTS

K = ("k1", "k2", "k3")
ATTACHED = ("none", "token", "prefix", "sequence")


def reference_of(target, seed=7, spread=0.8):
    return theory.SoftmaxPolicy(target.logits + spread * np.random.default_rng(seed).normal(size=target.logits.shape))


def three(seed=0, **options):
    """Process, target, reference, behaviour."""
    process, target, behaviour = random_instance(seed, **{"S": 3, "A": 3, "T": 3, "drift": 0.7, **options})
    return process, target, reference_of(target), behaviour


def k_of(name, log_r):
    return {"k1": -log_r, "k2": 0.5 * log_r**2, "k3": math.exp(log_r) - 1.0 - log_r}[name]


def plain(policies, estimator, weight):
    """(probability, states, actions, k, c) of every trajectory."""
    process, target, reference, behaviour = policies
    for tau in brute_force.trajectories(process, behaviour):
        log_r = brute_force.log_ratios(tau, reference, target)
        c = brute_force.coefficients(process, target, behaviour, weight, [1.0] * tau.length, tau)
        yield tau.probability, tau.states, tau.actions, [k_of(estimator, x) for x in log_r], c


def plain_value(policies, estimator, weight):
    draws = [(p, sum(x * y for x, y in zip(c, k, strict=True))) for p, _, _, k, c in plain(policies, estimator, weight)]
    mean = sum(p * x for p, x in draws)
    return mean, sum(p * x * x for p, x in draws) - mean**2


def plain_reward(policies, estimator, weight):
    target = policies[1]
    mean, second = np.zeros(target.parameter_count), 0.0
    for p, s, a, k, c in plain(policies, estimator, weight):
        x = sum((c[t] * sum(k[t:]) * target.score[s[t], a[t]] for t in range(len(a))), np.zeros_like(mean))
        mean, second = mean + p * x, second + p * float(x @ x)
    return mean, second - float(mean @ mean)


def plain_loss(policies, estimator, weight, detach, parameters):
    """The expected loss at other parameters: trajectories keep their probability, detached weights their value."""
    process, target, reference, behaviour = policies
    moved = target.with_parameters(parameters)
    total = 0.0
    for tau in brute_force.trajectories(process, behaviour):
        k = [k_of(estimator, x) for x in brute_force.log_ratios(tau, reference, moved)]
        ratio = brute_force.log_ratios(tau, target if detach else moved, behaviour)
        c = twins.coefficients(theory.weight(weight), ratio, [1.0] * tau.length)
        total += tau.probability * sum(x * y for x, y in zip(c, k, strict=True))
    return total


def by_autograd(policies, estimator, weight, detach):
    """Mean and variance of the gradient of one trajectory's loss, as a training loop would get it."""
    process, target, reference, behaviour = policies
    theta = torch.tensor(np.array(target.parameters), requires_grad=True)
    log_ref, log_mu = (torch.tensor(np.array(p.log_probabilities)) for p in (reference, behaviour))
    mean, second = np.zeros(target.parameter_count), 0.0
    for tau in brute_force.trajectories(process, behaviour):
        if not tau.length:
            continue
        log_pi = torch.log_softmax(theta.reshape(target.logits.shape), dim=1)
        at = (torch.tensor(tau.states[: tau.length]), torch.tensor(tau.actions))
        log_r, log_ratio = log_ref[at] - log_pi[at], log_pi[at] - log_mu[at]
        log_ratio = log_ratio.detach() if detach else log_ratio
        k = {"k1": -log_r, "k2": log_r**2 / 2, "k3": log_r.exp() - 1 - log_r}[estimator]
        c = {
            "none": torch.ones_like(k), "token": log_ratio.exp(), "prefix": log_ratio.cumsum(0).exp(),
            "sequence": log_ratio.sum().exp(),
        }[weight]  # fmt: skip
        (x,) = torch.autograd.grad((c * k).sum(), theta)
        mean, second = mean + tau.probability * x.numpy(), second + tau.probability * float(x @ x)
    return mean, second - float(mean @ mean)


@pytest.mark.parametrize("estimator", K)
@pytest.mark.parametrize("weight", ["none", "token", "prefix", "sequence", "minpro", "truncated", "geometric"])
def test_values_and_penalties_in_the_reward_are_what_plain_loops_give(estimator, weight):
    policies = three()
    value, spread = plain_value(policies, estimator, weight)
    mean, variance = plain_reward(policies, estimator, weight)
    for engine in ("recursion", "enumeration"):
        fast = theory.kl_penalty(*policies, estimator, place="reward", weight=weight, engine=engine)
        assert fast.engine == engine
        assert fast.value == pytest.approx(value, rel=1e-12)
        assert fast.value_variance == pytest.approx(spread, rel=1e-10)
        np.testing.assert_allclose(fast.mean, mean, rtol=1e-11, atol=1e-14)
        assert fast.variance == pytest.approx(variance, rel=1e-10)
    other = plain_value(policies, {"k1": "k2", "k2": "k3", "k3": "k1"}[estimator], weight)
    assert abs(other[1] / spread - 1.0) > 1e-3


@pytest.mark.parametrize("estimator", K)
@pytest.mark.parametrize("weight", ATTACHED)
@pytest.mark.parametrize("detach", [True, False])
def test_penalties_in_the_loss_are_what_autograd_gives(estimator, weight, detach):
    policies = three(S=2, A=2, absorbing=False)
    mean, variance = by_autograd(policies, estimator, weight, detach)
    for engine in ("auto", "enumeration") if weight == "prefix" and not detach else ("recursion", "enumeration"):
        fast = theory.kl_penalty(*policies, estimator, weight=weight, detach_weight=detach, engine=engine)
        np.testing.assert_allclose(fast.mean, mean, rtol=1e-11, atol=1e-14)
        assert fast.variance == pytest.approx(variance, rel=1e-10)
    other = theory.kl_penalty(*policies, estimator, weight=weight, detach_weight=not detach)
    assert (np.abs(other.mean - mean).max() > 1e-3) == (weight != "none")


@pytest.mark.parametrize(("weight", "detach"), [("none", True), ("minpro", True), ("token", False), ("prefix", False)])
@pytest.mark.parametrize("estimator", K)
def test_the_mean_is_the_slope_of_the_expected_loss_under_frozen_sampling(estimator, weight, detach):
    policies = three(features=3)
    theta, step = policies[1].parameters, 1e-5
    slope = [
        plain_loss(policies, estimator, weight, detach, theta + step * e)
        - plain_loss(policies, estimator, weight, detach, theta - step * e)
        for e in np.eye(3)
    ]
    fast = theory.kl_penalty(*policies, estimator, weight=weight, detach_weight=detach)
    np.testing.assert_allclose(fast.mean, np.array(slope) / (2 * step), rtol=1e-6, atol=1e-8)


def slope_of_kl(process, target, reference, states):
    """Central differences of the sequence's KL ("both"), or of the KL at states whose visits are frozen."""

    def kl(parameters):
        pi = target.with_parameters(parameters)
        if states is None:
            return theory.divergences(process, pi, reference, moves=0).sequence.kl_target_behaviour
        first, second = (reference, pi) if states[1] else (pi, reference)
        d = theory.values(process, states[0]).occupancy[:-1].sum(axis=0) * ~process.absorbing
        p = first.probabilities
        return d @ (p * (np.log(p) - np.log(second.probabilities))).sum(axis=1)

    theta, step = target.parameters, 1e-5
    return np.array([kl(theta + step * e) - kl(theta - step * e) for e in np.eye(theta.size)]) / (2 * step)


def test_the_truths_are_slopes_of_the_divergences():
    process, target, reference, behaviour = three(features=3)
    k = theory.kl_penalty(process, target, reference, behaviour)
    expected = {
        "sequence": None, "target_states": (target, False), "behaviour_states": (behaviour, False),
        "reversed_target_states": (target, True), "reversed_behaviour_states": (behaviour, True),
    }  # fmt: skip
    assert set(expected) == set(k.gradients)
    for name, states in expected.items():
        truth = slope_of_kl(process, target, reference, states)
        np.testing.assert_allclose(k.gradients[name], truth, rtol=1e-6, atol=1e-8)
        others = [x for other, x in k.gradients.items() if other != name]
        assert all(np.linalg.norm(x - truth) > 1e-3 * np.linalg.norm(truth) for x in others)
    exact = theory.divergences(process, target, reference).sequence.kl_target_behaviour
    assert k.kl == pytest.approx(exact, rel=1e-12)
    assert k.expected_length == pytest.approx(theory.divergences(process, target, behaviour).expected_length)
    assert abs(k.kl_at_behaviour_states / k.kl - 1.0) > 1e-3


SETTINGS = {
    ("none", True, "loss"), ("token", True, "loss"), ("prefix", True, "loss"), ("sequence", True, "loss"),
    ("token", False, "loss"), ("prefix", False, "loss"), ("sequence", False, "loss"),
    ("none", True, "reward"), ("token", True, "reward"), ("prefix", True, "reward"), ("sequence", True, "reward"),
}  # fmt: skip
OFF_POLICY = {
    ("k2", "token", True, "loss"): {"behaviour_states"},
    ("k2", "prefix", True, "loss"): {"target_states"},
    ("k2", "sequence", True, "loss"): {"target_states"},
    ("k3", "token", True, "loss"): {"reversed_behaviour_states"},
    ("k3", "prefix", True, "loss"): {"reversed_target_states"},
    ("k3", "sequence", True, "loss"): {"reversed_target_states"},
    ("k1", "token", False, "loss"): {"behaviour_states"},
    ("k3", "token", False, "loss"): {"behaviour_states"},
    ("k1", "prefix", False, "loss"): {"sequence"},
    ("k3", "prefix", False, "loss"): {"sequence"},
    ("k1", "sequence", False, "loss"): {"sequence"},
    ("k3", "sequence", False, "loss"): {"sequence"},
    ("k1", "sequence", True, "reward"): {"sequence"},
}
FROZEN = {"target_states", "behaviour_states"}
ON_POLICY = {
    **{("k2", w, True, "loss"): FROZEN for w in ATTACHED},
    **{("k3", w, True, "loss"): {f"reversed_{x}" for x in FROZEN} for w in ATTACHED},
    **{(k, "token", False, "loss"): FROZEN for k in ("k1", "k3")},
    **{(k, w, False, "loss"): {"sequence"} for k in ("k1", "k3") for w in ("prefix", "sequence")},
    **{("k1", w, True, "reward"): {"sequence"} for w in ATTACHED},
}


@pytest.mark.parametrize("on_policy", [True, False])
def test_which_gradient_each_penalty_has_and_that_it_has_no_other(on_policy):
    process, target, reference, behaviour = three(S=4)
    mu = None if on_policy else behaviour
    for estimator in K:
        for weight, detach, place in SETTINGS:
            k = theory.kl_penalty(
                process, target, reference, mu, estimator, place=place, weight=weight, detach_weight=detach
            )
            equal = {name for name in k.gradients if k.relative_error(name) < 1e-11}
            different = {name for name in k.gradients if k.relative_error(name) > 1e-3}
            expected = (ON_POLICY if on_policy else OFF_POLICY).get((estimator, weight, detach, place), set())
            assert equal == expected, (estimator, weight, detach, place)
            assert different == set(k.gradients) - expected
            zero = estimator == "k1" and place == "loss" and detach and (on_policy or weight != "none")
            assert (np.abs(k.mean).max() < 1e-14) == np.isnan(k.cosine("sequence")) == zero


def test_off_policy_without_a_ratio_k1_in_the_loss_pushes_away_from_the_behaviour_and_knows_no_reference():
    process, target, reference, behaviour = three(features=3)
    k = theory.kl_penalty(process, target, reference, behaviour, "k1")
    # Minus the gradient of KL(mu || pi) at mu's states.
    np.testing.assert_allclose(k.mean, -slope_of_kl(process, target, behaviour, (behaviour, True)), rtol=1e-6)
    other = theory.kl_penalty(process, target, reference_of(target, seed=8), behaviour, "k1")
    np.testing.assert_array_equal(other.mean, k.mean)
    assert np.abs(k.mean).max() > 1e-2
    assert np.abs(theory.kl_penalty(process, target, reference, behaviour, "k2").mean - k.mean).max() > 1e-2


def test_in_the_reward_k3_lacks_exactly_what_it_gives_in_the_loss():
    process, target, reference, _ = three()
    for estimator, complete in (("k1", True), ("k3", True), ("k2", False)):
        parts = [
            theory.kl_penalty(process, target, reference, None, estimator, place=p).mean for p in ("reward", "loss")
        ]
        truth = theory.kl_penalty(process, target, reference).gradients["sequence"]
        assert (np.abs(sum(parts) - truth).max() < 1e-13) == complete


@given(instances(), st.sampled_from(K), st.booleans())
def test_values_are_unbiased_where_they_are_said_to_be(instance, estimator, on_policy):
    process, target, behaviour = instance
    reference = reference_of(target)
    mu = target if on_policy else behaviour
    for weight in ("token", "prefix", "sequence", *(["none"] if on_policy else [])):
        k = theory.kl_penalty(process, target, reference, mu, estimator, weight=weight)
        if estimator != "k2":
            truth = k.kl_at_behaviour_states if weight == "token" else k.kl
            assert k.value == pytest.approx(truth, rel=1e-9, abs=1e-12)
        value, spread = plain_value((process, target, reference, mu), estimator, weight)
        assert k.value == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert k.value_variance == pytest.approx(spread, rel=1e-8, abs=1e-10)


def test_k2_and_off_policy_values_without_a_ratio_are_biased():
    policies = three()
    assert abs(theory.kl_penalty(*policies[:3], None, "k2").value_bias) > 1e-4
    for estimator in K:
        k = theory.kl_penalty(*policies, estimator)
        assert min(abs(k.value - k.kl), abs(k.value - k.kl_at_behaviour_states)) > 1e-3
        on_policy = theory.kl_penalty(*policies[:3], None, estimator)
        assert (abs(on_policy.value_bias) < 1e-14) == (estimator != "k2")


@settings(max_examples=30)
@given(instances(max_horizon=2), st.sampled_from(K), st.sampled_from(ATTACHED), st.booleans())
def test_both_engines_agree_on_any_instance(instance, estimator, weight, detach):
    process, target, behaviour = instance
    policies = (process, target, reference_of(target), behaviour)
    by_tree = theory.kl_penalty(*policies, estimator, weight=weight, detach_weight=detach, engine="enumeration")
    if weight != "prefix" or detach:
        fast = theory.kl_penalty(*policies, estimator, weight=weight, detach_weight=detach, engine="recursion")
        np.testing.assert_allclose(fast.mean, by_tree.mean, rtol=1e-10, atol=1e-12)
        assert fast.variance == pytest.approx(by_tree.variance, rel=1e-9, abs=1e-10)


@settings(max_examples=30)
@given(instances(max_horizon=2, features=False), st.sampled_from(K), st.sampled_from(ATTACHED), st.booleans())
def test_autograd_agrees_on_any_tabular_instance(instance, estimator, weight, detach):
    process, target, behaviour = instance
    policies = (process, target, reference_of(target), behaviour)
    fast = theory.kl_penalty(*policies, estimator, weight=weight, detach_weight=detach)
    mean, variance = by_autograd(policies, estimator, weight, detach)
    np.testing.assert_allclose(fast.mean, mean, rtol=1e-10, atol=1e-12)
    assert fast.variance == pytest.approx(variance, rel=1e-9, abs=1e-10)


def test_k3_with_the_ratio_attached_is_k2_with_it_detached_for_every_trajectory():
    policies = three()
    k3 = theory.kl_penalty(*policies, "k3", weight="token", detach_weight=False)
    k2 = theory.kl_penalty(*policies, "k2", weight="token")
    k1 = theory.kl_penalty(*policies, "k1", weight="token", detach_weight=False)
    np.testing.assert_allclose(k3.mean, k2.mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(k3.mean, k1.mean, rtol=1e-11, atol=1e-15)
    assert k3.variance == pytest.approx(k2.variance, rel=1e-12)
    assert k1.variance > 1.1 * k3.variance  # the same mean, from other trajectories


def test_lost_support_of_the_target_and_of_the_reference():
    process, target, reference, behaviour = three()

    def without(policy, a):
        return theory.SoftmaxPolicy(np.where(np.arange(3) == a, -np.inf, policy.logits))

    with pytest.raises(ValueError, match="reference gives action 0 of state 0 probability 0"):
        theory.kl_penalty(process, target, without(reference, 0), behaviour)
    with pytest.raises(ValueError, match="target gives action 1 of state 0 probability 0"):
        theory.kl_penalty(process, without(target, 1), reference, behaviour)
    with pytest.raises(ValueError, match="support"):
        theory.kl_penalty(process, target, reference, without(behaviour, 1))
    # On policy a smaller support of pi is allowed: k1 stays unbiased, k3 misses the mass that pi cannot see.
    k1, k3 = (theory.kl_penalty(process, without(target, 1), reference, None, k) for k in ("k1", "k3"))
    assert k1.value == pytest.approx(k1.kl, rel=1e-12)
    assert k3.value < k3.kl - 1e-2
    assert np.isnan(k1.gradients["reversed_target_states"]).all()
    assert np.isfinite(k1.gradients["target_states"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "k4"}, "unknown estimator"),
        ({"place": "los"}, "nearest known name is 'loss'"),
        ({"engine": "sampling"}, "unknown engine"),
        ({"weight": "ppo_clip"}, "a penalty has none"),
        ({"weight": "minpro", "detach_weight": False}, "detach_weight=False takes one of"),
        ({"place": "reward", "detach_weight": False}, "in the reward a weight is a constant"),
        ({"weight": "prefix", "detach_weight": False, "engine": "recursion"}, "mixes two scores"),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        theory.kl_penalty(*three(T=2), **arguments)
    with pytest.raises(ValueError, match="nearest known name is 'sequence'"):
        theory.kl_penalty(*three(T=2)).bias("sequnce")


# What the exact engines compute from the policies alone: a penalty knows no third policy and no lag.
FROM_THE_POLICIES = set(theory.NEEDS) - {"old_log_ratio", "lag"}


@pytest.mark.parametrize(
    "weight",
    [w for w in VARIANTS if not w.uses_advantage and FROM_THE_POLICIES.issuperset(w.needs)],
    ids=lambda w: w.label,
)
def test_every_weight_without_a_sign_is_taken(weight):
    policies = three(T=2)
    k = theory.kl_penalty(*policies, weight=weight)
    assert k.value == pytest.approx(plain_value(policies, "k3", weight)[0], rel=1e-12)


def test_a_long_horizon_is_answered_by_the_recursion():
    process, target, reference, behaviour = three(T=300, absorbing=False, drift=0.05)
    k = theory.kl_penalty(process, target, reference, behaviour, "k3", weight="token", detach_weight=False)
    assert k.engine == "recursion"
    assert k.relative_error("behaviour_states") < 1e-11
    assert k.cosine("behaviour_states") == pytest.approx(1.0, abs=1e-12)
    assert k.relative_error("sequence") > 1e-3
