"""Masked importance sampling: the ratio inside an interval, nothing outside."""

from __future__ import annotations

from typing import Any

from theory.weights.options import bounds_nothing, check_bounds, check_level
from theory.weights.products import level_parts, product
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(level: str, interval: tuple[float, float]) -> None:
    check_level(level)
    check_bounds("interval", interval)


@register(
    Card(
        name="masked",
        summary="The ratio of the token, of its prefix or of the sequence where it lies in an interval, else zero.",
        formula="c_t = x 1(low <= x <= high), x = rho_t; with level='prefix': x = P_t rho_t; with level='sequence': x "
        "= W, the same for all tokens",
        source="IcePop: Ring-1T, arXiv 2510.18855; sequence-MIS: Liu, Li et al. 2025, 'When Speed Kills Stability', "
        "part 3",
        defaults="level='token', interval=(0.5, 5.0): IcePop's alpha and beta. One-sided masks are interval=(0.0, "
        "high).",
        aliases=(
            "IcePop",
            "MIS",
            "Seq-MIS (level='sequence', interval=(0.0, high))",
            "OpenRLHF level=token, mode=mask",
            "AReaL action=mask, lower=low, upper=high",
            "torchrl CISPOLoss (interval=(1-epsilon_low, 1+epsilon_high))",
        ),
        caution="In most libraries a masked token still counts in the mean over tokens, in some it does not: that is "
        "the reduction's, not the weight's. IcePop multiplies PPO's clipped term; here the masked ratio is the whole "
        "weight. OpenRLHF's level=seq is another thing than level='sequence': it keeps a sequence by the geometric "
        "mean of its ratios, and the tokens kept carry their own ratio. Nor is level='prefix' `prefix_mask`, whose "
        "tokens carry their own ratio.",
    ),
    baseline_invariant=lambda level, interval: bounds_nothing(interval),
    check=_check,
    local=lambda level, interval: level == "token",
    parts=lambda level, interval: level_parts(level),
)
def masked(tokens: Tokens, *, level: str = "token", interval: tuple[float, float] = (0.5, 5.0)) -> Any:
    """c_t = x 1(low <= x <= high) with x = rho_t, P_t rho_t or W."""
    low, high = interval
    ratio = product(tokens, level_parts(level))
    # A selection, not a product with 0 or 1: an overflowed ratio outside the interval gives 0, not NaN.
    return tokens.xp.where((ratio >= low) & (ratio <= high), ratio, tokens.xp.zeros_like(ratio))
