"""Errors of an exact critic are zero but for rounding: products of ratios must not make a variance of them."""

import numpy as np
import pytest

import testbed
import theory
from theory.critic import methods
from theory.critic.rounding import settled_variance, without_rounding

EXACT = {"history": "doubly_robust", "markov": "marginal"}


def with_policies(process, drift, seed=0):
    rng = np.random.default_rng(seed)
    target = theory.SoftmaxPolicy(rng.normal(size=(process.states, process.actions)))
    return process, target, theory.SoftmaxPolicy(target.logits + drift * rng.normal(size=target.logits.shape))


def parity(T):
    """One prompt of the parity task, and a drift of 1.5: the second moment of the product of ratios grows fast."""
    p = testbed.environment("parity", horizon=T).process
    fixed = np.eye(p.states)[np.argmax(p.initial)]
    one = theory.MarkovProcess(fixed, p.transition, p.reward, T, p.terminal_reward, p.absorbing, p.discount)
    return with_policies(one, 1.5)


def chain(T, discount=1.0, drift=1.0):
    """Four states, three actions, each with one successor; rewards of every step."""
    rng = np.random.default_rng(0)
    transition = np.eye(4)[rng.integers(0, 4, size=(4, 3))]
    process = theory.MarkovProcess(
        np.eye(4)[0], transition, rng.normal(size=(4, 3)), T, rng.normal(size=4), discount=discount
    )
    return with_policies(process, drift, seed=1)


def copies(T, drift, difference=0.0):
    """A deterministic chain whose states come in two copies, taken by chance: alike, or paid differently.

    Nothing depends on the copy where they are alike, so that the variance with an exact critic is zero; but values are
    averages of two equal numbers, and equal to them up to rounding only.
    """
    rng = np.random.default_rng(0)
    S, A = 3, 2
    transition = np.zeros((2 * S, A, 2 * S))
    for s, a in np.ndindex(2 * S, A):
        after = (2 * s + a) % S
        transition[s, a, [after, after + S]] = 0.3, 0.7
    reward, terminal = rng.normal(size=(S, A)), rng.normal(size=S)
    logits, off = rng.normal(size=(S, A)), drift * rng.normal(size=(S, A))
    features = np.tile(np.eye(S * A).reshape(S, A, S * A), (2, 1, 1))
    process = theory.MarkovProcess(
        np.eye(2 * S)[0], transition, np.concatenate([reward, reward + difference]), T, np.tile(terminal, 2)
    )
    target = theory.SoftmaxPolicy.from_features(features, logits.reshape(-1))
    return process, target, theory.SoftmaxPolicy(np.tile(logits + off, (2, 1)))


LONG = {
    "parity 60": parity(60),
    "chain 200": chain(200),
    "chain 500": chain(500),
    "discounted chain 300": chain(300, discount=0.99, drift=2.5),
}


@pytest.mark.parametrize("name", LONG)
def test_where_nothing_is_left_to_chance_it_is_zero_at_every_length(name):
    instance = LONG[name]
    truth = theory.policy_gradient(*instance[:2])
    assert theory.critic_moments(*instance, "per_decision").variance > 1e11 * (truth @ truth)
    for model, method in EXACT.items():
        assert theory.efficiency_bound(*instance, model).variance == 0.0
        found = theory.critic_moments(*instance, method, covariance=True)
        assert found.variance == 0.0
        assert (found.covariance == 0.0).all()
        assert found.relative_bias < 1e-11
        # The control: a critic that is wrong by 1e-9 has a variance, and says so.
        q = theory.noisy_critic(*instance[:2], 1e-9)
        assert theory.critic_moments(*instance, method, q, critic_gradient="exact").variance > 0.0


@pytest.mark.parametrize("name", ["parity 60", "chain 500"])
def test_samples_of_it_are_constant(name):
    found = theory.critic_moments(*LONG[name], engine="sampling", trajectories=200)
    assert found.variance <= 1e-30 * (found.mean @ found.mean)


@pytest.mark.parametrize("name", LONG)
def test_rounding_that_is_not_dropped_would_show(name, monkeypatch):
    right = methods.METHODS["doubly_robust"]

    def noisy(x):
        rng = np.random.default_rng(0)
        for step in right(x):
            off = 1e-16 * x.ratio * rng.choice([-1.0, 1.0], size=x.ratio.size)
            yield step._replace(value=step.value + off, gradient=step.gradient + off[:, None] * x.score)

    monkeypatch.setitem(methods.METHODS, "doubly_robust", noisy)
    assert theory.critic_moments(*LONG[name]).variance > 1e-23


@pytest.mark.parametrize("T", [5, 60, 200])
def test_where_rounding_is_multiplied_the_variance_is_not_known(T):
    instance = copies(T, drift=2.0)
    found = theory.critic_moments(*instance)
    np.testing.assert_allclose(found.mean, theory.policy_gradient(*instance[:2]), rtol=1e-11, atol=1e-13)
    bound = theory.efficiency_bound(*instance).variance
    if T == 5:
        assert found.variance == bound == 0.0
        assert theory.critic_moments(*instance, engine="enumeration").variance < 1e-28
    else:
        assert np.isnan(found.variance)
        assert np.isnan(bound)
        with pytest.raises(ValueError, match="the covariance is beyond float64, or rounding decides it"):
            _ = found.covariance
    # Ratios of occupancies do not multiply.
    assert theory.critic_moments(*instance, "marginal").variance == 0.0
    assert theory.efficiency_bound(*instance, "markov").variance == 0.0
    # The control: copies that differ give a variance, and its digits are known.
    differ = copies(T, drift=2.0, difference=0.1)
    found = theory.critic_moments(*differ)
    assert found.variance == pytest.approx(theory.efficiency_bound(*differ).variance, rel=1e-9)
    assert found.variance > 0.0


def test_a_table_of_exact_values_is_exact_and_one_off_by_rounding_is_known_no_better():
    instance = parity(60)
    process, target, _ = instance
    exact = theory.values(process, target).action_value
    gradient = theory.action_value_gradient(process, target)
    assert theory.critic_moments(*instance, "doubly_robust", exact, gradient).variance == 0.0
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=exact.shape)
    for size in (1e-16, 1e-15):
        found = theory.critic_moments(*instance, "doubly_robust", exact * (1.0 + size * signs), gradient).variance
        assert found == 0.0 or np.isnan(found)
    found = theory.critic_moments(*instance, "doubly_robust", exact * (1.0 + 1e-9 * signs), gradient).variance
    assert found > 0.0


def test_what_is_dropped():
    assert without_rounding(np.array([1e-16, -1e-16, 1e-13, 0.0]), np.ones(4)).tolist() == [0.0, 0.0, 1e-13, 0.0]


def test_which_variances_are_settled():
    def settled(dropped, kept):
        return settled_variance(np.array(dropped), np.array(kept), 1.0).tolist()

    # Alike, alike but for rounding, smaller than rounding, and small beside the others.
    for dropped, kept in (([2.0], [2.0]), ([2.0], [2.0 + 1e-9]), ([0.0], [1e-30]), ([0.0, 1e9], [1e-3, 1e9])):
        assert settled(dropped, kept) == dropped
    assert settled([np.inf, 1.0], [np.inf, 1.0]) == [np.inf, 1.0]
    for dropped, kept in ((0.0, 1e-10), (2.0, 2.1), (0.0, np.inf), (1.0, np.nan)):
        assert np.isnan(settled([dropped], [kept])).all()
    known, unknown = settled([np.inf, 0.0], [np.inf, 1.0])
    assert known == np.inf
    assert np.isnan(unknown)
