"""What the cards declare, unbiasedness and baseline invariance, by enumeration; what they do not declare must fail.

Every trajectory of one dense random process is visited; the coefficients of all of them are computed at once.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pytest

import testbed
import theory
from tests import brute_force
from tests.instances import random_instance
from tests.theory.weights.variants import IDS, ONE_AT_ONE, VARIANTS

SIGNALS = [
    "target_advantage",
    "behaviour_advantage",
    "target_action_value",
    "behaviour_action_value",
    "reward",
    "reward_to_go",
    "outcome",
]
SCORES = ["own", "cumulative"]
EVERY_WEIGHT = pytest.mark.parametrize("weight", VARIANTS, ids=IDS)


class Table(NamedTuple):
    """All trajectories as arrays, padded to T."""

    gradient: np.ndarray
    probability: np.ndarray
    """(N,)"""
    log_ratio: np.ndarray
    """(N, T)"""
    mask: np.ndarray
    """(N, T)"""
    state: np.ndarray
    """(N, T)"""
    signal: dict
    """name -> (N, T)"""
    score: dict
    """name -> (N, T, P)"""
    given: dict
    """name -> (N, T)"""

    def coefficients(self, weight, signal):
        """c_t of every trajectory, each a batch of its own."""
        given = {name: self.given[name] for name in weight.needs}
        return weight.coefficients(self.log_ratio, self.mask, self.signal[signal], batch=1, **given)


@lru_cache
def table(horizon=4, drift=0.7):
    process, target, behaviour = random_instance(T=horizon, drift=drift)
    trajectories = brute_force.trajectories(process, behaviour)
    T, P = process.horizon, target.parameter_count

    def padded(values):
        return np.array([[*row, *([0.0] * (T - len(row)))] for row in values])

    state = padded([x.states[: x.length] for x in trajectories]).astype(int)
    action = padded([x.actions for x in trajectories]).astype(int)
    mask = np.arange(T) < np.array([x.length for x in trajectories])[:, None]
    own = np.where(mask[:, :, None], target.score[state, action], 0.0)
    assert own.shape == (len(trajectories), T, P)
    return Table(
        theory.policy_gradient(process, target),
        np.array([x.probability for x in trajectories]),
        padded([brute_force.log_ratios(x, target, behaviour) for x in trajectories]),
        mask,
        state,
        {s: padded([brute_force.signals(process, target, behaviour, s, x) for x in trajectories]) for s in SIGNALS},
        {"own": own, "cumulative": np.cumsum(own, axis=1)},
        {
            name: padded([brute_force.given(process, target, behaviour, name, x) for x in trajectories])
            for name in theory.NEEDS
        },
    )


def mean(data, weight, signal, score):
    psi = data.signal[signal]
    c = data.coefficients(weight, signal)
    return np.einsum("n,nt,ntp->p", data.probability, c * psi, data.score[score], optimize=True)


def leaks(data, weight, signal):
    """E[c_t 1(s_t = s) z_t] for every t and s, shape (T, S, P): E[c_t b(s_t) z_t] is their combination by b."""
    c = data.coefficients(weight, signal)
    here = data.state[:, :, None] == np.arange(data.state.max() + 1)
    return np.einsum("n,nt,nts,ntp->tsp", data.probability, c, here, data.score["own"], optimize=True)


@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_the_arrays_say_what_the_loops_say(weight):
    """On the smaller instance, the mean over the arrays equals the mean over the trajectories one by one."""
    instance, data = random_instance(T=2), table(2)
    for signal, score in (("outcome", "own"), ("target_advantage", "cumulative")):
        slow, _ = brute_force.moments(*instance, weight, signal, score)
        np.testing.assert_allclose(mean(data, weight, signal, score), slow, rtol=1e-11, atol=1e-14)


def unbiased_for(weight):
    """What the card declares at default options; no variant keeps it but those that are the prefix ratio."""
    # The window of five earlier tokens is longer than the four tokens here.
    prefix = (
        "v_trace(cap=inf, trace_cap=inf)",
        "window",
        "decoupled(update=prefix, behaviour=prefix)",
        "ppo_clip(clip=(0.0, inf), dual=inf, level=prefix)",
    )
    if weight.label in prefix:
        return theory.weight("prefix").card.unbiased_for
    if weight.label == "ppo_clip(clip=(0.0, inf), level=sequence)":
        return theory.weight("sequence").card.unbiased_for
    return weight.card.unbiased_for if weight.label == weight.name else ()


@EVERY_WEIGHT
def test_unbiased_for_what_is_declared_and_for_nothing_else(weight):
    data = table()
    size = np.linalg.norm(data.gradient)
    bias = {
        (signal, score): np.linalg.norm(mean(data, weight, signal, score) - data.gradient) / size
        for signal in SIGNALS
        for score in SCORES
    }
    declared = set(unbiased_for(weight))
    assert declared <= set(bias)
    assert {pair for pair, relative in bias.items() if relative < 1e-10} == declared
    assert {pair for pair, relative in bias.items() if relative > 1e-3} == set(bias) - declared


@EVERY_WEIGHT
def test_a_baseline_drops_out_where_declared_and_leaks_elsewhere(weight):
    # A large drift, at which every default bound binds somewhere, and smaller ones, at which every mask keeps
    # something: nothing can leak where a weight is the ratio, nor where it is zero.
    largest = []
    for drift in (1.5, 0.3, 0.05):
        leak = leaks(table(drift=drift), weight, "target_advantage")
        baselines = np.random.default_rng(5).normal(size=(20, leak.shape[1]))
        largest.append(np.abs(np.einsum("bs,tsp->btp", baselines, leak)).max())
    if weight.baseline_invariant:
        assert max(largest) < 1e-12
    else:
        assert max(largest) > 1e-4


def test_every_weight_is_the_on_policy_estimator_when_the_policies_are_equal():
    process, target, _ = random_instance(T=2)
    g = theory.policy_gradient(process, target)
    for weight in ONE_AT_ONE:
        on_policy, _ = brute_force.moments(process, target, target, weight, "outcome")
        np.testing.assert_allclose(on_policy, g, rtol=1e-10, atol=1e-14)


def test_the_default_window_is_biased_once_it_is_shorter_than_the_sequence():
    """With four steps a window of five earlier tokens is the whole prefix: six steps and a tail tell them apart."""
    env = testbed.environment("token_tree", depth=7, vocabulary=2)
    rng = np.random.default_rng(0)
    drifted = env.target.logits + 0.7 * rng.normal(size=env.target.logits.shape)
    instance = env.process, env.target, theory.SoftmaxPolicy(drifted)
    for signal, score in theory.weight("prefix").card.unbiased_for:
        e = theory.Estimator("window", signal, score)
        assert theory.moments(*instance, e).relative_bias > 1e-3
        assert theory.moments(*instance, theory.Estimator("prefix", signal, score)).relative_bias < 1e-9
