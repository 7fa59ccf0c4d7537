"""The statistics of a few seeds: intervals of means and shares, paired differences, many comparisons at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from theory import checks


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


class Paired(NamedTuple):
    """What a paired comparison found."""

    difference: Interval
    """Mean of the differences."""
    t_p: float
    """Two-sided p-value of Student's paired t-test; NaN where all differences are the same number."""
    wilcoxon_p: float
    """Two-sided p-value of Wilcoxon's signed-rank test: exact, but for ties or differences of zero, where it is the
    exact permutation distribution of the signs. NaN where every difference is zero."""
    pairs: int


def mean_interval(
    values: ArrayLike, level: float = 0.95, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """Mean of n independent values with Student's t interval, mean +- t_{n-1} s / sqrt(n), cut to `bounds`.

    The interval is exact for normal values and keeps its coverage within a few per cent for bounded ones that do not
    pile up at an end; where few of many runs collapse it is too short, which the share collapsed beside it tells.

    Args:
        values: (n,) one per seed.
        level: of confidence.
        bounds: between which the mean is known to lie.

    Returns:
        NaN ends for fewer than two values, where nothing is known of the spread; all NaN for none or a NaN among them.
    """
    x = _values(values)
    if x.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(x.mean())
    if x.size < 2 or math.isnan(mean):
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + level / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size))
    return Interval(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def share_interval(hits: int, trials: int, level: float = 0.95) -> Interval:
    """Share of hits with the Clopper-Pearson interval, from quantiles of the beta distribution.

    It inverts two one-sided binomial tests, so that its coverage is never below `level`, for no number of trials and no
    share; the price is width. Clopper & Pearson 1934.

    Raises:
        ValueError: hits beyond the trials, or negative numbers.
    """
    hits, trials = checks.whole_number("hits", hits, 0, "hits"), checks.whole_number("trials", trials, 0, "trials")
    if hits > trials:
        raise ValueError(f"hits is {hits} of {trials} trials; expected at most as many")
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return Interval(hits / trials, low, high)


def paired(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Paired:
    """Compare values of the same seeds: first - second, by Student's t and by Wilcoxon's signed ranks.

    With n pairs the least p-value that signed ranks can give is 2 / 2^n: 0.0078 for 8.

    Raises:
        ValueError: different numbers of values.
    """
    x, y = _values(first), _values(second)
    if x.shape != y.shape:
        raise ValueError(
            f"the values to compare are {x.size} and {y.size}; expected as many of the one as of the other"
        )
    difference = x - y
    interval = mean_interval(difference, level)
    if difference.size < 2 or not np.isfinite(difference).all():
        return Paired(interval, math.nan, math.nan, difference.size)
    spread = float(difference.std(ddof=1))
    t_p = math.nan if spread == 0.0 else float(stats.ttest_rel(x, y).pvalue)
    return Paired(interval, t_p, _signed_ranks_p(difference), difference.size)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of m p-values: the i-th smallest times m - i + 1, made monotone, at most 1.

    Rejecting where the result is at most alpha keeps the chance of any false rejection at alpha, whatever the p-values'
    dependence. NaN, where nothing differs, stays NaN; it was a comparison all the same and counts among the m.
    Holm 1979.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, math.nan)
    factors = p.size - np.arange(order.size)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def _signed_ranks_p(difference: NDArray[np.float64]) -> float:
    """All 2^n signs are equally likely under the null hypothesis; zeros carry rank but no sign (Pratt 1959)."""
    if not difference.any():
        return math.nan
    ties = np.unique(np.abs(difference)).size < difference.size or not difference.all()
    if not ties:
        return float(stats.wilcoxon(difference, method="exact").pvalue)
    method = stats.PermutationMethod(n_resamples=2**16, rng=np.random.default_rng(0))
    return float(stats.wilcoxon(difference, zero_method="pratt", method=method).pvalue)


def _values(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1)
