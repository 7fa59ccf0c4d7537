"""Recursion and enumeration against plain sums over every trajectory, for right and wrong critics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import theory
from tests import brute_force
from tests.instances import instances, random_instance
from tests.theory.critic import plain

METHODS = list(theory.critic_cards())
WITH_GRADIENT = [name for name, card in theory.critic_cards().items() if card.takes_gradient]
WITH_OPTIONS = [name for name, card in theory.critic_cards().items() if card.options]


def wrong_tables(instance, seed=0):
    """An action-value table and a gradient table that have nothing to do with the truth, and the state values."""
    p, rng = instance.process, np.random.default_rng(seed)
    q = rng.normal(size=(p.horizon, p.states, p.actions))
    dq = rng.normal(size=(*q.shape, instance.target.parameter_count))
    return q, dq, np.concatenate([plain.expected(instance.target, q), p.terminal_reward[None]])


def assert_same(found, mean, outer, covariance=None, relative=1e-10):
    """Relative to the root mean square of the estimator."""
    size = max(float(np.sqrt(np.trace(outer))), 1e-3)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=relative * size)
    assert abs(found.variance - (np.trace(outer) - mean @ mean)) <= relative * size**2
    if covariance is not None:
        np.testing.assert_allclose(covariance, outer - np.outer(mean, mean), rtol=0, atol=relative * size**2)


def ask(instance, method, q, dq, engine, **options):
    gradient = {"critic_gradient": dq} if method in WITH_GRADIENT else {}
    return theory.critic_moments(*instance, method, q, **gradient, engine=engine, **options)


@given(instances(), st.sampled_from(METHODS), st.integers(0, 5))
def test_of_random_instances(instance, method, seed):
    q, dq, v = wrong_tables(instance, seed)
    mean, outer = plain.moments(*instance, method, q, dq, v)
    for engine in ("recursion", "enumeration"):
        found = ask(instance, method, q, dq, engine, covariance=True)
        assert found.engine == engine
        assert_same(found, mean, outer, found.covariance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("features", [0, 3])
def test_of_a_dense_instance(method, features):
    instance = random_instance(3, S=3, A=2, T=4, drift=1.5, features=features)
    q, dq, v = wrong_tables(instance)
    mean, outer = plain.moments(*instance, method, q, dq, v)
    for engine in ("recursion", "enumeration"):
        found = ask(instance, method, q, dq, engine)
        assert_same(found, mean, outer, found.covariance)
    # The control: another trajectory sum, another gradient or another critic is told apart.
    other = "per_decision" if method != "per_decision" else "doubly_robust"
    with pytest.raises(AssertionError):
        assert_same(found, *plain.moments(*instance, other, q, dq, v))


@pytest.mark.parametrize("method", WITH_OPTIONS)
@pytest.mark.parametrize(
    "options", [{"cap": 0.7}, {"trace_cap": 1.5}, {"trace_decay": 0.5}, {"cap": np.inf, "trace_cap": np.inf}]
)
def test_of_options(method, options):
    instance = random_instance(4, S=3, A=2, T=3, drift=2.0)
    q, dq, v = wrong_tables(instance)
    mean, outer = plain.moments(*instance, method, q, dq, v, **options)
    for engine in ("recursion", "enumeration"):
        assert_same(ask(instance, method, q, dq, engine, **options), mean, outer)
    if not all(theory.critic_cards()[method].options[name] == value for name, value in options.items()):
        with pytest.raises(AssertionError):
            assert_same(ask(instance, method, q, dq, "recursion"), mean, outer)


@pytest.mark.parametrize("method", METHODS)
def test_of_the_critics_that_have_names(method):
    instance = random_instance(5, S=3, A=2, T=3)
    process, target, behaviour = instance
    ours, theirs = theory.values(process, target), theory.values(process, behaviour)
    gradient = theory.action_value_gradient(process, target)
    none = np.zeros_like(ours.action_value)
    at_end = np.where(process.absorbing, process.terminal_reward, np.zeros((process.horizon + 1, process.states)))
    at_end[-1] = process.terminal_reward
    tables = {
        "target": (ours.action_value, gradient, ours.state_value),
        "behaviour": (theirs.action_value, 0.0 * gradient, theirs.state_value),
        "zero": (none, 0.0 * gradient, at_end),
    }
    for name, (q, dq, v) in tables.items():
        assert_same(theory.critic_moments(*instance, method, name), *plain.moments(*instance, method, q, dq, v))


@pytest.mark.parametrize("method", ["state_baseline", "v_trace"])
def test_of_state_values(method):
    instance = random_instance(6, S=3, A=2, T=3)
    v = np.random.default_rng(0).normal(size=(4, 3))
    found = theory.critic_moments(*instance, method, v)
    # Whatever the table says of the end of an episode, the terminal reward is known there.
    v[-1], v[:, -1] = instance.process.terminal_reward, instance.process.terminal_reward[-1]
    assert_same(found, *plain.moments(*instance, method, None, None, v))


@pytest.mark.parametrize("method", METHODS)
def test_samples_agree_within_their_standard_errors(method):
    instance = random_instance(7, S=3, A=2, T=3, drift=1.0)
    exact = theory.critic_moments(*instance, method, covariance=True)
    found = theory.critic_moments(*instance, method, engine="sampling", trajectories=40_000, seed=1, covariance=True)
    assert (found.engine, found.draws) == ("sampling", 40_000)
    # 9 methods, up to 6 components each: |z| < 4.8 fails by chance with probability 1e-4.
    moves = found.standard_error > 1e-12
    z = (found.mean - exact.mean)[moves] / found.standard_error[moves]
    assert np.abs(z).max() < 4.8
    assert abs(found.variance - exact.variance) < 4.8 * found.variance_standard_error
    assert np.trace(found.covariance) == pytest.approx(found.variance)
    # The control: the gradient of the other policy is not that of this one.
    wrong = theory.critic_moments(instance.process, instance.behaviour, instance.target, method)
    z = (found.mean - wrong.mean)[moves] / found.standard_error[moves]
    assert np.abs(z).max() > 4.8


def test_the_error_of_a_sampled_variance_is_that_of_deviations_from_the_mean():
    """V-trace with a cap of 0.05 has a bias of many of its deviations, which the error of its variance must not count.

    Over 300 seeds the squared z-scores of the variance sum to a chi-square, nearly: false-alarm rate 1e-4.
    """
    p, target, _ = random_instance(2, S=3, A=2, T=3, absorbing=False)
    off = 0.3 * np.array([[1, 0], [0, 1], [1, 0]])
    instance, draws = (p, target, theory.SoftmaxPolicy(target.logits + off)), 2000
    v, options = theory.values(p, target).state_value, {"cap": 0.05}
    exact = theory.critic_moments(*instance, "v_trace", v, **options)
    # The deviation of |g - centre|^2 over every trajectory, about the mean and about the truth.
    deviation = {}
    for name, centre in (("mean", exact.mean), ("truth", exact.gradient)):
        norms = [
            (t.probability, float(((plain.v_trace(*instance, t, None, None, v, **options) - centre) ** 2).sum()))
            for t in brute_force.trajectories(p, instance[2])
        ]
        first = sum(w * x for w, x in norms)
        deviation[name] = np.sqrt(sum(w * (x - first) ** 2 for w, x in norms))
    assert deviation["truth"] > 3.0 * deviation["mean"]
    samples = [
        theory.critic_moments(*instance, "v_trace", v, engine="sampling", trajectories=draws, seed=seed, **options)
        for seed in range(300)
    ]
    errors = np.array([m.variance_standard_error for m in samples])
    assert np.sqrt(draws) * np.mean(errors) == pytest.approx(deviation["mean"], rel=0.05)
    squares = ((np.array([m.variance for m in samples]) - exact.variance) ** 2).sum()
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], 300)
    assert low < (squares / errors**2).mean() < high
    # The control: the error of deviations from the truth.
    assert not low < squares * draws / deviation["truth"] ** 2 < high


def test_a_long_horizon_takes_seconds_and_equals_the_engine_without_critics():
    instance = random_instance(0, S=10, A=5, T=1000, absorbing=False, discount=1.0, drift=0.02)
    reference = theory.moments(*instance, theory.Estimator("prefix", "reward", score="cumulative"), "recursion")
    found = theory.critic_moments(*instance, "doubly_robust", "zero")
    size = np.sqrt(reference.variance)
    np.testing.assert_allclose(found.mean, reference.mean, rtol=0, atol=1e-10 * size)
    assert found.variance == pytest.approx(reference.variance, rel=1e-10)
    exact = theory.critic_moments(*instance, "doubly_robust")
    assert exact.relative_bias < 1e-10
    assert exact.variance < 0.6 * found.variance
    assert exact.variance == pytest.approx(theory.efficiency_bound(*instance).variance, rel=1e-10)
