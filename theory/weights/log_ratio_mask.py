"""Tokens dropped by half the square of their log-ratio."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_limit, check_word
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens

ESTIMATORS = ("k2", "k3")


def _check(threshold: float, estimator: str) -> None:
    check_word("estimator", estimator, ESTIMATORS)
    check_limit("threshold", threshold, "a bound of the estimated divergence of a token")


@register(
    Card(
        name="log_ratio_mask",
        summary="The token's own ratio where an estimate of a KL from its log-ratio alone is small; else zero.",
        formula="c_t = rho_t 1(l_t^2 / 2 <= threshold); with estimator='k3': rho_t - 1 - l_t in the place of l_t^2 / 2",
        source="torchrl's KL-Mask (pull request 3208); verl's rejection by the k2 and k3 estimates of a token",
        defaults="threshold=2.0: the example of verl's documentation for token_k2 (1.5 to 3.0 there); torchrl's own "
        "default is none, which drops nothing. estimator='k2', torchrl's.",
        aliases=(
            "KL-Mask",
            "torchrl kl_mask_threshold=threshold",
            "verl rollout_rs=token_k2 | token_k3 (estimator='k3')",
        ),
        caution="With k2 it is `masked` with interval=(e^-r, e^r), r = sqrt(2 threshold): symmetric in the log of the "
        "ratio; with k3 an interval that reaches further below 1 than above, in logs. l^2 / 2 estimates KL(mu || pi) "
        "only to leading order, rho - 1 - l without bias; of one token neither is a divergence. torchrl masks PPO's "
        "clipped term, verl whatever its loss is; here the ratio that is left is the whole weight. A token that is "
        "dropped no longer counts in torchrl's mean over tokens; here that is the reduction's, where it does. "
        "torchrl's documentation writes pi_ref; the code takes the log-probabilities at sampling.",
    ),
    baseline_invariant=lambda threshold, estimator: math.isinf(threshold),
    local=True,
    check=_check,
)
def log_ratio_mask(tokens: Tokens, *, threshold: float = 2.0, estimator: str = "k2") -> Any:
    """c_t = rho_t 1(estimate <= threshold), the estimate l_t^2 / 2 or rho_t - 1 - l_t."""
    xp, l = tokens.xp, tokens.log_ratio  # noqa: E741
    estimate = 0.5 * l**2 if estimator == "k2" else xp.expm1(l) - l
    return xp.where(estimate <= threshold, tokens.ratio, xp.zeros_like(l))
