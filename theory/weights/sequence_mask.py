"""Whole sequences kept or dropped by one number."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import bounds_nothing, check_bounds, check_pair, check_word
from theory.weights.registry import SEQUENCE, Card, Parts, register
from theory.weights.tokens import Tokens

STATISTICS = {
    "geometric": "W^(1/L)",
    "product": "W",
    "k1": "mean over t of -l_t, an estimate of KL(mu || pi) that may be negative; -log of 'geometric'",
    "k2": "mean over t of l_t^2 / 2",
    "k3": "mean over t of rho_t - 1 - l_t",
    "sum_k2": "sum over t of l_t^2 / 2",
    "sum_k3": "sum over t of rho_t - 1 - l_t",
    "max_k2": "max over t of l_t^2 / 2",
    "max_k3": "max over t of rho_t - 1 - l_t",
    "largest_kl": "max over t of KL(mu(.|s_t) || pi(.|s_t))",
    "mean_kl": "mean over t of KL(mu(.|s_t) || pi(.|s_t))",
}
"""name -> what must lie in the interval."""

WEIGHTS = {"none": Parts("none", "none", "none"), "token": Parts(), "sequence": SEQUENCE}
"""What the tokens of a sequence that is kept carry: 1, rho_t, or W."""


def _check(statistic: str, interval: tuple[float, float], tokens: str) -> None:
    check_word("statistic", statistic, STATISTICS)
    check_word("tokens", tokens, WEIGHTS)
    if statistic != "k1":
        check_bounds("interval", interval)
    else:
        check_pair("interval", interval, "bounds of the mean of -l")


def _keeps_all(statistic: str, interval: tuple[float, float]) -> bool:
    return interval == (-math.inf, math.inf) if statistic == "k1" else bounds_nothing(interval)


@register(
    Card(
        name="sequence_mask",
        summary="Keeps a whole sequence if one number of it lies in an interval; drops all of its tokens otherwise.",
        formula="c_t = x_t 1(low <= statistic <= high), x_t = 1, rho_t or W for tokens 'none', 'token', 'sequence'. "
        "Statistics: " + "; ".join(f"{name} {what}" for name, what in STATISTICS.items()),
        source="Geo-Mask: Liu, Li et al. 2025, 'When Speed Kills Stability', part 3; rejection by k2 and k3: verl's "
        "documentation of rollout correction; by exact divergences: TRM, arXiv 2512.23075",
        defaults="statistic='geometric', interval=(0.999, 1.001), tokens='none': Geo-RS of verl's documentation, "
        "rejection without a ratio. The blog's Geo-Mask has (0.5, 2.0); seq-mask-tis (0.999, 1.002) with "
        "tokens='token'; verl's k3 (0.0, 0.01) and k2 (0.0, 2.0).",
        aliases=(
            "Geo-Mask",
            "Geo-RS",
            "seq-mask-tis",
            "verl rollout_rs=seq_mean_k1 (statistic='geometric')",
            "verl rollout_rs=seq_mean_k2 | seq_mean_k3, rollout_rs_threshold=high, low 0",
            "verl rollout_rs=seq_sum_k1 (statistic='product')",
            "verl rollout_rs=seq_sum_k2 | seq_sum_k3 | seq_max_k2 | seq_max_k3 (statistic='sum_k2' and so on)",
            "NeMo-RL truncated_importance_sampling_type=seq-mask-tis (tokens='token')",
            "OpenRLHF level=seq, mode=mask (tokens='token')",
        ),
        caution="verl names seq_mean_k1 by the mean of -log rho but bounds it by ratios: that is 'geometric' here, and "
        "'k1' is the mean itself, which may be negative. The geometric mean hides opposite drifts (ratios 10 and 0.1 "
        "have mean 1), k2 and k3 do not. Even with the right ratios on what is kept the mask biases: it looks at the "
        "actions after the token, so baselines leak. Libraries differ on whether dropped tokens count in the mean over "
        "tokens: the reduction's. statistic='product', tokens='sequence' is `masked` with level='sequence'. The exact "
        "divergences need every action's probability; libraries estimate them by k2 or k3.",
    ),
    baseline_invariant=lambda statistic, interval, tokens: _keeps_all(statistic, interval) and tokens != "none",
    check=_check,
    parts=lambda statistic, interval, tokens: WEIGHTS[tokens],
    needs=lambda statistic, interval, tokens: ("kl",) if statistic.endswith("_kl") else (),
)
def sequence_mask(
    seen: Tokens,
    *,
    statistic: str = "geometric",
    interval: tuple[float, float] = (0.999, 1.001),
    tokens: str = "none",
) -> Any:
    """c_t = 1, rho_t or W where the statistic of the sequence lies in the interval, else 0."""
    xp, zeros = seen.xp, seen.xp.zeros_like(seen.log_ratio)
    weight = {"none": xp.ones_like(zeros), "token": seen.ratio, "sequence": seen.sequence_ratio}[tokens]
    value = statistic_of(seen, statistic)
    return xp.where((value >= interval[0]) & (value <= interval[1]), weight, zeros)


def statistic_of(seen: Tokens, name: str) -> Any:
    """One of `STATISTICS`, (N, 1). At masked tokens the log-ratio and the divergence are zero."""
    xp, log_ratio = seen.xp, seen.log_ratio
    if name == "geometric":
        return xp.exp(seen.log_sequence / seen.length)
    if name == "product":
        return xp.exp(seen.log_sequence)
    if name == "largest_kl":
        return xp.max(seen.given["kl"], axis=1, keepdims=True)
    each = {
        "k1": lambda: -log_ratio,
        "k2": lambda: 0.5 * log_ratio**2,
        "k3": lambda: xp.expm1(log_ratio) - log_ratio,
        "kl": lambda: seen.given["kl"],
    }[name.split("_")[-1]]()
    if name.startswith("max_"):
        return xp.max(each, axis=1, keepdims=True)
    total = xp.sum(each, axis=1, keepdims=True)
    return total if name.startswith("sum_") else total / seen.length
