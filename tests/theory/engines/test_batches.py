"""Reductions over tokens, and batches that share one token count, against every tuple of trajectories."""

import tracemalloc

import numpy as np
import pytest

import theory
from tests import brute_force
from tests.brute_force_batches import batch_moments
from tests.instances import Instance, random_instance
from tests.theory.engines.comparing import ask, assert_same, assert_same_moments
from theory.engines.problem import Bins
from theory.engines.reduce import token_mean

# Up to 18 trajectories of one or two tokens, or none.
VARIABLE = random_instance(seed=2, S=2, A=2, T=2)
FIXED = random_instance(seed=2, S=2, A=2, T=2, absorbing=False)


def with_empty_episodes():
    process, target, behaviour = VARIABLE
    assert process.initial[1] > 0.0
    assert process.absorbing[1]
    return Instance(process, target, behaviour)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("engine", ["recursion", "enumeration"])
@pytest.mark.parametrize(
    ("weight", "signal", "score"),
    [
        ("token", "outcome", "own"),
        ("prefix", "reward_to_go", "cumulative"),
        ("minpro", "target_advantage", "own"),
        ("geometric", "outcome", "own"),
    ],
)
def test_a_batch_that_shares_its_tokens_is_every_tuple(engine, batch, weight, signal, score):
    instance = with_empty_episodes()
    mean, outer = batch_moments(*instance, weight, signal, batch, score)
    reduction = theory.reduction("token_mean", batch=batch)
    m = ask(instance, weight, signal, engine, score, reduction, covariance=True)
    assert_same_moments(m, mean, np.trace(outer))
    np.testing.assert_allclose(m.covariance, outer - np.outer(mean, mean), rtol=0, atol=1e-11)
    assert m.trajectories_per_draw == batch


def test_weights_that_look_at_the_sign_share_tokens_too():
    process, target, behaviour = random_instance(seed=2, S=2, A=2, T=2, step_rewards=False, drift=1.5)
    for batch in (1, 2):
        mean, outer = batch_moments(process, target, behaviour, "ppo_clip", "outcome", batch)
        for engine in ("recursion", "enumeration"):
            reduction = theory.reduction("token_mean", batch=batch)
            m = ask((process, target, behaviour), "ppo_clip", "outcome", engine, reduction=reduction)
            assert_same_moments(m, mean, np.trace(outer))


def test_a_batch_of_one_is_the_mean_over_a_trajectorys_own_tokens():
    one = ask(VARIABLE, "minpro", "outcome", "recursion", reduction="token_mean")
    assert_same(one, ask(VARIABLE, "minpro", "outcome", "recursion", reduction="length_mean"), relative=1e-13)


def test_where_all_lengths_are_equal_a_batch_averages_independent_trajectories():
    one = ask(FIXED, "minpro", "outcome", "recursion", reduction="length_mean")
    for batch in (2, 5):
        many = ask(FIXED, "minpro", "outcome", "recursion", reduction=theory.reduction("token_mean", batch=batch))
        np.testing.assert_allclose(many.mean, one.mean, rtol=1e-12)
        assert many.variance == pytest.approx(one.variance / batch, rel=1e-11)


def test_where_lengths_differ_the_shared_count_changes_the_mean():
    """The mean over tokens weighs long episodes more than the mean over episodes does."""
    instance = random_instance(seed=1, S=3, A=2, T=4)
    means = [
        ask(instance, "token", "outcome", "recursion", reduction=theory.reduction("token_mean", batch=b)).mean
        for b in (1, 64, 256, 1024)
    ]
    assert np.linalg.norm(means[0] - means[1]) > 1e-3 * np.linalg.norm(means[0])
    # In a large batch it is the sum over the expected length.
    total = ask(instance, "token", "outcome", "recursion").mean
    paths = brute_force.trajectories(instance.process, instance.behaviour)
    expected_length = sum(x.probability * x.length for x in paths)
    errors = [np.linalg.norm(mean - total / expected_length) for mean in means[1:]]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0.0


def test_thousands_of_lengths_need_no_table_of_their_pairs():
    """Where each sum is its own length, the mean over the tokens of every batch is one."""
    lengths, P = np.arange(1, 2001), np.random.default_rng(0).dirichlet(np.ones(2000))
    mean, second = (P * lengths)[:, None, None], (P * lengths**2.0)[:, None, None]
    tracemalloc.start()
    try:
        draw = token_mean(Bins(lengths, np.full(2000, np.nan), P, mean, second, second[..., None]), 8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for found in (draw.mean, draw.second, draw.outer):
        np.testing.assert_allclose(found, 1.0, rtol=1e-10)
    assert peak < 8 * 2000**2 / 4


def test_the_three_reductions_of_one_trajectory_by_hand():
    """Fixed length: dividing by the length and by the horizon is the same; with variable length it is not."""
    total, own, constant = (
        ask(FIXED, "token", "outcome", "recursion", reduction=r) for r in ("sum", "length_mean", "constant")
    )
    for divided in (own, constant):
        np.testing.assert_allclose(divided.mean, total.mean / 2, rtol=1e-12)
        assert divided.variance == pytest.approx(total.variance / 4, rel=1e-11)
    total, own, constant = (
        ask(VARIABLE, "token", "outcome", "recursion", reduction=r) for r in ("sum", "length_mean", "constant")
    )
    np.testing.assert_allclose(constant.mean, total.mean / 2, rtol=1e-12)
    assert np.linalg.norm(own.mean - constant.mean) > 1e-3
