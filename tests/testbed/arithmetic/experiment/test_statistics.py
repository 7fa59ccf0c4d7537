"""The statistics of a few seeds, each by a second way, and their coverage by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from testbed.arithmetic.experiment.statistics import holm, mean_interval, paired, share_interval

VALUES = [0.41, 0.55, 0.47, 0.62, 0.38, 0.51, 0.44, 0.59]
OTHERS = [0.36, 0.57, 0.40, 0.49, 0.33, 0.52, 0.31, 0.45]
FALSE_ALARM = 1e-6
"""Of each simulated test of a coverage, two-sided."""
REPEATS = 4000


def covers(share, repeats, nominal):
    """Whether a simulated coverage is that of the nominal level, by an exact binomial test."""
    return stats.binomtest(round(share * repeats), repeats, nominal).pvalue > FALSE_ALARM


def test_interval_of_a_mean_by_hand():
    n, mean = len(VALUES), sum(VALUES) / len(VALUES)
    spread = math.sqrt(sum((v - mean) ** 2 for v in VALUES) / (n - 1))
    # Student's t for 7 degrees of freedom, as printed tables have it.
    half = 2.3646 * spread / math.sqrt(n)
    assert mean_interval(VALUES) == pytest.approx((mean, mean - half, mean + half), rel=1e-4)
    # The control: the normal quantile gives another, shorter one.
    assert mean_interval(VALUES).high > mean + 1.1 * 1.96 * spread / math.sqrt(n)


def test_interval_of_a_mean_is_that_of_the_t_test():
    found = stats.ttest_1samp(VALUES, 0.0).confidence_interval(0.9)
    assert mean_interval(VALUES, 0.9)[1:] == pytest.approx((found.low, found.high), rel=1e-12)


def test_what_is_not_known_is_not_a_number():
    one, none, gone = mean_interval([0.5]), mean_interval([]), mean_interval([0.5, math.nan])
    assert one.estimate == 0.5
    assert all(map(math.isnan, (one.low, one.high, *none, *gone)))
    assert all(map(math.isnan, share_interval(0, 0)))


def test_interval_is_cut_to_its_bounds():
    assert mean_interval([0.0, 1.0], bounds=(0.0, 1.0)) == (0.5, 0.0, 1.0)
    assert mean_interval([0.0, 1.0]).low < 0.0


@pytest.mark.parametrize("law", ["normal", "beta"])
def test_coverage_of_means(law):
    """95 % for normal values, at 8 seeds; within 2 % for accuracies, here of a beta law with standard deviation 0.1."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.6, 0.1, (REPEATS, 8)) if law == "normal" else rng.beta(13.8, 9.2, (REPEATS, 8))
    intervals = [mean_interval(row, bounds=(0.0, 1.0)) for row in values]
    share = np.mean([low <= 0.6 <= high for _, low, high in intervals])
    assert covers(share, REPEATS, 0.95) if law == "normal" else abs(share - 0.95) < 0.02
    # The control: with the normal quantile in the place of Student's it does not.
    half = stats.norm.ppf(0.975) * values.std(1, ddof=1) / math.sqrt(8)
    assert not covers(np.mean(np.abs(values.mean(1) - 0.6) <= half), REPEATS, 0.95)


def test_coverage_of_means_falls_where_one_run_in_ten_collapses():
    """What the docstring warns of: 8 seeds of which 10 % end at 0 have a mean of 0.54, and fewer intervals hold it."""
    rng = np.random.default_rng(1)
    values = np.where(rng.random((REPEATS, 8)) < 0.1, 0.0, rng.normal(0.6, 0.03, (REPEATS, 8)))
    share = np.mean([low <= 0.54 <= high for _, low, high in map(mean_interval, values)])
    assert 0.5 < share < 0.9


@pytest.mark.parametrize("trials", [1, 2, 8, 20])
def test_coverage_of_shares_is_never_below_its_level(trials):
    """Exact, by the binomial law: no simulation and no false alarm."""
    intervals = [share_interval(hits, trials) for hits in range(trials + 1)]
    grid = np.linspace(0.001, 0.999, 400)
    hits = np.arange(trials + 1)
    for p in grid:
        inside = np.array([low <= p <= high for _, low, high in intervals])
        assert stats.binom.pmf(hits, trials, p)[inside].sum() >= 0.95
    # The control: the textbook interval p +- 1.96 sqrt(p (1 - p) / n) does fall below.
    p_hat = hits / trials
    half = 1.96 * np.sqrt(p_hat * (1 - p_hat) / trials)
    least = min(stats.binom.pmf(hits, trials, p)[np.abs(p - p_hat) <= half].sum() for p in grid)
    assert least < 0.5


