"""Policies that are far apart, or that lack actions: finite where float64 holds the answer."""

import numpy as np
import pytest

import theory
from tests.instances import random_instance
from tests.theory.critic import plain
from tests.theory.critic.test_moments import METHODS, ask, assert_same, wrong_tables

MODELS = ("history", "markov")


def coin(T, log_mu):
    """One state, two actions, the first pays 1: the target tosses a fair coin, mu has exp(log_mu) for the first."""
    process = theory.MarkovProcess([1.0], np.ones((1, 2, 1)), [[1.0, 0.0]], T)
    return process, theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy([[log_mu, 0.0]])


@pytest.mark.parametrize("log_mu", [-1.0, -400.0, -600.0])
def test_a_coin_in_closed_form(log_mu):
    # pi^2 / mu |z|^2 r^2 - |g|^2, with |z|^2 = 1/2 and g = (1/4, -1/4); the square of the ratio is beyond float64.
    instance = coin(1, log_mu)
    expected = 0.25 * (np.exp(-log_mu) + 1.0) * 0.5 - 0.125
    for engine in ("recursion", "enumeration"):
        found = theory.critic_moments(*instance, "per_decision", engine=engine)
        assert found.mean.tolist() == pytest.approx([0.25, -0.25], rel=1e-12)
        assert found.variance == pytest.approx(expected, rel=1e-12)
        assert np.trace(found.covariance) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("log_mu", [-1.0, -400.0, -600.0])
@pytest.mark.parametrize("model", MODELS)
def test_the_bound_of_a_coin_in_closed_form(log_mu, model):
    # The first action wins with chance 1/2: pi^2 / mu |z|^2 Var[r].
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1:], transition[0, 1, 2], transition[1:, :, 2] = 0.5, 1.0, 1.0
    process = theory.MarkovProcess(
        np.eye(3)[0], transition, np.zeros((3, 2)), 1, terminal_reward=[0.0, 1.0, 0.0], absorbing=[False, True, True]
    )
    target, behaviour = np.zeros((3, 2)), np.zeros((3, 2))
    behaviour[0, 0] = log_mu
    found = theory.efficiency_bound(process, theory.SoftmaxPolicy(target), theory.SoftmaxPolicy(behaviour), model)
    assert found.variance == pytest.approx(0.25 * (np.exp(-log_mu) + 1.0) * 0.5 * 0.25, rel=1e-12)


def test_products_of_ratios_beyond_float64():
    instance = coin(3, -600.0)
    found = theory.critic_moments(*instance, "per_decision")
    assert found.mean.tolist() == pytest.approx([0.75, -0.75], rel=1e-12)
    assert found.variance == np.inf
    with pytest.raises(ValueError, match="the covariance is beyond float64"):
        _ = found.covariance
    with pytest.raises(ValueError, match="the covariance is beyond float64"):
        _ = theory.critic_moments(*instance, "per_decision", covariance=True).covariance
    with pytest.raises(ValueError, match="the estimator of a trajectory is beyond float64; expected policies that are"):
        theory.critic_moments(*instance, "per_decision", engine="enumeration")
    # An exact critic leaves nothing to be multiplied, and caps nothing to be large.
    for engine in ("recursion", "enumeration"):
        assert theory.critic_moments(*instance, engine=engine).variance < 1e-30
        assert np.isfinite(theory.critic_moments(*instance, "v_trace", engine=engine).variance)


@pytest.mark.parametrize("engine", ["enumeration", "sampling"])
def test_squares_beyond_float64_are_infinite(engine):
    # Values are held, their squares are not.
    instance = coin(2, -1.0)
    q = np.full((2, 1, 2), 1e200)
    q[:, :, 1] = -1e200
    found = theory.critic_moments(*instance, "action_baseline", q, engine=engine, trajectories=100, covariance=True)
    assert np.isfinite(found.mean).all()
    assert found.variance == np.inf
    with pytest.raises(ValueError, match="the covariance is beyond float64"):
        _ = found.covariance


