"""Tokens dropped by half the square of their log-ratio."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_limit
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


@register(
    Card(
        name="log_ratio_mask",
        summary="The token's own ratio where half its squared log-ratio, an estimate of a KL, is small; else zero.",
        formula="c_t = rho_t 1(l_t^2 / 2 <= threshold)",
        source="torchrl's KL-Mask (pull request 3208); verl's rejection by the k2 estimate of a token",
        defaults="threshold=2.0: the example of verl's documentation for token_k2 (1.5 to 3.0 there); torchrl's own "
        "default is none, which drops nothing.",
        aliases=("KL-Mask", "torchrl kl_mask_threshold=threshold", "verl rollout_rs=token_k2"),
        caution="It is `masked` with interval=(e^-r, e^r), r = sqrt(2 threshold): symmetric in the log of the ratio. "
        "l^2 / 2 estimates KL(mu || pi) only to leading order, and of one token it is no divergence. torchrl masks "
        "PPO's clipped term, verl whatever its loss is; here the ratio that is left is the whole weight. A token that "
        "is dropped no longer counts in torchrl's mean over tokens; here that is the reduction's, where it does. "
        "torchrl's documentation writes pi_ref; the code takes the log-probabilities at sampling.",
    ),
    baseline_invariant=lambda threshold: math.isinf(threshold),
    local=True,
    check=lambda threshold: check_limit("threshold", threshold, "a bound of half the squared log-ratio"),
)
def log_ratio_mask(tokens: Tokens, *, threshold: float = 2.0) -> Any:
    """c_t = rho_t 1(l_t^2 / 2 <= threshold)."""
    kept = 0.5 * tokens.log_ratio**2 <= threshold
    return tokens.xp.where(kept, tokens.ratio, tokens.xp.zeros_like(tokens.log_ratio))
