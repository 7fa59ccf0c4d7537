"""Statistics of single tokens as functions of the log-ratio, averaged by a caller: over a table, or over a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Average = Callable[[Array], float]
"""From a number per token to its mean over tokens, whatever the tokens are."""


def token_statistics(log_ratio: Array, average: Average, clip: tuple[float, float]) -> dict[str, float]:
    """What depends on the log-ratios l of single tokens alone, without extremes."""
    low, high = clip
    with np.errstate(over="ignore"):
        ratio, folded, squared = np.exp(log_ratio), np.exp(np.abs(log_ratio)), np.exp(2.0 * log_ratio)
    mean, second, k1 = average(ratio), average(squared), average(-log_ratio)
    below, above = average((ratio < low).astype(float)), average((ratio > high).astype(float))
    return {
        "ratio_mean": mean,
        "ratio_std": deviation(mean, second),
        "ratio_effective_sample_size": effective_sample_size(mean, second),
        "ratio_chi_square": second - 1.0,
        "kl_k1": k1,
        "kl_k2": 0.5 * average(log_ratio**2),
        # expm1 minus l, not rho minus one minus l: small divergences keep their digits.
        "kl_k3": average(_k3(log_ratio)),
        "log_ratio_absolute_mean": average(np.abs(log_ratio)),
        "ratio_folded_mean": average(folded),
        "clip_fraction": below + above,
        "clip_fraction_low": below,
        "clip_fraction_high": above,
    }


def _k3(log_ratio: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(np.expm1(log_ratio) - log_ratio)


def deviation(mean: float, second: float) -> float:
    """sqrt(second - mean^2), zero where rounding makes it negative."""
    return float(np.sqrt(np.maximum(second - mean**2, 0.0)))


def effective_sample_size(mean: float, second: float) -> float:
    """mean^2 / second, a share; NaN where all are zero or the second moment is infinite beyond use."""
    return mean**2 / second if second > 0.0 else float("nan")


def checked_clip(clip: object) -> tuple[float, float]:
    """The clip as two numbers, 0 <= low < high.

    Raises:
        ValueError: it is something else.
    """
    try:
        low, high = (float(x) for x in clip)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low = high = float("nan")
    if not 0.0 <= low < high:
        raise ValueError(f"clip is {clip!r}; expected (low, high) with 0 <= low < high, bounds of the ratio itself")
    return low, high
