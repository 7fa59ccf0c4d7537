"""Recursion, enumeration and brute force give one answer: on drawn instances and in every special case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import theory
from tests import brute_force
from tests.instances import Instance, instances, random_instance
from tests.theory.engines.comparing import (
    SIGNALS,
    ask,
    assert_same,
    assert_same_moments,
    plain_baseline,
    with_number,
)
from tests.theory.weights.variants import IDS, VARIANTS
from theory.engines.problem import EngineRefusal

SCORES = ["own", "cumulative"]
REDUCTIONS = ["sum", "length_mean", "constant"]


def recursion_takes(process, weight, signal):
    """What the recursion says that it can take, in words of the problem."""
    late = signal in ("outcome", "reward_to_go") and process.has_step_rewards
    return weight.factorises and not (weight.uses_advantage and late)


def assert_one_answer(instance, weight, signal, score="own", reduction="sum"):
    """Brute force against enumeration, and against the recursion or its refusal."""
    mean, second = brute_force.moments(
        *instance, weight, signal, score, reduction, plain_baseline(instance.process, signal)
    )
    question = (instance, weight, with_number(signal))
    assert_same_moments(ask(*question, "enumeration", score, reduction), mean, second)
    if recursion_takes(instance.process, weight, signal):
        assert_same_moments(ask(*question, "recursion", score, reduction), mean, second)
    else:
        with pytest.raises(EngineRefusal, match=r"engine='enumeration' or 'sampling' can take it"):
            ask(*question, "recursion", score, reduction)


@settings(max_examples=500)
@given(
    instances(),
    st.sampled_from(VARIANTS),
    st.sampled_from(SIGNALS),
    st.sampled_from(SCORES),
    st.sampled_from(REDUCTIONS),
)
def test_the_engines_agree_with_brute_force(instance, weight, signal, score, reduction):
    assert_one_answer(instance, weight, signal, score, reduction)


def test_the_comparison_finds_an_error_in_the_ninth_digit():
    instance = random_instance(S=3, A=2, T=2)
    mean, second = brute_force.moments(*instance, "minpro", "outcome")
    found = ask(instance, "minpro", "outcome", "recursion")
    assert_same_moments(found, mean, second)
    for wrong in ((mean * (1 + 1e-8), second), (mean, second * (1 + 1e-9))):
        with pytest.raises(AssertionError):
            assert_same_moments(found, *wrong)


def forbidding(seed=0, **options):
    """The target never takes one action that mu takes: ratios of zero."""
    process, target, behaviour = random_instance(seed, **options)
    logits = np.array(target.logits)
    logits[0, 0] = -np.inf
    return Instance(process, theory.SoftmaxPolicy(logits), behaviour)


def sharing(seed=0, **options):
    """All states share one row of logits: ratios coincide, up to rounding, where the running minimum merges them."""
    process, target, behaviour = random_instance(seed, **options)
    same = [theory.SoftmaxPolicy(np.tile(p.logits[:1], (process.states, 1))) for p in (target, behaviour)]
    return Instance(process, *same)


def starting_at_the_end(**options):
    """Half of the episodes have no token at all."""
    process, target, behaviour = random_instance(**options)
    initial = np.zeros(process.states)
    initial[[0, -1]] = 0.5
    process = theory.MarkovProcess(
        initial, process.transition, process.reward, process.horizon, process.terminal_reward, process.absorbing,
        process.discount,
    )  # fmt: skip
    return Instance(process, target, behaviour)


def deterministic(S=3, A=2, T=3):
    """A token process: the next state is given by the action, and the reward comes at the end."""
    rng = np.random.default_rng(7)
    following = rng.integers(0, S, size=(S, A))
    _, target, behaviour = random_instance(seed=7, S=S, A=A)
    process = theory.MarkovProcess(np.eye(S)[0], np.eye(S)[following], np.zeros((S, A)), T, rng.normal(size=S))
    return Instance(process, target, behaviour)


def same_policies(**options):
    process, target, _ = random_instance(**options)
    return Instance(process, target, target)


SMALL = {"S": 2, "A": 2, "T": 3}
SPECIAL = {
    "one step": random_instance(S=3, A=2, T=1),
    "one action": random_instance(S=2, A=1, T=3),
    "one state": random_instance(S=1, A=3, T=3, absorbing=False),
    "same policies": same_policies(**SMALL),
    "variable length": random_instance(**{**SMALL, "S": 3, "T": 2}),
    "fixed length, stochastic transitions": random_instance(**SMALL, absorbing=False, discount=1.0),
    "reward at the end only": random_instance(**{**SMALL, "S": 3, "T": 2}, step_rewards=False),
    "half discount": random_instance(**SMALL, discount=0.5),
    "no future": random_instance(**SMALL, discount=0.0),
    "features": random_instance(**SMALL, features=2),
    "ratios of zero": forbidding(**SMALL),
    "shared ratios": sharing(**SMALL, absorbing=False),
    "episodes without a token": starting_at_the_end(**SMALL),
    "deterministic": deterministic(),
    "large drift": random_instance(**SMALL, drift=4.0),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_the_engines_agree_in_every_special_case(weight, name):
    if name == "ratios of zero" and weight.name == "cppo" and weight.options["divergence"] == "binary_tv":
        with pytest.raises(ValueError, match="log_ratio is -inf at a token that counts, which does not tell mu"):
            ask(SPECIAL[name], weight, "outcome", "enumeration")
        return
    # Which score, reduction and signal go with which weight does not matter: all meet over the special cases.
    turn = list(SPECIAL).index(name) + VARIANTS.index(weight)
    assert_one_answer(SPECIAL[name], weight, "outcome", SCORES[turn % 2], REDUCTIONS[turn % 3])
    signal = SIGNALS[turn % 6]
    assert_one_answer(SPECIAL[name], weight, signal, SCORES[(turn + 1) % 2], REDUCTIONS[(turn + 1) % 3])


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("weight", [w for w in VARIANTS if w.factorises], ids=lambda w: w.label)
def test_recursion_is_enumeration_on_a_dense_process(weight, signal):
    """4 states, 2 actions, 4 steps, variable length: 10,000 trajectories."""
    instance = random_instance(seed=3, A=2)
    if not recursion_takes(instance.process, weight, signal):
        instance = random_instance(seed=3, A=2, step_rewards=False)
    for score in SCORES:
        question = (instance, weight, with_number(signal))
        assert_same(ask(*question, "recursion", score), ask(*question, "enumeration", score))


@pytest.mark.parametrize("signal", ["outcome", "reward_to_go"])
@pytest.mark.parametrize(
    "weight",
    [w for w in VARIANTS if w.uses_advantage and w.factorises],
    ids=lambda w: w.label,
)
def test_the_recursion_runs_once_per_return_for_weights_that_look_at_the_sign(weight, signal):
    """With rewards at the end only; with rewards on the way the recursion refuses and names who can."""
    instance = random_instance(seed=5, S=3, A=2, T=3, step_rewards=False, drift=1.0)
    for baseline in ("none", "expected_return", "behaviour_value", 0.3):
        one = theory.signal(signal, baseline=baseline)
        found = ask(instance, weight, one, "recursion")
        assert_same(found, ask(instance, weight, one, "enumeration"))
        if isinstance(baseline, float):
            table = plain_baseline(instance.process, signal, baseline)
            assert_same_moments(found, *brute_force.moments(*instance, weight, signal, baseline=table))
    # The sign matters: the weight of the other sign gives another mean.
    flipped = brute_force.moments(*instance, weight, signal, baseline=100.0)[0] / -100.0
    unsigned = brute_force.moments(*instance, weight, signal, baseline=-100.0)[0] / 100.0
    assert np.linalg.norm(flipped - unsigned) > 1e-3
    with pytest.raises(EngineRefusal, match="depends on later rewards; engine='enumeration' or 'sampling' can take it"):
        ask(random_instance(seed=5, S=3, A=2, T=3), weight, theory.signal(signal), "recursion")


def test_returns_of_any_size_are_told_apart():
    """Returns of 1e-9 and of 1e9, discounted to many values: the run per return must not lose or merge one."""
    process, target, behaviour = random_instance(seed=5, S=3, A=2, T=4, step_rewards=False, drift=1.0, discount=0.9)
    reference = None
    for size in (1.0, 1e-9, 1e9):
        scaled = theory.MarkovProcess(
            process.initial, process.transition, process.reward, process.horizon, size * process.terminal_reward,
            process.absorbing, process.discount,
        )  # fmt: skip
        for signal in ("outcome", theory.group(2, centre="mean", scale="none")):
            for engine in ("recursion", "enumeration"):
                m = ask(Instance(scaled, target, behaviour), "ppo_clip", signal, engine)
                if size == 1.0 and engine == "recursion":
                    reference = {**(reference or {}), signal: m}
                np.testing.assert_allclose(m.mean / size, reference[signal].mean, rtol=1e-9, atol=1e-12)
                assert m.variance / size**2 == pytest.approx(reference[signal].variance, rel=1e-9)


# Covariance


def brute_covariance(instance, weight, signal, score="own"):
    P = instance.target.parameter_count
    mean, outer = np.zeros(P), np.zeros((P, P))
    for x in brute_force.trajectories(instance.process, instance.behaviour):
        g = brute_force.estimate(*instance, weight, signal, x, score)
        mean, outer = mean + x.probability * g, outer + x.probability * np.outer(g, g)
    return outer - np.outer(mean, mean)


@settings(max_examples=100)
@given(instances(max_horizon=2), st.sampled_from(VARIANTS), st.sampled_from(SIGNALS), st.sampled_from(SCORES))
def test_covariances_agree_with_brute_force_and_their_trace_is_the_variance(instance, weight, signal, score):
    expected = brute_covariance(instance, weight, signal, score)
    engines = ["enumeration"] + ["recursion"] * recursion_takes(instance.process, weight, signal)
    _, second = brute_force.moments(*instance, weight, signal, score)
    for engine in engines:
        m = ask(instance, weight, signal, engine, score, covariance=True)
        np.testing.assert_allclose(m.covariance, expected, rtol=0, atol=1e-10 * max(second, 1e-6))
        assert abs(np.trace(m.covariance) - m.variance) <= 1e-10 * max(second, 1e-6)


def test_a_covariance_that_was_not_asked_for_is_computed_when_it_is_read():
    instance = random_instance(S=3, A=2, T=3)
    for engine in ("recursion", "enumeration"):
        later = ask(instance, "minpro", "outcome", engine).covariance
        np.testing.assert_allclose(later, ask(instance, "minpro", "outcome", engine, covariance=True).covariance)
        np.testing.assert_allclose(later, brute_covariance(instance, "minpro", "outcome"), rtol=1e-10, atol=1e-13)
        assert np.abs(later - np.diag(np.diag(later))).max() > 1e-3  # it is not a diagonal


# The record


def test_what_the_record_says_of_bias_and_error():
    instance = random_instance()
    m = ask(instance, "token", "outcome", "recursion")
    g = theory.policy_gradient(instance.process, instance.target)
    np.testing.assert_array_equal(m.gradient, g)
    np.testing.assert_allclose(m.bias, m.mean - g)
    assert m.relative_bias == pytest.approx(np.linalg.norm(m.mean - g) / np.linalg.norm(g))
    assert m.cosine == pytest.approx(m.mean @ g / np.linalg.norm(m.mean) / np.linalg.norm(g))
    assert m.effective_step == pytest.approx(np.linalg.norm(m.mean) / np.linalg.norm(g))
    assert m.mean_squared_error(10) == pytest.approx(m.bias @ m.bias + m.variance / 10)
    assert m.mean_squared_error() == pytest.approx(m.bias @ m.bias + m.variance)
    assert (m.standard_error, m.draws, m.lost_mass, m.engine) == (None, None, 0.0, "recursion")


def test_where_the_gradient_is_zero_ratios_to_it_are_not_a_number():
    process, target, behaviour = random_instance(step_rewards=False)
    nothing = theory.MarkovProcess(
        process.initial, process.transition, process.reward, process.horizon, None, process.absorbing
    )
    m = ask((nothing, target, behaviour), "token", "outcome", "recursion")
    assert np.isnan([m.relative_bias, m.cosine, m.effective_step]).all()


def test_a_group_needs_as_many_trajectories_as_it_has():
    m = ask(random_instance(S=3, A=2, T=2, step_rewards=False), "token", theory.group(4), "recursion")
    assert m.trajectories_per_draw == 4
    assert m.mean_squared_error(8) == pytest.approx(m.bias @ m.bias + m.variance / 2)
    with pytest.raises(ValueError, match="trajectories is 3; expected at least 4, which one draw uses"):
        m.mean_squared_error(3)
