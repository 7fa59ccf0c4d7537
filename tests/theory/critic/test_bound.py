"""The efficiency bound: its forward recursion against the methods that attain it, brute force and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import testbed
import theory
from tests import brute_force
from tests.instances import instances, random_instance
from tests.theory.critic import plain
from tests.theory.critic.test_moments import WITH_GRADIENT, wrong_tables

ATTAINS = {"history": "doubly_robust", "markov": "marginal"}
CONTROLS = ["per_decision", "state_baseline", "action_baseline", "trajectory_baseline", "doubly_robust"]


def by_trajectories(process, target, behaviour):
    """Var[dV_0] + sum over j of E[Var(d{C_{j-1} (r_{j-1} + discount v_j)} | s_0 .. s_{j-1}, a_{j-1})], by dictionaries.

    The variance given the past and the action, from the trajectories that share them.
    """
    v, P = theory.values(process, target).state_value, target.parameter_count
    dv = plain.expected(
        target,
        plain.with_score(target, theory.values(process, target).action_value)
        + theory.action_value_gradient(process, target),
    )
    dv[:, process.absorbing] = 0.0
    dv = np.concatenate([dv, np.zeros((1, *dv.shape[1:]))])
    sums = {}
    for trajectory in brute_force.trajectories(process, behaviour):
        steps = plain.steps_of(process, target, behaviour, trajectory, v, dv)
        for t, _, _, r, _, C, _, Z, v_, dv_ in steps:
            x = process.discount**t * C * (Z * (r + process.discount * v_) + process.discount * dv_)
            past = trajectory.states[: t + 1], trajectory.actions[: t + 1]
            old = sums.setdefault(past, [0.0, np.zeros(P), 0.0])
            sums[past] = [
                old[0] + trajectory.probability,
                old[1] + trajectory.probability * x,
                old[2] + trajectory.probability * float(x @ x),
            ]
    steps = np.zeros(process.horizon)
    for (states, _), (p, mean, second) in sums.items():
        steps[len(states) - 1] += second - float(mean @ mean) / p
    start = process.initial @ dv[0]
    return float(process.initial @ ((dv[0] - start) ** 2).sum(axis=1)), steps


@given(instances())
def test_against_conditional_variances_over_every_trajectory(instance):
    bound = theory.efficiency_bound(*instance)
    start, steps = by_trajectories(*instance)
    size = 1.0 + theory.critic_moments(*instance, "per_decision").variance
    assert abs(bound.start - start) <= 1e-11 * size
    np.testing.assert_allclose(bound.steps, steps, rtol=0, atol=1e-10 * size)


@given(instances(), st.sampled_from(sorted(ATTAINS)))
def test_it_is_attained_with_exact_critics(instance, model):
    bound = theory.efficiency_bound(*instance, model)
    found = theory.critic_moments(*instance, ATTAINS[model], "target")
    assert found.variance == pytest.approx(bound.variance, rel=1e-10, abs=1e-13)


def test_only_by_exact_critics_with_their_gradient():
    instance = random_instance(1)
    bound = theory.efficiency_bound(*instance).variance
    for critic, gradient in (("target", "zero"), ("behaviour", "exact"), ("zero", "zero")):
        assert theory.critic_moments(*instance, "doubly_robust", critic, gradient).variance > 1.01 * bound
    swapped = instance.process, instance.behaviour, instance.target
    assert abs(theory.efficiency_bound(*swapped).variance - bound) > 0.1 * bound


@given(instances(), st.sampled_from(CONTROLS), st.integers(0, 5))
def test_no_control_variate_is_below_that_of_histories(instance, method, seed):
    # A control variate is noise of the actions, uncorrelated with that of rewards and transitions: it only adds.
    q, dq, _ = wrong_tables(instance, seed)
    gradient = {"critic_gradient": dq} if method in WITH_GRADIENT else {}
    found = theory.critic_moments(*instance, method, q, **gradient).variance
    assert found >= theory.efficiency_bound(*instance).variance - 1e-10 * (1.0 + found)


@given(instances())
def test_that_of_the_markov_model_is_never_above_that_of_histories(instance):
    history, markov = (theory.efficiency_bound(*instance, model).variance for model in ("history", "markov"))
    assert markov <= history + 1e-10 * (1.0 + history)


def test_merged_states_make_the_difference_and_trees_none():
    merged = random_instance(1)
    history, markov = (theory.efficiency_bound(*merged, model).variance for model in ("history", "markov"))
    assert markov < 0.7 * history
    tree = noisy_tree()
    history, markov = (theory.efficiency_bound(*tree, model) for model in ("history", "markov"))
    assert history.variance == pytest.approx(markov.variance, rel=1e-12)
    assert history.variance > 1e-3


def noisy_tree(noise=0.3):
    """Two tokens; after the second the answer is right or wrong by chance: states 0, 1-2, 3-6, then 7 and 8."""
    rng = np.random.default_rng(0)
    transition = np.zeros((9, 2, 9))
    for s in range(3):
        transition[s, 0, 2 * s + 1] = transition[s, 1, 2 * s + 2] = 1.0
    for s in range(3, 7):
        right = (rng.uniform(size=2) > 0.5) * (1.0 - noise) + noise / 2.0
        transition[s, :, 7], transition[s, :, 8] = right, 1.0 - right
    transition[7:, :, 7] = 1.0
    process = theory.MarkovProcess(
        np.eye(9)[0], transition, np.zeros((9, 2)), 3, terminal_reward=np.eye(9)[7], absorbing=np.arange(9) >= 7
    )
    target = theory.SoftmaxPolicy(rng.normal(size=(9, 2)))
    return process, target, theory.SoftmaxPolicy(target.logits + rng.normal(size=(9, 2)))


def test_knowing_the_occupancy_ratios_is_more_than_any_data_tells():
    # The bound is for those who do not know the transitions; `marginal` is told w, and may be below it.
    instance = random_instance(0)
    bound = theory.efficiency_bound(*instance, "markov").variance
    assert theory.critic_moments(*instance, "marginal", "behaviour").variance < 0.97 * bound


@pytest.mark.parametrize("name", ["parity", "digit_addition", "brackets"])
def test_it_is_zero_for_a_fixed_prompt_and_a_deterministic_verifier(name):
    process = testbed.environment(name).process
    rng = np.random.default_rng(0)
    target = theory.SoftmaxPolicy(rng.normal(size=(process.states, process.actions)))
    behaviour = theory.SoftmaxPolicy(target.logits + rng.normal(size=target.logits.shape))
    start = int(np.argmax(process.initial))
    fixed = theory.MarkovProcess(
        np.eye(process.states)[start], process.transition, process.reward, process.horizon, process.terminal_reward,
        process.absorbing, process.discount,
    )  # fmt: skip
    size = theory.critic_moments(fixed, target, behaviour, "per_decision").variance
    assert size > 1e-6
    for model, method in ATTAINS.items():
        assert theory.efficiency_bound(fixed, target, behaviour, model).variance < 1e-25 * size
        assert theory.critic_moments(fixed, target, behaviour, method).variance < 1e-25 * size
        assert theory.critic_moments(fixed, target, behaviour, method, "behaviour").variance > 1e-4 * size


def test_of_many_prompts_what_is_left_is_between_them():
    process, target, behaviour = noisy_tree(noise=0.0)
    many = theory.MarkovProcess(
        np.eye(9)[[1, 2]].mean(axis=0), process.transition, process.reward, 3, process.terminal_reward,
        process.absorbing,
    )  # fmt: skip
    bound = theory.efficiency_bound(many, target, behaviour)
    gradients = [
        theory.policy_gradient(
            theory.MarkovProcess(
                np.eye(9)[s], many.transition, many.reward, 3, many.terminal_reward, many.absorbing
            ),
            target,
        )
        for s in (1, 2)
    ]  # fmt: skip
    assert bound.start == pytest.approx(float(((gradients[0] - gradients[1]) ** 2).sum()) / 4.0, rel=1e-12)
    assert bound.start > 1e-6
    assert bound.steps.sum() < 1e-25


def test_of_a_bandit_in_closed_form():
    # sum over a of pi^2 / mu |z(a)|^2 Var[r | a]: one step, rewards 0 or 1 with chance p_a.
    p, pi, mu = np.array([0.2, 0.9]), np.array([0.3, 0.7]), np.array([0.6, 0.4])
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1], transition[0, :, 2] = p, 1.0 - p
    transition[1:, :, 1] = 1.0
    process = theory.MarkovProcess(
        [1.0, 0.0, 0.0], transition, np.zeros((3, 2)), 1, terminal_reward=[0.0, 1.0, 0.0], absorbing=[False, True, True]
    )
    policies = [theory.SoftmaxPolicy(np.log([x, [0.5, 0.5], [0.5, 0.5]])) for x in (pi, mu)]
    squared_score = 2.0 * (1.0 - pi) ** 2
    expected = float((pi**2 / mu * squared_score * p * (1.0 - p)).sum())
    for model in ATTAINS:
        assert theory.efficiency_bound(process, *policies, model).variance == pytest.approx(expected, rel=1e-13)


def test_doors():
    instance = random_instance(0)
    with pytest.raises(ValueError, match="unknown model 'markow'; the nearest known name is 'markov'"):
        theory.efficiency_bound(*instance, "markow")
    lost = theory.SoftmaxPolicy(np.where(np.eye(4, 3) > 0, -np.inf, 0.0))
    with pytest.raises(ValueError, match="expected the target's support"):
        theory.efficiency_bound(instance.process, instance.target, lost)