def test_a_mean_beyond_float64_is_refused():
    _, target, behaviour = coin(1, -695.0)
    rich = theory.MarkovProcess([1.0], np.ones((1, 2, 1)), [[1e10, 0.0]], 1)
    with pytest.raises(ValueError, match="the mean is beyond float64; expected policies that are closer, or rewards"):
        theory.critic_moments(rich, target, behaviour, "per_decision")


@pytest.mark.parametrize("model", MODELS)
def test_the_bound_is_finite_infinite_or_refused_but_not_undefined(model):
    process, target, behaviour = random_instance(1)
    for drop in (100.0, 200.0, 400.0, 650.0):
        logits = behaviour.logits.copy()
        logits[0, 1] -= drop
        steps = theory.efficiency_bound(process, target, theory.SoftmaxPolicy(logits), model).steps
        assert not np.isnan(steps).any()
        assert steps[0] > np.exp(drop - 20.0)
        assert np.isinf(steps).any() == (model == "history" and 4 * drop > 700.0)
    logits[0, 1] -= 60.0
    with pytest.raises(ValueError, match="a ratio is beyond float64, its logarithm is 7"):
        theory.efficiency_bound(process, target, theory.SoftmaxPolicy(logits), model)


def test_an_action_that_mu_never_needs_may_be_as_rare_as_it_likes():
    # State 1 is entered by nothing: what happens there is far beyond float64, and none of it counts.
    transition = np.zeros((2, 2, 2))
    transition[:, :, 0], transition[1] = 1.0, [[0.0, 1.0], [0.0, 1.0]]
    reward = np.array([[1.0, 0.0], [1.0, 0.0]])
    process = theory.MarkovProcess([1.0, 0.0], transition, reward, 3)
    target, near = theory.SoftmaxPolicy(np.zeros((2, 2))), theory.SoftmaxPolicy([[0.5, 0.0], [0.0, 0.0]])
    far = theory.SoftmaxPolicy([[0.5, 0.0], [-600.0, 0.0]])
    for method in METHODS:
        found, expected = (theory.critic_moments(process, target, mu, method) for mu in (far, near))
        assert found.variance == expected.variance < np.inf
    for model in MODELS:
        found, expected = (theory.efficiency_bound(process, target, mu, model).steps for mu in (far, near))
        np.testing.assert_array_equal(found, expected)


def test_an_action_that_the_target_lacks_may_lead_where_variances_are_infinite():
    # Action 1 of state 0 leads to state 1, which is as above; its ratio is zero.
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, 0, 1] = transition[1, 1, 1] = 1.0
    process = theory.MarkovProcess([1.0, 0.0], transition, [[1.0, 2.0], [1.0, 0.0]], 3)
    target = theory.SoftmaxPolicy([[0.0, -np.inf], [0.0, 0.0]])
    found = theory.critic_moments(process, target, theory.SoftmaxPolicy([[0.0, 0.0], [-600.0, 0.0]]), "per_decision")
    near = theory.critic_moments(process, target, theory.SoftmaxPolicy([[0.0, 0.0], [0.0, 0.0]]), "per_decision")
    np.testing.assert_array_equal(found.mean, near.mean)
    assert found.variance == near.variance < np.inf
    assert theory.critic_moments(
        process, theory.SoftmaxPolicy(np.zeros((2, 2))), theory.SoftmaxPolicy([[0.0, 0.0], [-600.0, 0.0]]),
        "per_decision",
    ).variance == np.inf  # fmt: skip


def test_occupancies_below_float64_are_refused():
    # mu comes to state 2 with probability exp(-1200), the target with 1/4.
    transition = np.zeros((3, 2, 3))
    for s in range(3):
        transition[s, 0, min(s + 1, 2)] = transition[s, 1, 0] = 1.0
    process = theory.MarkovProcess(np.eye(3)[0], transition, np.ones((3, 2)), 3)
    target, behaviour = theory.SoftmaxPolicy(np.zeros((3, 2))), np.zeros((3, 2))
    behaviour[:2, 0] = -600.0
    for ask_it in (
        lambda mu: theory.critic_moments(process, target, mu, "marginal"),
        lambda mu: theory.efficiency_bound(process, target, mu, "markov"),
    ):
        with pytest.raises(ValueError, match="a ratio of state occupancies is beyond float64"):
            ask_it(theory.SoftmaxPolicy(behaviour))
        behaviour[1, 0] = 0.0
        ask_it(theory.SoftmaxPolicy(behaviour))
        behaviour[1, 0] = -600.0


