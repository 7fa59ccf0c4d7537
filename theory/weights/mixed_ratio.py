"""The ratio of a mixture of the two policies."""

from __future__ import annotations

from typing import Any

from theory.weights.options import check_fraction
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


@register(
    Card(
        name="mixed_ratio",
        summary="The token's own ratio drawn towards 1: that of the mixture (1 - alpha) pi + alpha mu over mu.",
        formula="c_t = (1 - alpha) rho_t + alpha",
        source="the smoothed ratio of PSPO, Dwyer, Sobey & Chapman 2025, arXiv 2509.21282, as its authors state it in "
        "the description of TRL's pull request 4548",
        defaults="alpha=0.1: the default of that pull request.",
        aliases=("smoothed ratio", "PSPO's ratio, smoothing_alpha=alpha"),
        caution="Not the gradient of PSPO's own objective: it differentiates through the smoothed ratio, d/d log pi of "
        "((1 - alpha) rho + alpha) A = (1 - alpha) rho A, which is `token` times a constant: unclipped, and the same "
        "but for the step size. Here the smoothed ratio is the constant in front of the score: (1 - alpha) `token` + "
        "alpha `none`, never below alpha.",
    ),
    baseline_invariant=lambda alpha: alpha == 0.0,
    local=True,
    check=lambda alpha: check_fraction("alpha", alpha, "the share of mu in the mixture"),
)
def mixed_ratio(tokens: Tokens, *, alpha: float = 0.1) -> Any:
    """c_t = (1 - alpha) rho_t + alpha."""
    # alpha = 1 leaves no ratio: zero times an overflow would be NaN.
    return tokens.xp.ones_like(tokens.log_ratio) if alpha == 1.0 else (1.0 - alpha) * tokens.ratio + alpha
