"""What the methods are in special cases, against engines and formulas that know nothing of critics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from tests.instances import instances, random_instance
from tests.theory.critic.test_moments import wrong_tables
from theory.critic import methods
from theory.critic.steps import Setting, conditional_moments
from theory.critic.tables import critic_tables
from theory.engines.trajectories import Walk
from theory.policy import ratios

CONTROLS = ["per_decision", "state_baseline", "action_baseline", "trajectory_baseline", "doubly_robust"]
INF = float("inf")


def assert_equal_moments(found, other, variance=True):
    size = np.sqrt(max(other.variance + other.mean @ other.mean, 1e-6))
    np.testing.assert_allclose(found.mean, other.mean, rtol=0, atol=1e-11 * size)
    if variance:
        assert abs(found.variance - other.variance) <= 1e-10 * size**2


def of_weight(instance, weight, signal, score="own"):
    return theory.moments(*instance, theory.Estimator(weight, signal, score))


@given(instances(), st.sampled_from(CONTROLS))
def test_without_a_critic_all_are_the_prefix_ratio_with_rewards(instance, method):
    reference = of_weight(instance, "prefix", "reward", "cumulative")
    assert_equal_moments(theory.critic_moments(*instance, method, "zero"), reference)


@given(instances(), st.sampled_from(["v_trace", "retrace"]), st.integers(0, 5))
def test_without_caps_traces_give_the_token_ratio_with_the_advantage_for_every_critic(instance, method, seed):
    q, _, _ = wrong_tables(instance, seed)
    found = theory.critic_moments(*instance, method, q, cap=INF, trace_cap=INF)
    assert_equal_moments(found, of_weight(instance, "token", "target_advantage"), variance=False)


@given(instances(), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.3, 1.0]))
def test_with_exact_values_acer_undoes_its_cap_and_retrace_its_traces(instance, cap, decay):
    reference = of_weight(instance, "token", "target_advantage")
    acer = theory.critic_moments(*instance, "acer", cap=cap, trace_decay=decay)
    assert_equal_moments(acer, reference, variance=False)
    assert_equal_moments(theory.critic_moments(*instance, "retrace", trace_decay=decay), reference, variance=False)


def test_that_acer_and_retrace_need_exact_values_for_it():
    instance = random_instance(1, drift=1.5)
    reference = of_weight(instance, "token", "target_advantage")
    q, _, _ = wrong_tables(instance)
    for method, critic, cap in (("acer", q, 0.5), ("retrace", q, INF), ("retrace", "target", 0.5)):
        found = theory.critic_moments(*instance, method, critic, cap=cap)
        assert np.linalg.norm(found.mean - reference.mean) > 1e-2 * np.linalg.norm(reference.mean)


@given(instances(same_policy=True), st.integers(0, 5))
def test_on_policy_v_trace_is_a_state_baseline(instance, seed):
    q, _, v = wrong_tables(instance, seed)
    assert_equal_moments(
        theory.critic_moments(*instance, "v_trace", v), theory.critic_moments(*instance, "state_baseline", q)
    )


@given(instances())
def test_on_policy_exact_values_are_the_known_baseline(instance):
    on_policy = instance._replace(behaviour=instance.target)
    estimator = theory.Estimator("none", theory.signal("reward_to_go", baseline="target_value"))
    assert_equal_moments(theory.critic_moments(*on_policy, "state_baseline"), theory.moments(*on_policy, estimator))


def expected_v_trace(process, target, behaviour, v, cap, trace_cap):
    """E[D_0 | s_0 = s]: v, and what is added to it."""
    walk, critic = Walk(process, behaviour), critic_tables(process, target, behaviour, v, False)
    setting = Setting(
        process, target, behaviour, ratios(target, behaviour), critic,
        lambda: iter([None] * process.horizon), walk, cap=cap, trace_cap=trace_cap,
    )  # fmt: skip
    steps = methods.METHODS["v_trace"](setting)
    return v[0] + conditional_moments(walk, steps, target.parameter_count).correction


@pytest.mark.parametrize("cap", [0.5, 1.0, 2.0, INF])
def test_the_fixed_point_of_v_trace_is_the_value_of_the_truncated_policy(cap):
    process, target, behaviour = random_instance(4, drift=1.5)
    weights = np.minimum(cap * behaviour.probabilities, target.probabilities)
    truncated = theory.SoftmaxPolicy(np.log(weights / weights.sum(axis=1, keepdims=True)))
    for trace_cap in (0.3, 1.0):
        v = theory.values(process, truncated).state_value
        found = expected_v_trace(process, target, behaviour, v, cap, trace_cap)
        np.testing.assert_allclose(found, v[0], rtol=0, atol=1e-12)
        if cap < INF:
            v = theory.values(process, target).state_value
            found = expected_v_trace(process, target, behaviour, v, cap, trace_cap)
            assert np.abs(found - v[0]).max() > 1e-3


@given(instances())
def test_the_gradient_of_action_values(instance):
    process, target, _ = instance
    found, step = theory.action_value_gradient(process, target), 1e-4
    size = np.abs(theory.values(process, target).action_value).max() + 1.0
    for i in range(target.parameter_count):
        move = step * np.eye(target.parameter_count)[i]
        high, low = (
            theory.values(process, target.with_parameters(target.parameters + sign * move)).action_value
            for sign in (1.0, -1.0)
        )
        np.testing.assert_allclose(found[..., i], (high - low) / (2.0 * step), rtol=0, atol=1e-6 * size)


def test_the_gradient_of_action_values_leads_to_the_policy_gradient():
    process, target, _ = random_instance(2)
    gradient, values = theory.action_value_gradient(process, target), theory.values(process, target)
    inner = target.score * values.action_value[0][..., None] + gradient[0]
    start = np.where(process.absorbing, 0.0, process.initial)
    found = np.einsum("s,sa,sap->p", start, target.probabilities, inner)
    np.testing.assert_allclose(found, theory.policy_gradient(process, target), rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_a_better_critic_helps(seed):
    instance = random_instance(seed, discount=1.0)
    none = theory.critic_moments(*instance, "doubly_robust", "zero").variance
    exact = theory.critic_moments(*instance, "doubly_robust").variance
    assert exact < 0.9 * none
    wrong = [theory.noisy_critic(instance.process, instance.target, e) for e in (0.0, 0.01, 0.1, 1.0, 10.0)]
    variances = [theory.critic_moments(*instance, "doubly_robust", q, critic_gradient="exact").variance for q in wrong]
    assert variances[0] == pytest.approx(exact, rel=1e-12)
    assert variances == sorted(variances)
    assert variances[-1] > none


def test_the_error_of_a_noisy_critic():
    process, target, _ = random_instance(1)
    exact = theory.values(process, target).action_value
    off = theory.noisy_critic(process, target, 0.3, seed=5) - exact
    assert np.sqrt((off[:, ~process.absorbing] ** 2).mean()) == pytest.approx(0.3)
    assert (off[:, process.absorbing] == 0.0).all()
    assert np.abs(theory.noisy_critic(process, target, 0.3, seed=6) - exact - off).max() > 0.1
    assert (theory.noisy_critic(process, target, 0.0) == exact).all()
    with pytest.raises(ValueError, match="error is -1; expected a finite number of units of the return of at least 0"):
        theory.noisy_critic(process, target, -1)
