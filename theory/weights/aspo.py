"""ASPO: the inverse of the ratio for positive advantages."""

from __future__ import annotations

from typing import Any

from theory.weights.options import check_cap, check_dual, check_trust_region
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(clip: tuple[float, float], cap: float, dual: float | None) -> None:
    check_trust_region("clip", clip)
    check_cap("cap", cap)
    check_dual("dual", dual)


@register(
    Card(
        name="aspo",
        summary="Negative advantages: PPO's ratio from below, bounded; positive ones: one over the ratio.",
        formula="A_t < 0: c_t = min(rho_t, dual), but 0 where rho_t < low; else: c_t = min(1 / rho_t, cap), but 0 "
        "where rho_t > high",
        source="ASPO, arXiv 2510.06062, in the form of its authors' code (Archer2.0)",
        defaults="clip=(0.8, 1.2), cap=3.0, dual=3.0: the authors' code for one of its two entropy classes of tokens; "
        "the other has (0.6, 1.4).",
        aliases=("asymmetric importance sampling policy optimization", "Archer2.0"),
        caution="For A > 0 it is no importance weight at all: 1 / rho is the reciprocal of one, so that tokens which "
        "became less likely count more, with cap where rho < 1 / cap. Above dual a negative token keeps the constant "
        "dual as its weight, where `ppo_clip` with dual gives it none. A = 0 counts as positive, as in the code; its "
        "product with the advantage is zero. The method's two clip ranges by a token's entropy are not here: one range "
        "for all tokens.",
    ),
    uses_advantage=True,
    local=True,
    check=_check,
)
def aspo(tokens: Tokens, *, clip: tuple[float, float] = (0.8, 1.2), cap: float = 3.0, dual: float | None = 3.0) -> Any:
    """c_t = min(rho_t, dual) or min(1 / rho_t, cap), zero where the clip took the gradient."""
    xp, ratio = tokens.xp, tokens.ratio
    low, high = clip
    zero = xp.zeros_like(ratio)
    bounded = ratio if dual is None else xp.clip(ratio, None, dual)
    negative = xp.where(ratio < low, zero, bounded)
    positive = xp.where(ratio > high, zero, xp.clip(xp.exp(-tokens.log_ratio), None, cap))
    return xp.where(tokens.advantage < 0, negative, positive)
