"""PPO's clipped surrogate as a weight: the token's ratio where the clipped objective has a gradient."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.clipping import has_gradient
from theory.weights.options import bounds_nothing, check_dual, check_level, check_trust_region
from theory.weights.products import level_parts, product
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(clip: tuple[float, float], dual: float | None, level: str) -> None:
    check_level(level)
    check_trust_region("clip", clip)
    check_dual("dual", dual)


@register(
    Card(
        name="ppo_clip",
        summary="The token's own ratio, and nothing once it has left the clip in the direction the advantage pushes.",
        formula="c_t = rho_t, but 0 where A_t > 0 and rho_t > high, where A_t < 0 and rho_t < low, and with dual where "
        "A_t < 0 and rho_t > dual: the gradient of min(rho A, clip(rho, low, high) A), with dual of max(that, dual A) "
        "for A < 0; with level='prefix' or 'sequence': C_t or W in the place of rho_t",
        source="PPO, Schulman et al. 2017, arXiv 1707.06347, eq. 7; dual clip: Ye et al. 2019, arXiv 1912.09729",
        defaults="clip=(0.8, 1.2): PPO's epsilon 0.2 (DAPO, arXiv 2503.14476, uses (0.8, 1.28), 'clip-higher'). "
        "dual=None; verl's default is dual=3.0. level='token', the papers'; TRL's RLOO clips the product over the "
        "sequence.",
        aliases=(
            "PPO",
            "GRPO",
            "Dr.GRPO",
            "DAPO",
            "clip-higher",
            "dual clip",
            "TRL RLOOTrainer (level='sequence')",
            "TRL loss_type=grpo | dr_grpo | dapo, epsilon=1-low, epsilon_high=high-1",
            "verl policy_loss=vanilla, clip_ratio_low=1-low, clip_ratio_high=high-1, clip_ratio_c=dual",
        ),
        caution="GRPO, Dr.GRPO and DAPO share this weight: they differ in the advantage and in the reduction. With mu "
        "= the policy of the start of the update; a mismatch between engines is a second ratio that this weight does "
        "not have.",
    ),
    uses_advantage=True,
    baseline_invariant=lambda clip, dual, level: bounds_nothing(clip) and (dual is None or math.isinf(dual)),
    local=lambda clip, dual, level: level == "token",
    check=_check,
    parts=lambda clip, dual, level: level_parts(level),
)
def ppo_clip(
    tokens: Tokens, *, clip: tuple[float, float] = (0.8, 1.2), dual: float | None = None, level: str = "token"
) -> Any:
    """c_t = x where the clipped objective has a gradient in x = rho_t, C_t or W, else 0."""
    ratio = product(tokens, level_parts(level))
    return tokens.xp.where(has_gradient(ratio, tokens.advantage, *clip, dual), ratio, tokens.xp.zeros_like(ratio))
