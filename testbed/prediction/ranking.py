"""The ranking of diagnostics by how well they predict an exact error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import theory
from testbed.prediction.cells import PredictionCell, prediction_cells
from testbed.prediction.correlation import mean_of_known, percentile, rounded, spearman
from theory import checks

Array = NDArray[np.float64]

ERRORS = {
    "relative_bias": "|E[g_hat] - g| / |g|",
    "cosine": "cosine of the angle between E[g_hat] and g",
    "relative_mse": "E|mean of a batch - g|^2 / |g|^2",
}
ORDERS = ("correlation", "at_equal_kl", "within_environment")


class Interval(NamedTuple):
    """Percentiles of the bootstrap; NaN where the correlation is not defined."""

    low: float
    high: float


@dataclass(frozen=True)
class DiagnosticPrediction:
    """How well a diagnostic orders the cells by an error: Spearman's rank correlation, NaN where all are equal."""

    diagnostic: str
    error: str
    correlation: float
    """Over all cells. Part of it is only that more drift means more of everything."""
    correlation_interval: Interval
    at_equal_kl: float
    """Mean of the correlations within each level of KL: what it knows beyond the KL."""
    at_equal_kl_interval: Interval
    within_environment: float
    """Mean of the correlations within each environment: whether a rising curve in one task means a rising error."""
    within_environment_interval: Interval
    cells: int
    """Cells with a known value of the diagnostic."""


def diagnostic_ranking(
    weight: Any = "token",
    signal: Any = "outcome",
    *,
    errors: Sequence[str] = ("relative_bias", "cosine"),
    by: str = "correlation",
    resamples: int = 400,
    level: float = 0.95,
    seed: int = 0,
    cells: Sequence[PredictionCell] | None = None,
    **axes: Any,
) -> list[DiagnosticPrediction]:
    """Every diagnostic by how well it predicts the exact error of an estimator, best first within each error.

    Intervals are percentiles of a bootstrap that draws whole environments with replacement, since cells of one
    environment resemble each other; with eight environments they are wide, and that is what is known. The two-token
    counterexample is left out on purpose: no statistic of ratios sees it, see `blind_spot`.

    Args:
        weight: of the estimator, and of the diagnostics named `weight_`.
        signal: of the estimator.
        errors: of "relative_bias", "cosine", "relative_mse".
        by: "correlation", "at_equal_kl" or "within_environment": whose absolute value orders the records.
        resamples: of the bootstrap.
        level: of the intervals.
        seed: of the bootstrap.
        cells: from `prediction_cells`, where they are computed already.
        **axes: of `prediction_cells`.

    Raises:
        ValueError: an unknown name, or fewer than three cells.
    """
    checks.known_name("order", by, ORDERS)
    for error in errors:
        checks.known_name("error", error, ERRORS)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level!r}; expected a number between 0 and 1")
    found = list(prediction_cells(weight, signal, **axes) if cells is None else cells)
    if len(found) < 3:
        raise ValueError(f"only {len(found)} cells were reached; expected at least 3 to correlate")
    result = []
    for error in errors:
        records = _ranked(found, error, resamples, level, np.random.default_rng(seed))
        # What is not defined goes last.
        result += sorted(records, key=lambda r: -np.nan_to_num(abs(getattr(r, by)), nan=-1.0))
    return result


def _ranked(
    cells: list[PredictionCell], error: str, resamples: int, level: float, rng: np.random.Generator
) -> list[DiagnosticPrediction]:
    names = theory.Diagnostics.names()
    x = rounded(np.array([[getattr(c.diagnostics, name) for name in names] for c in cells]))
    # An unbiased estimator's bias is rounding: errors that differ by less have no order.
    y = np.round([getattr(c, error) for c in cells], 9)
    environments = np.unique([c.environment for c in cells], return_inverse=True)[1]
    # The KL reached differs from the level asked for in its last digits.
    levels = np.unique(np.round(np.log([c.kl for c in cells]), 6), return_inverse=True)[1]
    members = [np.flatnonzero(environments == e) for e in range(environments.max() + 1)]
    alone = np.array([spearman(x[rows], y[rows]) for rows in members])

    def three(drawn: Any) -> Array:
        rows = np.concatenate([members[e] for e in drawn])
        by_level = np.array([spearman(x[r], y[r]) for r in (rows[levels[rows] == k] for k in np.unique(levels[rows]))])
        return np.stack([spearman(x[rows], y[rows]), mean_of_known(by_level), mean_of_known(alone[drawn])])

    estimates = three(np.arange(len(members)))
    draws = np.array([three(rng.integers(len(members), size=len(members))) for _ in range(resamples)])
    tail = 50.0 * (1.0 - level)
    low, high = (percentile(draws, q) for q in (tail, 100.0 - tail))
    known = (~np.isnan(x)).sum(axis=0)
    return [
        DiagnosticPrediction(
            name, error,
            float(estimates[0, i]), Interval(float(low[0, i]), float(high[0, i])),
            float(estimates[1, i]), Interval(float(low[1, i]), float(high[1, i])),
            float(estimates[2, i]), Interval(float(low[2, i]), float(high[2, i])),
            int(known[i]),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
