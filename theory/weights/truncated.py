"""Truncated importance sampling: the ratio up to a cap."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_cap, check_level
from theory.weights.products import level_parts, product
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(level: str, cap: float) -> None:
    check_level(level)
    check_cap("cap", cap)


@register(
    Card(
        name="truncated",
        summary="The ratio of the token, of its prefix or of the sequence, cut off above: less variance for some bias.",
        formula="c_t = min(rho_t, cap); with level='prefix': min(P_t rho_t, cap); with level='sequence': min(W, cap), "
        "the same for all tokens",
        source="truncated importance sampling (Ionides 2008); between engines: TIS, Yao et al. 2025; sequence-TIS: "
        "Liu, Li et al. 2025, 'When Speed Kills Stability', part 3",
        defaults="level='token', cap=2.0: verl's rollout_is=token with threshold 2.0. At sequence level 2 to 10 are in "
        "use (5 in CTPO, 8 in VCPO).",
        aliases=(
            "TIS",
            "Seq-TIS (level='sequence')",
            "verl rollout_is=token | sequence, rollout_is_threshold=cap",
            "AReaL action=clamp, upper=cap",
        ),
        caution="TIS is often a second factor beside PPO's ratio (training over rollout engine); here it is the whole "
        "weight. Level 'sequence' is the product of ratios, which some libraries' 'sequence' is not. cap=inf is "
        "`token`, `prefix` or `sequence`. Level 'prefix' is the one-sided form of what MinPRO (arXiv 2601.22718) "
        "reports to have tried first, the raw cumulative ratio inside a soft clip: no gain, as it drifts to its "
        "extremes along the sequence.",
    ),
    baseline_invariant=lambda level, cap: math.isinf(cap),
    check=_check,
    local=lambda level, cap: level == "token",
    parts=lambda level, cap: level_parts(level),
)
def truncated(tokens: Tokens, *, level: str = "token", cap: float = 2.0) -> Any:
    """c_t = min(x, cap) with x = rho_t, P_t rho_t or W."""
    ratio = product(tokens, level_parts(level))
    return tokens.xp.clip(ratio, None, cap)
