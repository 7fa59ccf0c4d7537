"""The ranking of diagnostics, its correlations, and the counterexample that no diagnostic sees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import testbed
import theory
from testbed import drift
from testbed.prediction.correlation import rounded, spearman

SMALL = {"environments": ("parity", "garnet", "keyword"), "drifts": ("noise", "temperature"), "kl": (0.02, 0.1)}


@pytest.fixture(scope="module")
def cells():
    return testbed.prediction_cells("token", "outcome", **SMALL)


def test_spearman_is_scipys_with_ties_and_without_what_is_not_known():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, (30, 5)).astype(float), rng.normal(size=30)
    x[:, 1], x[3, 2], y[7], x[4, 3] = 2.0, np.nan, np.nan, np.inf
    found = spearman(x, y)
    for i in (0, 2, 3, 4):
        known = ~np.isnan(x[:, i]) & ~np.isnan(y)
        assert found[i] == pytest.approx(stats.spearmanr(x[known, i], y[known]).statistic)
    assert math.isnan(found[1])  # constant
    assert np.isnan(spearman(x[:2], y[:2])).all()


def test_what_is_equal_but_for_rounding_has_no_order():
    x = np.full((9, 1), 0.1) * (1 + 1e-12 * np.arange(9)[:, None])
    assert math.isnan(spearman(rounded(x), np.arange(9.0))[0])
    assert spearman(x, np.arange(9.0))[0] == pytest.approx(1.0)  # negative control: unrounded it has one
    np.testing.assert_array_equal(rounded(np.array([0.0, np.inf, -2.5, np.nan])), [0.0, np.inf, -2.5, np.nan])


def test_cells_hold_what_theory_says(cells):
    # Every noise is reached; hot temperatures of two of the tasks do not reach the larger KL.
    assert [sum(c.drift == kind for c in cells) for kind in ("noise", "temperature")] == [12, 4]
    cell = next(c for c in cells if (c.environment, c.drift, c.seed) == ("garnet", "noise", 1) and c.kl > 0.05)
    task = testbed.environment("garnet")
    pair = drift.at("noise", task.process, task.target, 0.1, seed=1)
    m = theory.moments(task.process, pair.target, pair.behaviour, theory.Estimator("token", "outcome"))
    assert (cell.relative_bias, cell.cosine) == (m.relative_bias, m.cosine)
    assert cell.relative_mse == pytest.approx(m.mean_squared_error(64) / (m.gradient @ m.gradient))
    assert cell.diagnostics == theory.diagnostics(task.process, pair.target, pair.behaviour)
    assert cell.diagnostics.kl_k1 == pytest.approx(0.1)


def test_a_perfect_predictor_is_first_and_noise_is_not(cells):
    """The bias itself, put in the place of one diagnostic, must come first; random numbers must not be certain."""
    rng = np.random.default_rng(1)
    planted = [
        replace(c, diagnostics=replace(c.diagnostics, ratio_mean=-c.relative_bias, weight_mean=rng.normal()))
        for c in cells
    ]
    ranking = testbed.diagnostic_ranking(cells=planted, errors=["relative_bias"], resamples=50)
    first = ranking[0]
    assert first.diagnostic == "ratio_mean"
    assert first.correlation == first.at_equal_kl == first.within_environment == pytest.approx(-1.0)
    assert first.correlation_interval == pytest.approx((-1.0, -1.0))
    noise = next(r for r in ranking if r.diagnostic == "weight_mean")
    assert abs(noise.correlation) < 0.8


def test_records_are_sorted_within_their_intervals_and_repeatable(cells):
    ranking = testbed.diagnostic_ranking(cells=cells, resamples=50, by="at_equal_kl")
    names = theory.Diagnostics.names()
    assert [r.error for r in ranking] == ["relative_bias"] * len(names) + ["cosine"] * len(names)
    for error in ("relative_bias", "cosine"):
        sizes = [abs(r.at_equal_kl) for r in ranking if r.error == error]
        known = [x for x in sizes if not math.isnan(x)]
        assert known == sorted(known, reverse=True)
        assert all(math.isnan(x) for x in sizes[len(known) :])
    for r in ranking:
        assert not r.correlation_interval.low > r.correlation_interval.high
        assert math.isnan(r.correlation) or -1 <= r.correlation <= 1
    # All cells of one level have the same KL, so it says nothing there, but much over all.
    kl = next(r for r in ranking if (r.diagnostic, r.error) == ("kl_k1", "relative_bias"))
    assert math.isnan(kl.at_equal_kl)
    assert kl.correlation > 0.4
    again = testbed.diagnostic_ranking(cells=cells, resamples=50, by="at_equal_kl")
    assert repr(again) == repr(ranking)


def test_nothing_predicts_the_bias_of_an_unbiased_estimator():
    """Its bias is rounding, which must not be ordered; with the token weight there is something to order."""
    unbiased = testbed.prediction_cells("sequence", "outcome", **SMALL)
    ranking = testbed.diagnostic_ranking(cells=unbiased, errors=["relative_bias", "relative_mse"], resamples=5)
    assert all(math.isnan(r.correlation) for r in ranking if r.error == "relative_bias")
    assert any(abs(r.correlation) > 0.5 for r in ranking if r.error == "relative_mse")


@pytest.mark.parametrize("epsilon", [0.001, 0.1, 0.4])
@pytest.mark.parametrize("weight", ["none", "token", "prefix", "minpro"])
def test_full_effective_sample_size_and_wrong_sign(epsilon, weight):
    seen = testbed.blind_spot(weight, epsilon=epsilon)
    assert seen.truth == pytest.approx(-epsilon / 2)
    assert seen.expected == pytest.approx(epsilon / 2)
    assert seen.wrong_sign
    assert seen.first_token_effective_sample_size == pytest.approx(1.0)


def test_the_sign_is_right_where_later_tokens_are_corrected_and_drift_vanishes_from_the_dashboard():
    assert not testbed.blind_spot("sequence").wrong_sign  # negative control
    assert not testbed.blind_spot("prefix", "target_advantage").wrong_sign
    tiny = testbed.blind_spot("token", epsilon=0.001)
    assert tiny.wrong_sign
    assert tiny.diagnostics.ratio_effective_sample_size > 0.99999
    assert tiny.diagnostics.kl_k1 < 1e-5
    assert tiny.diagnostics.clip_fraction == 0.0


def test_bad_questions_are_refused_in_the_users_words(cells):
    with pytest.raises(ValueError, match="nearest known name is 'cosine'"):
        testbed.diagnostic_ranking(cells=cells, errors=["cosin"])
    with pytest.raises(ValueError, match="nearest known name is 'at_equal_kl'"):
        testbed.diagnostic_ranking(cells=cells, by="equal_kl")
    with pytest.raises(ValueError, match="only 2 cells were reached"):
        testbed.diagnostic_ranking(cells=cells[:2])
    with pytest.raises(ValueError, match="level is 95"):
        testbed.diagnostic_ranking(cells=cells, level=95)
    with pytest.raises(ValueError, match="nearest known name is 'parity'"):
        testbed.prediction_cells(environments=["paritty"])
