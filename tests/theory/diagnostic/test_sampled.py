"""Sampled statistics against the exact ones within their standard errors, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import theory
from tests.instances import random_instance
from tests.theory.diagnostic import plain

BATCHES, SIZE = 40, 500
# Over all statistics of one comparison; two comparisons below expect to pass, so the file's is twice this.
FALSE_ALARM = 1e-4
WEIGHT = theory.weight("minpro", clip=(0.9, 1.05))


@pytest.fixture(scope="module")
def drawn():
    instance = random_instance(seed=5, S=3, A=2, T=4, drift=0.3)
    process, _, behaviour = instance
    states, actions, acting = plain.sample(process, behaviour, BATCHES * SIZE, np.random.default_rng(0))
    return instance, np.split(states, BATCHES), np.split(actions, BATCHES), np.split(acting, BATCHES)


def entropy(policy):
    return -(policy.probabilities * policy.log_probabilities).sum(axis=1)


def of_batches(drawn, weight=WEIGHT):
    (_, target, behaviour), *arrays = drawn
    log_ratio = target.log_probabilities - behaviour.log_probabilities
    return [
        theory.sampled_diagnostics(
            np.where(m, log_ratio[s, a], np.nan),
            m,
            behaviour_log_probability=behaviour.log_probabilities[s, a],
            target_entropy=entropy(target)[s],
            behaviour_entropy=entropy(behaviour)[s],
            weight=weight,
        )
        for s, a, m in zip(*arrays, strict=True)
    ]


def rejected(batches, exact):
    """Statistics whose mean over the batches is further from the exact value than Student's quantile allows."""
    names = [n for n, card in theory.diagnostic_cards().items() if card.over != "extreme"]
    quantile = stats.t.isf(FALSE_ALARM / 2 / len(names), BATCHES - 1)
    result = set()
    for name in names:
        values = np.array([getattr(b, name) for b in batches])
        error = values.std(ddof=1) / math.sqrt(BATCHES)
        if abs(values.mean() - getattr(exact, name)) > quantile * error + 1e-12:
            result.add(name)
    return result


def test_sampled_statistics_estimate_the_exact_ones(drawn):
    batches, exact = of_batches(drawn), theory.diagnostics(*drawn[0], WEIGHT)
    assert not any(math.isnan(x) for x in batches[0].as_dict().values())
    assert rejected(batches, exact) == set()


def test_the_comparison_rejects_what_is_wrong(drawn):
    """Negative control: exact values of the swapped policies, of mu's data on pi, and of another weight."""
    process, target, behaviour = drawn[0]
    batches = of_batches(drawn)
    swapped = rejected(batches, theory.diagnostics(process, behaviour, target, WEIGHT))
    assert {"perplexity_ratio", "entropy_target", "weight_mean", "clip_fraction_low"} <= swapped
    other = rejected(batches, theory.diagnostics(process, target, behaviour, "prefix"))
    assert {"weight_std", "weight_mean"} & other
    assert all(name.startswith("weight") for name in other)


def test_extremes_of_a_batch_stay_within_the_exact_ones(drawn):
    exact, rounding = theory.diagnostics(*drawn[0]), 1 + 1e-12
    for batch in of_batches(drawn):
        assert batch.ratio_maximum <= exact.ratio_maximum * rounding
        assert batch.ratio_minimum >= exact.ratio_minimum / rounding
        assert batch.sequence_ratio_maximum <= exact.sequence_ratio_maximum * rounding
        assert batch.sequence_ratio_minimum >= exact.sequence_ratio_minimum / rounding
        assert batch.log_ratio_absolute_maximum <= exact.log_ratio_absolute_maximum * rounding


def test_by_hand():
    """Two sequences, ratios (2, 1/2) and (4, masked)."""
    l = np.log([[2.0, 0.5], [4.0, 99.0]])  # noqa: E741
    mask = [[1, 1], [1, 0]]
    d = theory.sampled_diagnostics(l, mask, weight=theory.weight("masked", interval=(0.1, 3.0)))
    assert d.ratio_mean == pytest.approx(6.5 / 3)
    assert d.ratio_effective_sample_size == pytest.approx(6.5**2 / (3 * 20.25))
    assert d.kl_k1 == pytest.approx(-math.log(4) / 3)
    assert d.sequence_ratio_mean == pytest.approx(2.5)
    assert d.geometric_ratio_mean == pytest.approx(2.5)
    assert (d.ratio_maximum, d.ratio_minimum, d.largest_ratio_mean) == pytest.approx((4.0, 0.5, 3.0))
    assert d.length_mean == 1.5
    assert (d.weight_share_zero, d.weight_share_sequences_zero) == pytest.approx((1 / 3, 1 / 2))
    assert (d.clip_fraction_low, d.clip_fraction_high) == pytest.approx((1 / 3, 2 / 3))
    assert math.isnan(d.entropy_target)
    assert math.isnan(d.perplexity_target)


def test_reads_a_tensor():
    torch = pytest.importorskip("torch")
    l = np.random.default_rng(0).normal(size=(4, 3))  # noqa: E741
    for a, b in zip(
        theory.sampled_diagnostics(torch.tensor(l)).as_dict().values(),
        theory.sampled_diagnostics(l).as_dict().values(),
        strict=True,
    ):
        assert a == pytest.approx(b, nan_ok=True)


def test_bad_input_is_refused_in_the_users_words():
    with pytest.raises(ValueError, match=r"log_ratio has shape \(3,\); expected \(N, T\)"):
        theory.sampled_diagnostics([0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"mask has shape \(1, 1\); expected \(1, 2\)"):
        theory.sampled_diagnostics([[0.0, 0.0]], [[1]])
    with pytest.raises(ValueError, match="no token counts"):
        theory.sampled_diagnostics([[0.0, 0.0]], [[0, 0]])
    with pytest.raises(ValueError, match="target_entropy has shape"):
        theory.sampled_diagnostics([[0.0, 0.0]], target_entropy=[[1.0]])
    with pytest.raises(ValueError, match="NaN"):
        theory.sampled_diagnostics([[0.0, np.nan]])
    with pytest.raises(ValueError, match="behaviour_log_probability is NaN"):
        theory.sampled_diagnostics([[0.0, 0.0]], behaviour_log_probability=[[0.0, np.nan]])
