"""Rank correlation of many columns at once, with values that are not known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


def spearman(x: Array, y: Array) -> Array:
    """Spearman's rank correlation of each column of x (N, D) with y (N,), (D,); ties get their mean rank.

    NaN for a column with fewer than three known values, or where either side is constant.
    """
    defined = ~np.isnan(y)
    x, y = x[defined], y[defined]
    known, result = ~np.isnan(x), np.full(x.shape[1], np.nan)
    complete = known.all(axis=0)
    result[complete] = _rank_correlation(x[:, complete], y)
    for column in np.flatnonzero(~complete):
        rows = known[:, column]
        result[[column]] = _rank_correlation(x[rows][:, [column]], y[rows])
    return result


def _rank_correlation(x: Array, y: Array) -> Array:
    if len(y) < 3:
        return np.full(x.shape[1], np.nan)
    middle = 0.5 * (len(y) + 1)
    left, right = rankdata(x, axis=0) - middle, rankdata(y) - middle
    norms = np.sqrt((left**2).sum(axis=0) * (right @ right))
    return np.where(norms > 0.0, right @ left / np.where(norms > 0.0, norms, 1.0), np.nan)


def rounded(x: Array) -> Array:
    """To 8 digits: rounding must not order what is equal, such as the KL of cells that were made to have the same."""
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = 10.0 ** (8 - np.floor(np.log10(np.abs(x))))
        return np.where(np.isfinite(digits * x), np.round(x * digits) / digits, x)


def mean_of_known(parts: Array) -> Array:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(parts)
    return np.asarray(np.where(known, parts, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan))


def percentile(draws: Array, q: float) -> Array:
    """Percentile over the first axis, leaving out NaN; NaN where there is nothing else."""
    lost = np.isnan(draws).all(axis=0)
    return np.where(lost, np.nan, np.nanpercentile(np.where(lost, 0.0, draws), q, axis=0))