def test_a_transition_that_is_lost_to_rounding_is_refused():
    process = theory.MarkovProcess([1.0, 0.0], [[[1.0, 1e-100], [1.0, 0.0]]] * 2, np.ones((2, 2)), 2)
    target, behaviour = theory.SoftmaxPolicy(np.zeros((2, 2))), theory.SoftmaxPolicy([[-600.0, 0.0], [0.0, 0.0]])
    for f in (theory.critic_moments, theory.efficiency_bound):
        with pytest.raises(ValueError, match="the chance of a transition under behaviour is beyond float64"):
            f(process, target, behaviour)


def without(policy, s, a):
    logits = policy.logits.copy()
    logits[s, a] = -np.inf
    return theory.SoftmaxPolicy(logits)


@pytest.mark.parametrize("method", METHODS)
def test_a_target_that_lacks_actions(method):
    process, target, behaviour = random_instance(4, S=3, A=2, T=3)
    instance = process, without(target, 0, 1), behaviour
    q, dq, v = wrong_tables(random_instance(4, S=3, A=2, T=3))
    v = np.concatenate([plain.expected(instance[1], q), process.terminal_reward[None]])
    mean, outer = plain.moments(*instance, method, q, dq, v)
    for engine in ("recursion", "enumeration"):
        found = ask(instance, method, q, dq, engine)
        assert_same(found, mean, outer, found.covariance)
    with pytest.raises(AssertionError):
        assert_same(ask((process, target, behaviour), method, q, dq, "recursion"), mean, outer)


@pytest.mark.parametrize("model", MODELS)
def test_the_bound_of_a_target_that_lacks_actions(model):
    process, target, behaviour = random_instance(4, S=3, A=2, T=3)
    instance = process, without(target, 0, 1), behaviour
    method = {"history": "doubly_robust", "markov": "marginal"}[model]
    found = theory.critic_moments(*instance, method, engine="enumeration")
    assert theory.efficiency_bound(*instance, model).variance == pytest.approx(found.variance, rel=1e-10)


@pytest.mark.parametrize("cap", [0.0, 0.5, 1.0, 10.0, np.inf])
def test_acer_without_support_on_either_side(cap):
    process, target, behaviour = random_instance(1, S=3, A=3, T=3)
    for ours, theirs in ((without(target, 0, 1), behaviour), (target, without(behaviour, 0, 1))):
        instance = process, ours, theirs
        q, _, _ = wrong_tables(random_instance(1, S=3, A=3, T=3))
        v = np.concatenate([plain.expected(ours, q), process.terminal_reward[None]])
        options = {"cap": cap}
        if cap == np.inf:
            # No cap takes nothing away, and nothing is put back: not even where mu does not act.
            mean, outer = plain.moments(*instance, "retrace", q, None, v)
        else:
            mean, outer = plain.moments(*instance, "acer", q, None, v, **options)
        for engine in ("recursion", "enumeration"):
            found = theory.critic_moments(*instance, "acer", q, engine=engine, missing_support="allow", **options)
            assert_same(found, mean, outer)


def test_acer_without_support_is_the_limit_of_little_of_it():
    process, target, behaviour = random_instance(1)
    found = theory.critic_moments(process, target, without(behaviour, 0, 1), "acer", missing_support="allow")
    logits = behaviour.logits.copy()
    distances = []
    for log_mu in (-8.0, -16.0, -40.0):
        logits[0, 1] = log_mu
        near = theory.critic_moments(process, target, theory.SoftmaxPolicy(logits), "acer")
        distances.append(np.linalg.norm(near.mean - found.mean) + abs(near.variance - found.variance))
    assert distances[0] > 10.0 * distances[1] > 0.0
    assert distances[2] < 1e-12
    # The control: the same cap without the correction has another limit.
    capped = theory.critic_moments(process, target, theory.SoftmaxPolicy(logits), "retrace", cap=10.0)
    assert np.linalg.norm(capped.mean - found.mean) > 1e-3
