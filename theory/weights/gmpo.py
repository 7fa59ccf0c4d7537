"""GMPO: the geometric mean of ratios that are clipped one by one."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_trust_region
from theory.weights.registry import ROOT, Card, register
from theory.weights.tokens import Tokens


def _log(bound: float) -> float:
    return math.log(bound) if bound > 0.0 else -math.inf


@register(
    Card(
        name="gmpo",
        summary="The geometric mean of the sequence's clipped ratios, for those of its tokens that the clip left.",
        formula="c_t = (product over j of r_j)^(1/L), r_j = min(rho_j, high) where A_j > 0 and max(rho_j, low) where "
        "A_j < 0; but 0 for a token that is clipped",
        source="GMPO, arXiv 2507.20673: the gradient of (product of r_j)^(1/L) A",
        defaults="clip=(exp(-0.4), exp(0.4)): bounds of 0.4 in the log of the ratio, on both sides, of the authors' "
        "README.",
        aliases=(
            "geometric-mean policy optimization",
            "verl policy_loss=geo_mean, clip_ratio_low=-log(low), clip_ratio_high=log(high)",
        ),
        caution="The objective's 1/L (each token's share of the gradient of the mean) belongs to the reduction: GMPO "
        "is this weight with reduction 'length_mean'. Not `gspo`, which clips the mean: here one clipped token changes "
        "every token's weight, and only it loses its gradient. The method has one advantage a sequence; here each "
        "token's own signal says on which side it is clipped, which is the same where the signal is the sequence's. A "
        "token with A = 0 is not clipped. The mean is no density ratio for L > 1.",
    ),
    uses_advantage=True,
    check=lambda clip: check_trust_region("clip", clip),
    parts=ROOT,
)
def gmpo(tokens: Tokens, *, clip: tuple[float, float] = (math.exp(-0.4), math.exp(0.4))) -> Any:
    """c_t = the geometric mean of the clipped ratios, zero for a token that is clipped."""
    xp, log_ratio, advantage = tokens.xp, tokens.log_ratio, tokens.advantage
    above = (advantage > 0) & (log_ratio > _log(clip[1]))
    below = (advantage < 0) & (log_ratio < _log(clip[0]))
    clipped = xp.where(above, xp.full_like(log_ratio, _log(clip[1])), log_ratio)
    clipped = xp.where(below, xp.full_like(log_ratio, _log(clip[0])), clipped)
    mean = xp.exp(xp.sum(clipped, axis=1, keepdims=True) / tokens.length + xp.zeros_like(log_ratio))
    return xp.where(above | below, xp.zeros_like(log_ratio), mean)
