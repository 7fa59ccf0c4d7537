"""GSPO: the geometric mean of the sequence's ratios, clipped as in PPO."""

from __future__ import annotations

from typing import Any

from theory.weights.clipping import has_gradient
from theory.weights.options import check_trust_region
from theory.weights.registry import ROOT, Card, register
from theory.weights.tokens import Tokens


@register(
    Card(
        name="gspo",
        summary="The geometric mean of the sequence's ratios, and nothing once it has left its (narrow) clip.",
        formula="c_t = s, s = W^(1/L), but 0 where A_t > 0 and s > high, and where A_t < 0 and s < low",
        source="GSPO, Zheng et al. 2025, arXiv 2507.18071; with advantages per token: its GSPO-token",
        defaults="clip=(1 - 3e-4, 1 + 4e-4), the paper's.",
        aliases=(
            "GSPO",
            "GSPO-token",
            "TRL importance_sampling_level=sequence",
            "verl policy_loss=gspo",
            "OpenRLHF policy_loss_type=gspo",
        ),
        caution="The objective's 1/L (each token's share of the gradient of s) belongs to the reduction: GSPO is this "
        "weight with reduction 'length_mean'; with a mean over the tokens of the batch it is another estimator. s is "
        "not a density ratio for L > 1. Called a sequence ratio by several libraries: the product of ratios is "
        "`sequence`. Each token's own signal decides the sign, which is the sequence's where the signal is.",
    ),
    uses_advantage=True,
    check=lambda clip: check_trust_region("clip", clip),
    parts=ROOT,
)
def gspo(tokens: Tokens, *, clip: tuple[float, float] = (1.0 - 3e-4, 1.0 + 4e-4)) -> Any:
    """c_t = W^(1/L) where the clipped objective has a gradient, else 0."""
    mean = tokens.geometric_mean
    return tokens.xp.where(has_gradient(mean, tokens.advantage, *clip), mean, tokens.xp.zeros_like(mean))
