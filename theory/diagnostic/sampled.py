"""The same statistics from a batch of token log-probabilities, as dashboards compute them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.diagnostic.record import Diagnostics
from theory.diagnostic.tokens import checked_clip, deviation, effective_sample_size, token_statistics
from theory.weights.registry import weight as weight_by_name

Array = NDArray[np.float64]


def sampled_diagnostics(
    log_ratio: Any,
    mask: Any = None,
    *,
    behaviour_log_probability: Any = None,
    target_entropy: Any = None,
    behaviour_entropy: Any = None,
    weight: Any = "token",
    advantage: Any = None,
    clip: tuple[float, float] = (0.8, 1.2),
) -> Diagnostics:
    """Every statistic of `theory.diagnostics` from a batch of sequences drawn from mu.

    Token statistics are masked means over all tokens of the batch, sequence statistics are means over the sequences
    that have a token, extremes are of the batch. Ratios of means are biased of order 1/N.

    Args:
        log_ratio: (N, T), log pi(a_t|s_t) - log mu(a_t|s_t); anything that NumPy can read, also a tensor on the CPU.
        mask: (N, T), true or non-zero where the token counts; default all.
        behaviour_log_probability: (N, T), log mu(a_t|s_t), for perplexities and cross-entropy; NaN without.
        target_entropy: (N, T), entropy of pi(.|s_t); NaN without.
        behaviour_entropy: (N, T), entropy of mu(.|s_t); NaN without.
        weight: of the statistics whose names begin with `weight_`.
        advantage: (N, T), for weights that look at its sign.
        clip: bounds of the ratio of a token, for the clip fractions.

    >>> d = theory.sampled_diagnostics([[0.0, 0.0], [np.log(2.0), 0.0]])
    >>> round(d.ratio_effective_sample_size, 6)  # 1.25^2 / 1.75
    0.892857

    Raises:
        ValueError: shapes disagree, NaN or +inf at a token that counts, no token counts, or a clip that is no interval.
    """
    bounds, chosen = checked_clip(clip), weight_by_name(weight)
    l = checks.numbers("log_ratio", log_ratio)  # noqa: E741 - the letter of the formulas
    if l.ndim != 2:
        raise ValueError(f"log_ratio has shape {l.shape}; expected (N, T)")
    counts = np.ones(l.shape, bool) if mask is None else checks.numbers("mask", mask) != 0.0
    if counts.shape != l.shape:
        raise ValueError(f"mask has shape {counts.shape}; expected {l.shape}, that of log_ratio")
    if not counts.any():
        raise ValueError("no token counts; expected a mask that is true somewhere")
    coefficients = np.asarray(chosen.coefficients(l, counts, advantage))
    l = np.where(counts, l, 0.0)  # noqa: E741
    has_token = counts.any(axis=1)
    length = counts.sum(axis=1)[has_token]

    def average(f: Array) -> float:
        return float(f[counts].mean())

    def average_sum(f: Array) -> Array:
        return np.asarray(np.where(counts, f, 0.0).sum(axis=1)[has_token])

    log_w = average_sum(l)
    values = token_statistics(l, average, bounds) | _of_sequences(log_w, length)
    top, bottom = (np.where(counts, l, fill) for fill in (-np.inf, np.inf))
    low, high = float(bottom.min()), float(top.max())
    second = average(coefficients**2)
    zero = (coefficients == 0.0) & counts
    values |= {
        "ratio_maximum": float(np.exp(high)),
        "ratio_minimum": float(np.exp(low)),
        "log_ratio_absolute_maximum": max(abs(low), abs(high)),
        "largest_ratio_mean": float(np.exp(top.max(axis=1)[has_token]).mean()),
        "smallest_ratio_mean": float(np.exp(bottom.min(axis=1)[has_token]).mean()),
        "length_mean": float(length.mean()),
        "weight_mean": average(coefficients),
        "weight_std": deviation(average(coefficients), second),
        "weight_effective_sample_size": effective_sample_size(average(coefficients), second),
        "weight_share_zero": float(zero.sum() / counts.sum()),
        "weight_share_sequences_zero": float((zero.sum(axis=1)[has_token] == length).mean()),
    }
    if target_entropy is not None:
        values["entropy_target"] = average(_beside("target_entropy", target_entropy, l, counts))
    if behaviour_entropy is not None:
        values["entropy_behaviour"] = average(_beside("behaviour_entropy", behaviour_entropy, l, counts))
    if behaviour_log_probability is not None:
        log_mu = _beside("behaviour_log_probability", behaviour_log_probability, l, counts)
        with np.errstate(over="ignore"):
            values |= {
                "cross_entropy": average(-log_mu - l),
                "perplexity_behaviour": float(np.exp(-average_sum(log_mu) / length).mean()),
                "perplexity_target": float(np.exp(-(average_sum(log_mu) + log_w) / length).mean()),
            }
    return Diagnostics(**values)


def _of_sequences(log_w: Array, length: Array) -> dict[str, float]:
    with np.errstate(over="ignore"):
        w, geometric = np.exp(log_w), np.exp(log_w / length)
        mean, second = float(w.mean()), float(np.exp(2.0 * log_w).mean())
        return {
            "sequence_ratio_mean": mean,
            "sequence_ratio_effective_sample_size": effective_sample_size(mean, second),
            "sequence_ratio_chi_square": second - 1.0,
            "sequence_ratio_maximum": float(w.max()),
            "sequence_ratio_minimum": float(w.min()),
            "sequence_kl_k1": float(-log_w.mean()),
            "sequence_kl_k3": float((np.expm1(log_w) - log_w).mean()),
            "geometric_ratio_mean": float(geometric.mean()),
            "geometric_chi_square": float((geometric**2).mean()) - 1.0,
            "perplexity_ratio": float(np.exp(-log_w / length).mean()),
        }


def _beside(name: str, value: Any, log_ratio: Array, counts: NDArray[np.bool_]) -> Array:
    array = checks.numbers(name, value)
    if array.shape != log_ratio.shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {log_ratio.shape}, that of log_ratio")
    if np.isnan(array[counts]).any():
        raise ValueError(f"{name} is NaN at a token that counts; expected numbers there")
    return array
