"""CISPO: the token's ratio, clipped, as a constant in front of the score."""

from __future__ import annotations

from typing import Any

from theory.weights.clipping import has_gradient
from theory.weights.options import bounds_nothing, check_bounds, check_flag
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(clip: tuple[float, float], mask: bool) -> None:
    check_bounds("clip", clip)
    check_flag("mask", mask)


@register(
    Card(
        name="cispo",
        summary="The token's own ratio between two bounds: a clipped token keeps a gradient, with the bound as its "
        "weight.",
        formula="c_t = clip(rho_t, low, high); with mask=True 0 where A_t > 0 and rho_t > high, and where A_t < 0 and "
        "rho_t < low",
        source="CISPO: MiniMax-M1 2025, arXiv 2506.13585",
        defaults="clip=(0.0, 3.0). Low 0: the paper in practice sets no lower bound. High 3: the paper tunes it and "
        "prints no value; 3 is what DPPO (arXiv 2602.04879) gives its CISPO baseline, 5 in its scaling runs. "
        "mask=False; mask=True is the token mask, PPO's, of the same paper's unified form.",
        aliases=(
            "CISPO",
            "IS-weight clipping",
            "TRL loss_type=cispo, epsilon_high=high (the bound itself, not an offset; low is 0)",
            "verl policy_loss=cispo, clip_ratio_low=1-low, clip_ratio_high=high-1 (offsets)",
        ),
        caution="Same name, different thing: TRL's epsilon_high is the cap itself, and left unset caps every weight at "
        "0.2; torchrl's CISPOLoss has no stop-gradient, so its clipped tokens get no gradient: it is `masked` with "
        "interval=(low, high). With low 0 this is `truncated` at token level.",
    ),
    baseline_invariant=lambda clip, mask: bounds_nothing(clip),
    uses_advantage=lambda clip, mask: mask,
    check=_check,
    local=True,
)
def cispo(tokens: Tokens, *, clip: tuple[float, float] = (0.0, 3.0), mask: bool = False) -> Any:
    """c_t = clip(rho_t, low, high), with `mask` 0 where PPO's clip has no gradient."""
    xp, clipped = tokens.xp, tokens.xp.clip(tokens.ratio, *clip)
    if not mask:
        return clipped
    return xp.where(has_gradient(tokens.ratio, tokens.advantage, *clip), clipped, xp.zeros_like(clipped))
