"""The named causes of the bias sum to it, and each is what a plain loop over all trajectories says it is."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from tests import brute_force
from tests.instances import instances, random_instance
from theory.decomposition import ORDER
from theory.weights.hybrid import hybrid
from theory.weights.registry import Parts

WEIGHTS = (
    *theory.weight_cards(),
    theory.weight("minpro", clip=(0.8, 1.28)),
    theory.weight("minpro", inclusive=True),
    theory.weight("truncated", level="sequence"),
    theory.weight("masked", level="sequence"),
)
SIGNALS = (*theory.signal_cards(), theory.signal("outcome", baseline="expected_return"))


def _relative(difference, process, target):
    return np.abs(difference).max() / max(np.abs(theory.policy_gradient(process, target)).max(), 1e-3)


def _total(decomposition):
    return sum(decomposition.terms.values())


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: theory.weight(w).label)
def test_terms_sum_to_the_bias_for_every_signal_score_and_reduction(weight):
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)
    for signal, (score, reduction) in itertools.product(
        SIGNALS, [("own", "sum"), ("own", "length_mean"), ("cumulative", "constant")]
    ):
        estimator = theory.Estimator(weight, signal, score, reduction)
        beside = brute_force.beside(process, target, behaviour)
        d = theory.decompose(process, target, behaviour, estimator, **beside)
        bias = theory.moments(process, target, behaviour, estimator, "enumeration", **beside).bias
        assert _relative(_total(d) - bias, process, target) < 1e-12
        assert _relative(d.bias - bias, process, target) < 1e-12


@given(instances(), st.sampled_from(WEIGHTS), st.sampled_from(SIGNALS), st.sampled_from(["sum", "length_mean"]))
def test_terms_sum_to_the_bias_on_any_instance(instance, weight, signal, reduction):
    estimator = theory.Estimator(weight, signal, reduction=reduction)
    beside = brute_force.beside(*instance)
    d = theory.decompose(*instance, estimator, **beside)
    bias = theory.moments(*instance, estimator, **beside).bias
    assert np.abs(_total(d) - bias).max() <= 1e-11 * (1.0 + np.abs(bias).max())


def test_without_one_term_the_sum_is_not_the_bias():
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)
    estimator = theory.Estimator(theory.weight("minpro", clip=(0.8, 1.28)), "outcome", reduction="length_mean")
    d = theory.decompose(process, target, behaviour, estimator)
    for name in ("occupancy", "continuation", "truncation", "baseline_leak", "reduction"):
        assert _relative(_total(d) - d[name] - d.bias, process, target) > 1e-3


@pytest.mark.parametrize("weight", ["token", "minpro", "v_trace", "cispo", "geometric", "sequence", "none"])
@pytest.mark.parametrize("signal", ["outcome", "behaviour_advantage"])
def test_recursion_and_enumeration_give_the_same_terms(weight, signal):
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)
    estimator = theory.Estimator(weight, signal)
    by_cells = theory.decompose(process, target, behaviour, estimator, "recursion")
    by_tree = theory.decompose(process, target, behaviour, estimator, "enumeration")
    for name in ORDER:
        assert _relative(by_cells[name] - by_tree[name], process, target) < 1e-11


@pytest.mark.parametrize("weight", ["token", "ppo_clip", "geometric"])
def test_positions_sum_to_the_terms(weight):
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)
    d = theory.decompose(process, target, behaviour, theory.Estimator(weight, "outcome"))
    for name in ORDER:
        assert d.by_position[name].shape == (3, target.parameter_count)
        assert _relative(d.by_position[name].sum(axis=0) - d[name], process, target) < 1e-12
    # At t = 0 there is no prefix to get wrong; later there is.
    occupancy = d.by_position["occupancy"]
    if weight != "geometric":
        assert np.abs(occupancy[0]).max() < 1e-14
        assert np.abs(occupancy[1]).max() > 1e-3


def _plain_step(process, target, behaviour, signal_of, parts_of, centred, clip_of, reduction_of):
    """E[sum over t of c psi z] by visiting every trajectory; each ingredient is a function of plain numbers."""
    total = np.zeros(target.parameter_count)
    for tau in brute_force.trajectories(process, behaviour):
        rho = [math.exp(x) for x in brute_force.log_ratios(tau, target, behaviour)]
        psi = brute_force.signals(process, target, behaviour, signal_of, tau, centred)
        for t in range(tau.length):
            c = clip_of(parts_of(rho, t))
            total += (
                tau.probability * c * psi[t] * target.score[tau.states[t], tau.actions[t]] * reduction_of(tau.length)
            )
    return total


def test_each_term_is_what_a_plain_loop_over_trajectories_says():
    """MinPRO with a clip, an outcome signal and 1/L: every cause is at work."""
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)
    estimator = theory.Estimator(theory.weight("minpro", clip=(0.8, 1.28)), "outcome", reduction="length_mean")
    d = theory.decompose(process, target, behaviour, estimator)

    def minpro(rho, t):
        return rho[t] * (min(rho[:t]) if t else 1.0)

    v = theory.values(process, behaviour).state_value[:-1]
    centred = process.discount ** np.arange(3)[:, None] * v
    same, one, clip = (lambda c: c), (lambda L: 1.0), (lambda c: min(max(c, 0.8), 1.28))
    pair = (process, target, behaviour)
    steps = [
        theory.policy_gradient(process, target),
        _plain_step(*pair, "target_advantage", minpro, 0.0, same, one),
        _plain_step(*pair, "target_advantage", minpro, 0.0, same, one),
        _plain_step(*pair, "reward_to_go", minpro, centred, same, one),
        _plain_step(*pair, "reward_to_go", minpro, centred, clip, one),
        _plain_step(*pair, "outcome", minpro, 0.0, clip, one),
        _plain_step(*pair, "outcome", minpro, 0.0, clip, lambda L: 1.0 / L),
    ]
    for name, before, after in zip(ORDER, steps, steps[1:], strict=False):
        assert _relative(d[name] - (after - before), process, target) < 1e-12
    # The control: with the two neighbours exchanged the terms are others.
    assert _relative(d["truncation"] - (steps[3] - steps[2]), process, target) > 1e-3


def test_a_weight_with_a_suffix_is_centred_by_the_value_of_the_target():
    """What follows is corrected to pi, so the leak is measured against V of pi: with V of mu the terms are others."""
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)
    d = theory.decompose(
        process, target, behaviour, theory.Estimator(theory.weight("truncated", level="sequence"), "outcome")
    )

    def leak(policy):
        v = theory.values(process, policy).state_value[:-1]
        centred = process.discount ** np.arange(3)[:, None] * v
        total = np.zeros(target.parameter_count)
        for tau in brute_force.trajectories(process, behaviour):
            c = min(math.exp(sum(brute_force.log_ratios(tau, target, behaviour))), 2.0)
            plain = brute_force.signals(process, target, behaviour, "outcome", tau)
            of_state = brute_force.signals(process, target, behaviour, "reward_to_go", tau, centred)
            for t in range(tau.length):
                z = target.score[tau.states[t], tau.actions[t]]
                total += tau.probability * c * (plain[t] - of_state[t]) * z
        return total

    assert _relative(d["baseline_leak"] - leak(target), process, target) < 1e-12
    assert _relative(d["baseline_leak"] - leak(behaviour), process, target) > 1e-3


def test_each_cause_is_absent_where_its_reason_is():
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)

    def size(weight, signal, name, reduction="sum"):
        d = theory.decompose(process, target, behaviour, theory.Estimator(weight, signal, reduction=reduction))
        return _relative(d[name], process, target)

    assert size("prefix", "outcome", "occupancy") < 1e-12 < 1e-3 < size("token", "outcome", "occupancy")
    assert size("token", "outcome", "action") < 1e-12 < 1e-3 < size("none", "outcome", "action")
    assert size("sequence", "outcome", "continuation") < 1e-12 < 1e-3 < size("prefix", "outcome", "continuation")
    assert size("token", "outcome", "truncation") < 1e-12 < 1e-3 < size("truncated", "outcome", "truncation")
    assert size("minpro", "outcome", "baseline_leak") < 1e-12
    assert size(theory.weight("minpro", inclusive=True), "outcome", "baseline_leak") > 1e-3
    assert size("token", "outcome", "reduction") < 1e-12 < 1e-3 < size("token", "outcome", "reduction", "length_mean")


def test_a_group_bends_the_plain_outcome_in_the_reduction_term():
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=0.0, step_rewards=False)
    own = theory.decompose(process, target, behaviour, theory.Estimator("token", theory.group(4, "mean", "none")))
    # On-policy the group mean shrinks the gradient by (G - 1)/G and nothing else happens.
    g = theory.policy_gradient(process, target)
    assert _relative(own["reduction"] + g / 4, process, target) < 1e-10
    assert _relative(own.bias + g / 4, process, target) < 1e-10
    loo = theory.decompose(
        process, target, behaviour, theory.Estimator("token", theory.group(4, "leave_one_out", "none"))
    )
    assert _relative(loo.bias, process, target) < 1e-10


def test_another_order_moves_the_terms_and_keeps_the_sum():
    process, target, behaviour = random_instance(S=3, A=2, T=3, drift=1.5)
    estimator = theory.Estimator("none", "outcome")
    default = theory.decompose(process, target, behaviour, estimator)
    other = theory.decompose(
        process, target, behaviour, estimator,
        order=("continuation", "action", "occupancy", "baseline_leak", "truncation", "reduction"),
    )  # fmt: skip
    assert _relative(_total(other) - _total(default), process, target) < 1e-12
    assert _relative(other["action"] - default["action"], process, target) > 1e-3


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (("truncation", "occupancy", "action", "continuation", "baseline_leak", "reduction"), "'truncation' before"),
        (("occupancy",), "each of"),
    ],
)
def test_an_impossible_order_is_refused_in_one_sentence(order, message):
    instance = random_instance(S=3, A=2, T=2)
    with pytest.raises(ValueError, match=message):
        theory.decompose(*instance, theory.Estimator("token", "outcome"), order=order)


def test_sampling_has_no_exact_terms():
    with pytest.raises(ValueError, match="unknown engine 'sampling'"):
        theory.decompose(*random_instance(T=2), theory.Estimator("token", "outcome"), "sampling")


def test_a_term_is_found_by_its_nearest_name():
    d = theory.decompose(*random_instance(T=2), theory.Estimator("token", "outcome"))
    with pytest.raises(ValueError, match="nearest known name is 'occupancy'"):
        d["ocupancy"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("none", Parts("none", "none", "none")), ("token", Parts("none", "full", "none")),
        ("prefix", Parts("full", "full", "none")), ("suffix", Parts("none", "full", "full")),
        ("sequence", Parts("full", "full", "full")), ("geometric", Parts("root", "root", "root")),
        ("minpro", Parts("minimum", "full", "none")),
    ],
)  # fmt: skip
def test_the_unclipped_weights_are_the_product_of_their_parts(name, parts):
    rng = np.random.default_rng(0)
    log_ratio, mask = rng.normal(size=(50, 6)), rng.random((50, 6)) < 0.7
    expected = theory.weight(name).coefficients(log_ratio, mask)
    np.testing.assert_allclose(hybrid(parts).coefficients(log_ratio, mask), expected, rtol=1e-12)
    assert theory.weight(name).parts == parts
    other = Parts("none", "none", "full")
    assert np.abs(hybrid(other).coefficients(log_ratio, mask) - expected).max() > 0.1


def test_a_decomposition_survives_pickling():
    instance = random_instance(S=3, A=2, T=3, drift=1.5)
    d = theory.decompose(*instance, theory.Estimator(theory.weight("minpro", clip=(0.8, 1.28)), "outcome"))
    again = pickle.loads(pickle.dumps(d))
    for name in ORDER:
        np.testing.assert_array_equal(again[name], d[name])
        np.testing.assert_array_equal(again.by_position[name], d.by_position[name])


# Missing support


def _truncated(instance):
    """The instance with a mu that never takes action 1 in state 0, and takes its other actions as before."""
    process, target, behaviour = instance
    logits = np.array(behaviour.logits)
    logits[0, 1] = -np.inf
    return process, target, theory.SoftmaxPolicy(logits)


@pytest.mark.parametrize("weight", ["prefix", "token", "ppo_clip", "truncated", "geometric"])
@pytest.mark.parametrize("signal", ["target_advantage", "outcome"])
def test_with_missing_support_the_terms_still_sum_to_the_bias(weight, signal):
    instance = _truncated(random_instance(S=3, A=2, T=3, drift=1.5))
    estimator = theory.Estimator(weight, signal)
    with pytest.raises(ValueError, match="missing_support='allow'"):
        theory.decompose(*instance, estimator)
    d = theory.decompose(*instance, estimator, missing_support="allow")
    bias = theory.moments(*instance, estimator, missing_support="allow").bias
    assert d.order == tuple(d.terms) == ("support", *ORDER)
    assert _relative(_total(d) - bias, *instance[:2]) < 1e-12
    assert _relative(d["support"], *instance[:2]) > 1e-3
    for name in d.order:
        assert _relative(d.by_position[name].sum(axis=0) - d[name], *instance[:2]) < 1e-12


def test_the_support_term_is_what_the_true_weights_cannot_put_back():
    """The mean of `prefix` x `target_advantage`, which has the true weights, is off by this term alone."""
    instance = _truncated(random_instance(S=3, A=2, T=3, drift=1.5))
    d = theory.decompose(*instance, theory.Estimator("prefix", "target_advantage"), missing_support="allow")
    for name in ORDER:
        assert _relative(d[name], *instance[:2]) < 1e-12
    process, target, behaviour = instance
    lost = np.zeros(target.parameter_count)
    advantage = theory.values(process, target).advantage
    for tau in brute_force.trajectories(process, target):
        possible = True
        for t in range(tau.length):
            s, a = tau.states[t], tau.actions[t]
            possible &= behaviour.probabilities[s, a] > 0.0
            if not possible:
                lost += tau.probability * process.discount**t * advantage[t, s, a] * target.score[s, a]
    assert _relative(d["support"] + lost, process, target) < 1e-12


def test_with_full_support_nothing_is_lost():
    instance = random_instance(S=3, A=2, T=3, drift=1.5)
    estimator = theory.Estimator("minpro", "outcome")
    d, plain = theory.decompose(*instance, estimator, missing_support="allow"), theory.decompose(*instance, estimator)
    assert _relative(d["support"], *instance[:2]) < 1e-12
    for name in ORDER:
        assert _relative(d[name] - plain[name], *instance[:2]) < 1e-12
    with pytest.raises(ValueError, match="unknown missing_support 'alow'"):
        theory.decompose(*instance, estimator, missing_support="alow")
