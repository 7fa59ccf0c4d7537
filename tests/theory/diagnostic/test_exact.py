"""`theory.diagnostics` against every trajectory one by one, against closed forms, and against other exact routines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

import theory
from tests.instances import instances, random_instance
from tests.theory.diagnostic import plain

WEIGHTS = ["token", "minpro", "sequence", "gspo", "ppo_clip", "masked", "truncated"]


def assert_same(exact, expected, tolerance=1e-9):
    got = exact.as_dict()
    assert set(got) == set(expected)
    for name, value in expected.items():
        # A deviation is the root of a difference: it has half of the digits where it is zero.
        slack = 1e-7 if name.endswith("std") else tolerance
        assert got[name] == pytest.approx(value, rel=tolerance, abs=slack, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(instances())
def test_every_statistic_is_that_of_all_trajectories_one_by_one(instance):
    weight = theory.weight("minpro", clip=(0.8, 1.2))
    assert_same(theory.diagnostics(*instance, weight), plain.diagnostics(*instance, weight))


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("signal", ["target_advantage", "outcome"])
def test_statistics_of_every_weight(name, signal):
    instance = random_instance(seed=3, T=3)
    exact = theory.diagnostics(*instance, name, signal=signal, clip=(0.5, 1.5))
    assert_same(exact, plain.diagnostics(*instance, name, signal, (0.5, 1.5)))


def test_the_twin_tells_apart_what_is_nearly_the_same():
    """Negative control: swapped policies, another clip, and a mean over sequences in place of tokens are seen."""
    process, target, behaviour = random_instance(seed=3, T=3)
    exact = theory.diagnostics(process, target, behaviour).as_dict()
    swapped = plain.diagnostics(process, behaviour, target, "token")
    same = [name for name in exact if exact[name] == pytest.approx(swapped[name], rel=1e-6)]
    # The largest |l|, E[rho] = E[W] = 1, and that nothing is masked, are the same whichever way round.
    assert sorted(same) == [
        "log_ratio_absolute_maximum", "ratio_mean", "sequence_ratio_mean", "weight_mean",
        "weight_share_sequences_zero", "weight_share_zero",
    ]  # fmt: skip
    other = plain.diagnostics(process, target, behaviour, "token", clip=(0.9, 1.1))
    assert other["clip_fraction"] != pytest.approx(exact["clip_fraction"], rel=1e-3)
    assert exact["sequence_kl_k1"] / exact["length_mean"] == pytest.approx(exact["kl_k1"])
    assert math.log(exact["perplexity_ratio"]) != pytest.approx(exact["kl_k1"], rel=1e-3)


def test_closed_forms_of_a_coin():
    """T tokens, pi = 1/2, mu = q: binomial sums written out."""
    T, q = 40, 0.8
    coin = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 0.0]], horizon=T)
    d = theory.diagnostics(coin, theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy(np.log([[q, 1 - q]])))
    second = 0.25 / q + 0.25 / (1 - q)
    kl = q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q))
    small, large = 0.5 / q, 0.5 / (1 - q)
    assert d.ratio_effective_sample_size == pytest.approx(1 / second)
    assert d.sequence_ratio_chi_square == pytest.approx(second**T - 1)
    assert d.sequence_ratio_effective_sample_size == pytest.approx(second**-T)
    assert d.kl_k1 == pytest.approx(kl)
    assert d.kl_k3 == pytest.approx(kl)
    assert d.sequence_kl_k1 == pytest.approx(T * kl)
    assert d.geometric_ratio_mean == pytest.approx((q * small ** (1 / T) + (1 - q) * large ** (1 / T)) ** T)
    assert d.largest_ratio_mean == pytest.approx(large - (large - small) * q**T)
    assert d.smallest_ratio_mean == pytest.approx(small + (large - small) * (1 - q) ** T)
    assert d.sequence_ratio_maximum == pytest.approx(large**T)
    assert (d.clip_fraction_low, d.clip_fraction_high) == pytest.approx((q, 1 - q))
    assert d.entropy_target == pytest.approx(math.log(2))
    assert d.perplexity_target == pytest.approx(2.0)
    assert d.length_mean == T


def test_without_drift_every_statistic_is_at_its_rest():
    process, target, _ = random_instance(seed=1)
    d = theory.diagnostics(process, target, target)
    for name in d.names():
        if name.startswith(("kl_", "sequence_kl", "log_ratio", "clip", "weight_share")) or "chi_square" in name:
            assert getattr(d, name) == pytest.approx(0.0, abs=1e-12), name
        elif name.startswith(("ratio", "sequence", "geometric", "largest", "smallest", "weight")) and "std" not in name:
            assert getattr(d, name) == pytest.approx(1.0), name
    assert d.cross_entropy == pytest.approx(d.entropy_behaviour)


def test_agrees_with_the_exact_divergences():
    instance = random_instance(seed=2, T=30)
    d, other = theory.diagnostics(*instance), theory.divergences(*instance)
    assert d.kl_k1 == pytest.approx(other.token.kl_behaviour_target)
    assert d.ratio_chi_square == pytest.approx(other.token.chi_square)
    # Sequences without a token, whose ratio is one, count there and not here.
    acting = 1.0 - instance.process.initial[instance.process.absorbing].sum()
    assert acting < 0.9
    assert acting * d.sequence_ratio_chi_square == pytest.approx(other.sequence.chi_square)
    assert acting * d.length_mean == pytest.approx(other.expected_length)


def test_where_support_is_lost_the_dashboard_does_not_see_it():
    """mu never takes the second action: its data say that half of the ratio is missing, and nothing else."""
    bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    d = theory.diagnostics(bandit, theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy([[0.0, -np.inf]]))
    assert d.ratio_mean == d.sequence_ratio_mean == d.ratio_maximum == pytest.approx(0.5)
    assert d.ratio_effective_sample_size == pytest.approx(1.0)
    assert theory.divergences(
        bandit, theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy([[0.0, -np.inf]])
    ).sequence.lost_mass == pytest.approx(0.5)
    reverse = theory.diagnostics(bandit, theory.SoftmaxPolicy([[0.0, -np.inf]]), theory.SoftmaxPolicy([[0.0, 0.0]]))
    assert reverse.kl_k1 == reverse.perplexity_ratio == math.inf
    assert reverse.ratio_minimum == 0.0
    assert reverse.ratio_effective_sample_size == pytest.approx(0.5)


def test_unknown_is_nan_and_nothing_else():
    process, target, behaviour = random_instance(T=3)
    over = theory.MarkovProcess([0.0, 1.0], [[[0.5, 0.5]], [[0.0, 1.0]]], [[0.0], [0.0]], 2, absorbing=[False, True])
    only = theory.SoftmaxPolicy([[0.0], [0.0]])
    assert all(math.isnan(x) for x in theory.diagnostics(over, only, only).as_dict().values())
    of_group = theory.diagnostics(process, target, behaviour, "ppo_clip", signal=theory.group(4))
    unknown = [name for name, value in of_group.as_dict().items() if math.isnan(value)]
    assert all(name.startswith("weight_") for name in unknown)
    assert len(unknown) == 5


def test_every_statistic_has_a_card_with_formula_and_unit():
    cards = theory.diagnostic_cards()
    assert tuple(cards) == theory.Diagnostics.names()
    for card in cards.values():
        assert card.formula
        assert card.unit in ("1", "nats", "tokens")
        assert card.over in ("tokens", "sequences", "extreme")


@pytest.mark.parametrize("clip", [(1.2, 0.8), (-0.1, 1.0), 0.2, (0.8,), ("a", "b")])
def test_a_clip_that_is_no_interval_is_refused(clip):
    with pytest.raises(ValueError, match=r"clip is .*; expected"):
        theory.diagnostics(*random_instance(T=2), clip=clip)


def test_an_unknown_weight_or_signal_is_refused():
    with pytest.raises(ValueError, match="nearest known name is 'token'"):
        theory.diagnostics(*random_instance(T=2), "tokn")
    with pytest.raises(ValueError, match="nearest known name is 'outcome'"):
        theory.diagnostics(*random_instance(T=2), "ppo_clip", signal="outcom")
