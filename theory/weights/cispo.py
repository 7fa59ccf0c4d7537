"""CISPO: the token's ratio, clipped, as a constant in front of the score."""

from __future__ import annotations

from typing import Any

from theory.weights.options import bounds_nothing, check_bounds
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


@register(
    Card(
        name="cispo",
        summary="The token's own ratio between two bounds: a clipped token keeps a gradient, with the bound as its "
        "weight.",
        formula="c_t = clip(rho_t, low, high)",
        source="CISPO: MiniMax-M1 2025, arXiv 2506.13585",
        defaults="clip=(0.0, 3.0). Low 0: the paper in practice sets no lower bound. High 3: the paper tunes it and "
        "prints no value; 3 is what DPPO (arXiv 2602.04879) gives its CISPO baseline, 5 in its scaling runs.",
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
    baseline_invariant=lambda clip: bounds_nothing(clip),
    check=lambda clip: check_bounds("clip", clip),
    local=True,
)
def cispo(tokens: Tokens, *, clip: tuple[float, float] = (0.0, 3.0)) -> Any:
    """c_t = clip(rho_t, low, high)."""
    return tokens.xp.clip(tokens.ratio, *clip)
