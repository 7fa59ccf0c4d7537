"""What a baseline leaks, against visits of every trajectory; the lemma that names the weights that leak nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from tests import brute_force
from tests.instances import instances, random_instance
from tests.theory.weights.variants import IDS, VARIANTS

INVARIANT = ("token", "prefix", "minpro", "suffix", "sequence")
LEAKY = (
    "none",
    "ppo_clip",
    "cispo",
    theory.weight("masked", interval=(0.5, 1.2)),
    theory.weight("truncated", cap=1.1),
    theory.weight("minpro", inclusive=True),
    theory.weight("minpro", clip=(0.8, 1.28)),
)


def plain_leak(process, target, behaviour, weight, baseline, signal="target_advantage", score="own"):
    """E[sum over t of c_t discount^t b_t(s_t) score_t] for b of shape (T, S), one trajectory after the other."""
    total = np.zeros(target.parameter_count)
    for tau in brute_force.trajectories(process, behaviour):
        psi = brute_force.signals(process, target, behaviour, signal, tau)
        c = brute_force.coefficients(process, target, behaviour, weight, psi, tau)
        so_far = np.zeros_like(total)
        for t in range(tau.length):
            z = target.score[tau.states[t], tau.actions[t]]
            so_far = so_far + z
            b = process.discount**t * baseline[t, tau.states[t]]
            total += tau.probability * c[t] * b * (z if score == "own" else so_far)
    return total


@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_the_leak_is_what_visiting_every_trajectory_gives(weight):
    instance = random_instance(S=3, A=3, T=3, discount=1.0, drift=1.5)
    b = np.random.default_rng(0).normal(size=3)
    for signal in ("target_advantage", "outcome"):
        slow = brute_force.leak(*instance, weight, signal, b)
        for engine in ("auto", "enumeration"):
            fast = theory.baseline_leak(
                *instance, weight, b, signal=signal, engine=engine, **brute_force.beside(*instance)
            )
            np.testing.assert_allclose(fast.leak, slow, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(b @ fast.by_state, slow, rtol=1e-12, atol=1e-15)
    # The control: the twin of another baseline is another vector, where anything leaks at all. A mask leaks only at a
    # drift at which it keeps some tokens and drops others, which for the narrow ones is a small drift.
    leaks = (
        brute_force.leak(*random_instance(S=3, A=3, T=3, discount=1.0, drift=drift), weight, "outcome", 2.0 * b)
        for drift in (1.5, 0.3, 0.07, 0.003)
    )
    assert any(np.abs(leak).max() > 1e-4 for leak in leaks) == (not weight.baseline_invariant)


@pytest.mark.parametrize("weight", ["prefix", "minpro", "suffix", "geometric", "v_trace", "ppo_clip", "m2po"])
@pytest.mark.parametrize("score", ["own", "cumulative"])
def test_baselines_that_change_over_time_are_discounted_and_take_either_score(weight, score):
    instance = random_instance(S=3, A=2, T=3, drift=1.5)
    b = np.random.default_rng(1).normal(size=(3, 3))
    fast = theory.baseline_leak(*instance, weight, b, score=score)
    slow = plain_leak(*instance, weight, b, score=score)
    np.testing.assert_allclose(fast.leak, slow, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(fast.by_step.sum(axis=0), slow, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(np.einsum("ts,tsp->p", b, fast.by_step_and_state), slow, rtol=1e-12, atol=1e-15)
    by_tree = theory.baseline_leak(*instance, weight, b, score=score, engine="enumeration")
    np.testing.assert_allclose(by_tree.by_step_and_state, fast.by_step_and_state, rtol=1e-12, atol=1e-15)
    if score == "cumulative":
        assert fast.relative_size > 1e-3  # even the invariant ones: the earlier scores do not sum to zero


@given(instances(), st.sampled_from(INVARIANT))
def test_no_baseline_leaks_under_a_ratio_times_earlier_ratios(instance, weight):
    leak = theory.baseline_leak(*instance, weight, "behaviour_value")
    assert leak.worst().upper < 1e-12
    assert leak.size < 1e-12


@given(instances(max_horizon=2), st.sampled_from(VARIANTS), st.sampled_from(["own", "cumulative"]))
def test_both_engines_and_the_loop_agree_on_any_instance(instance, weight, score):
    T, S = instance.process.horizon, instance.process.states
    b = np.arange(1.0, T * S + 1).reshape(T, S)
    slow = plain_leak(*instance, weight, b, score=score)
    for engine in ("auto", "enumeration"):
        fast = theory.baseline_leak(*instance, weight, b, score=score, engine=engine, **brute_force.beside(*instance))
        assert np.abs(fast.leak - slow).max() <= 1e-12 * (1.0 + np.abs(slow).max())


@pytest.mark.parametrize("weight", LEAKY, ids=lambda w: theory.weight(w).label)
def test_what_bounds_the_tokens_own_ratio_leaks(weight):
    leak = theory.baseline_leak(*random_instance(drift=1.5), weight)
    assert leak.size > 1e-3
    assert leak.worst().upper >= leak.worst().lower >= leak.size * (1 - 1e-12)
    assert leak.relative_size == pytest.approx(leak.size / np.linalg.norm(leak.gradient))


def test_the_sign_that_a_weight_sees_is_that_of_the_signal_and_not_of_the_baseline():
    instance = random_instance(S=3, A=3, T=3, drift=1.5, discount=1.0)
    b = np.array([1.0, -2.0, 0.5])
    by_signal = [theory.baseline_leak(*instance, "ppo_clip", b, signal=s).leak for s in ("target_advantage", "reward")]
    assert np.abs(by_signal[0] - by_signal[1]).max() > 1e-3
    for sign, leak in zip(("target_advantage", "reward"), by_signal, strict=True):
        np.testing.assert_allclose(leak, brute_force.leak(*instance, "ppo_clip", sign, b), rtol=1e-12)
    same = [theory.baseline_leak(*instance, "cispo", b, signal=s).leak for s in ("target_advantage", "outcome")]
    np.testing.assert_array_equal(same[0], same[1])


CLIPPED = theory.weight("minpro", clip=(0.9, 1.1))


@pytest.mark.parametrize("features", [0, 3])
@pytest.mark.parametrize(("S", "A", "T", "stationary"), [(3, 2, 4, False), (2, 3, 5, False), (4, 3, 4, True)])
def test_the_worst_baseline_is_the_best_of_all_sign_vectors(S, A, T, stationary, features):
    instance = random_instance(S=S, A=A, T=T, drift=1.5, absorbing=False, features=features)
    leak = theory.baseline_leak(*instance, CLIPPED)
    vectors = leak.by_state if stationary else leak.by_step_and_state.reshape(T * S, -1)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(vectors))))
    maximum = np.linalg.norm(signs @ vectors, axis=1).max()
    worst = leak.worst(stationary=stationary)
    assert worst.exact
    assert worst.lower == pytest.approx(maximum, rel=1e-12)
    reached = theory.baseline_leak(*instance, CLIPPED, worst.baseline)
    assert reached.size == pytest.approx(maximum, rel=1e-12)
    if features:  # otherwise states share no parameter, and the sign of one of them changes nothing
        flipped = worst.baseline * np.where(np.arange(S) == 0, -1.0, 1.0)
        assert theory.baseline_leak(*instance, CLIPPED, flipped).size < 0.999 * maximum


def test_the_constant_is_the_worst_where_the_coefficient_is_the_tokens_own():
    """The leaks of a state at all steps are one vector times its visits, and states share no parameter."""
    leak = theory.baseline_leak(*random_instance(drift=1.5), "cispo")
    assert leak.worst().lower == pytest.approx(leak.size, rel=1e-12)
    shared = [theory.baseline_leak(*random_instance(seed, drift=1.5, features=2), "cispo") for seed in range(5)]
    assert max(leak.worst().lower / leak.size for leak in shared) > 1.05


def test_in_a_token_tree_the_worst_leak_is_the_root_of_the_sum_of_squares():
    # Three steps of two tokens; state 2 s + 1 + a follows s.
    S, inner = 15, 7
    transition = np.zeros((S, 2, S))
    for s, a in itertools.product(range(S), range(2)):
        transition[s, a, 2 * s + 1 + a if s < inner else s] = 1.0
    process = theory.MarkovProcess(np.eye(S)[0], transition, np.zeros((S, 2)), horizon=3)
    rng = np.random.default_rng(0)
    target, behaviour = (theory.SoftmaxPolicy(rng.normal(size=(S, 2))) for _ in range(2))
    leak = theory.baseline_leak(process, target, behaviour, "none")
    closed = np.sqrt((np.linalg.norm(leak.by_state, axis=1) ** 2).sum())
    assert closed > 0.1
    assert leak.worst().upper == leak.worst().lower == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("weight", ["token", "none", "prefix", "ppo_clip", "masked"])
@pytest.mark.parametrize("of", ["target", "behaviour"])
def test_what_v_and_a_contribute_sums_to_what_q_does(weight, of):
    instance = random_instance(S=3, A=3, T=3, drift=1.5)
    parts = theory.value_contribution(*instance, weight, of=of)
    np.testing.assert_allclose(parts.state_value + parts.advantage, parts.action_value, rtol=1e-12, atol=1e-14)
    for name, total in (("advantage", parts.advantage), ("action_value", parts.action_value)):
        np.testing.assert_allclose(parts.by_step[name].sum(axis=0), total, rtol=1e-12, atol=1e-14)
        if name == "advantage" or weight != "ppo_clip":  # which sees the sign of Q where the signal is Q
            mean = theory.moments(*instance, theory.Estimator(weight, f"{of}_{name}")).mean
            np.testing.assert_allclose(total, mean, rtol=1e-11, atol=1e-14)
    leak = theory.baseline_leak(*instance, weight, f"{of}_value", signal=f"{of}_advantage")
    np.testing.assert_allclose(parts.state_value, leak.leak, rtol=1e-12, atol=1e-15)
    assert (np.abs(parts.state_value).max() < 1e-14) == (weight in ("token", "prefix"))


def test_lost_support_makes_even_the_token_ratio_leak():
    process, target, behaviour = random_instance(S=3, A=3, T=2)
    cut = behaviour.logits.copy()
    cut[:, 0] = -np.inf
    pair = (process, target, theory.SoftmaxPolicy(cut))
    with pytest.raises(ValueError, match="support"):
        theory.baseline_leak(*pair, "token")
    assert theory.baseline_leak(process, target, behaviour, "token").size < 1e-15
    assert theory.baseline_leak(*pair, "token", missing_support="allow").size > 1e-2


def test_numbers_and_names_of_baselines():
    instance = random_instance(S=3, A=2, T=3, drift=1.5, discount=1.0)
    process, _, behaviour = instance
    one = theory.baseline_leak(*instance, "none")
    np.testing.assert_array_equal(one.baseline, np.ones((3, 3)))
    np.testing.assert_allclose(theory.baseline_leak(*instance, "none", -2.0).leak, -2 * one.leak, rtol=1e-14)
    v = theory.values(process, behaviour)
    by_name = theory.baseline_leak(*instance, "none", "behaviour_value")
    np.testing.assert_array_equal(by_name.baseline, v.state_value[:-1])
    constant = theory.baseline_leak(*instance, "none", "expected_return")
    np.testing.assert_allclose(constant.leak, v.expected_return * one.leak, rtol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "target_valu"}, "nearest known name is 'target_value'"),
        ({"baseline": np.ones(7)}, "baseline has shape"),
        ({"baseline": math.nan}, "NaN"),
        ({"baseline": math.inf}, "finite"),
        ({"baseline": True}, "baseline has shape"),
        ({"engine": "sampling"}, "unknown engine"),
        ({"weight": "gspo", "engine": "recursion"}, "does not factorise"),
        ({"signal": theory.group(size=4)}, "signal of one trajectory"),
        ({"missing_support": "yes"}, "unknown missing_support"),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        theory.baseline_leak(*random_instance(S=3, A=2, T=2), **{"weight": "none", **arguments})


def test_a_long_horizon_is_answered_by_the_recursion():
    process, target, behaviour = random_instance(S=3, A=2, T=200, absorbing=False, drift=0.3)
    leak = theory.baseline_leak(process, target, behaviour, theory.weight("minpro", clip=(0.8, 1.28)))
    assert leak.engine == "recursion"
    assert leak.worst().exact  # two actions: the scores of a state lie on a line
    with pytest.raises(ValueError, match="trajectories, the limit"):
        theory.baseline_leak(process, target, behaviour, "minpro", engine="enumeration")