@pytest.mark.parametrize(("hits", "trials"), [(0, 8), (2, 8), (8, 8), (3, 40)])
def test_interval_of_a_share_inverts_binomial_tests(hits, trials):
    found = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert share_interval(hits, trials) == pytest.approx((hits / trials, found.low, found.high), abs=1e-9)
    # The rule of three: nothing seen in n trials leaves 1 - 0.025^(1/n).
    if hits == 0:
        assert share_interval(hits, trials).high == pytest.approx(1 - 0.025 ** (1 / trials), rel=1e-12)


def test_shares_are_checked_at_the_door():
    with pytest.raises(ValueError, match="hits is 3 of 2 trials"):
        share_interval(3, 2)
    with pytest.raises(ValueError, match="hits is -1"):
        share_interval(-1, 2)


def test_paired_comparison_by_enumeration_of_signs():
    found = paired(VALUES, OTHERS)
    difference = np.subtract(VALUES, OTHERS)
    assert found.pairs == 8
    assert found.difference == pytest.approx(mean_interval(difference))
    assert found.t_p == pytest.approx(stats.ttest_1samp(difference, 0.0).pvalue, rel=1e-12)
    ranks = stats.rankdata(np.abs(difference))
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([True, False], repeat=8)])
    seen, middle = ranks[difference > 0].sum(), ranks.sum() / 2
    assert found.wilcoxon_p == pytest.approx(np.mean(np.abs(sums - middle) >= abs(seen - middle) - 1e-9), rel=1e-12)
    # The controls: the other direction has the same p-values, and comparing without pairs others.
    other = paired(OTHERS, VALUES)
    assert (other.t_p, other.wilcoxon_p) == pytest.approx((found.t_p, found.wilcoxon_p))
    assert found.t_p < 0.5 * stats.ttest_ind(VALUES, OTHERS).pvalue


def test_ties_and_zeros_are_permuted():
    difference = np.array([0.25, 0.25, -0.25, 0.0, 0.5, 0.75])
    ranks = stats.rankdata(np.abs(difference))[difference != 0]
    signs = np.array(list(product([1, -1], repeat=5)))
    seen = (ranks * np.sign(difference[difference != 0])).sum()
    expected = np.mean(np.abs(signs @ ranks) >= abs(seen) - 1e-9)
    assert paired(difference, np.zeros(6)).wilcoxon_p == pytest.approx(expected, rel=1e-12)


def test_values_that_do_not_differ_have_no_p_value():
    found = paired(VALUES, VALUES)
    assert found.difference == (0.0, 0.0, 0.0)
    assert math.isnan(found.t_p)
    assert math.isnan(found.wilcoxon_p)
    with pytest.raises(ValueError, match="are 8 and 7; expected as many"):
        paired(VALUES, OTHERS[:7])


def test_false_alarms_of_the_paired_tests():
    """5 % where nothing differs but the seeds: exact for t and normal differences, at most that for signed ranks."""
    rng, repeats = np.random.default_rng(2), 1500
    seeds = rng.normal(0.5, 0.2, (repeats, 8))
    first, second = (seeds + rng.normal(0.0, 0.05, (repeats, 8)) for _ in range(2))
    found = [paired(a, b) for a, b in zip(first, second, strict=True)]
    assert covers(np.mean([p.t_p <= 0.05 for p in found]), repeats, 0.05)
    # 8 pairs have no signed-rank p-value between 0.0391 and 0.0547.
    assert covers(np.mean([p.wilcoxon_p <= 0.05 for p in found]), repeats, 10 / 256)
    # The control: a method that is better is found out.
    better = [paired(a + 0.1, b) for a, b in zip(first[:200], second[:200], strict=True)]
    assert np.mean([p.t_p <= 0.05 for p in better]) > 0.8


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    # What could not be tested was a comparison all the same.
    found = holm([0.01, math.nan, 0.02])
    assert found[0] == pytest.approx(0.03)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(0.04)


def test_holm_is_the_closed_test_of_all_intersections():
    rng = np.random.default_rng(3)
    for p in rng.random((50, 4)) ** 3:
        subsets = [s for s in product([True, False], repeat=4) if any(s)]
        expected = [max(min(1.0, sum(s) * p[list(s)].min()) for s in subsets if s[i]) for i in range(4)]
        assert holm(p) == pytest.approx(expected, rel=1e-12)


def test_holm_keeps_the_chance_of_any_false_alarm():
    """9 methods against one reference, as in the experiment: their p-values depend on each other."""
    rng = np.random.default_rng(4)
    repeats, any_plain, any_adjusted = 1500, 0, 0
    for _ in range(repeats):
        reference, methods = rng.normal(size=8), rng.normal(size=(9, 8))
        p = stats.ttest_1samp(methods - reference, 0.0, axis=1).pvalue
        any_plain += min(p) <= 0.05
        any_adjusted += min(holm(p)) <= 0.05
    assert stats.binomtest(any_adjusted, repeats, 0.05, alternative="greater").pvalue > FALSE_ALARM
    # The control: without it there is one in most experiments of four staleness values.
    assert any_plain / repeats > 0.15
