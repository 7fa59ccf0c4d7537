"""PPO's clipped surrogate as a weight: the token's ratio where the clipped objective has a gradient."""

from __future__ import annotations

from typing import Any

from theory.weights.clipping import has_gradient
from theory.weights.options import check_dual, check_trust_region
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(clip: tuple[float, float], dual: float | None) -> None:
    check_trust_region("clip", clip)
    check_dual("dual", dual)


@register(
    Card(
        name="ppo_clip",
        summary="The token's own ratio, and nothing once it has left the clip in the direction the advantage pushes.",
        formula="c_t = rho_t, but 0 where A_t > 0 and rho_t > high, where A_t < 0 and rho_t < low, and with dual where "
        "A_t < 0 and rho_t > dual: the gradient of min(rho A, clip(rho, low, high) A), with dual of max(that, dual A) "
        "for A < 0",
        source="PPO, Schulman et al. 2017, arXiv 1707.06347, eq. 7; dual clip: Ye et al. 2019, arXiv 1912.09729",
        defaults="clip=(0.8, 1.2): PPO's epsilon 0.2 (DAPO, arXiv 2503.14476, uses (0.8, 1.28), 'clip-higher'). "
        "dual=None; verl's default is dual=3.0.",
        aliases=(
            "PPO",
            "GRPO",
            "Dr.GRPO",
            "DAPO",
            "clip-higher",
            "dual clip",
            "TRL loss_type=grpo | dr_grpo | dapo, epsilon=1-low, epsilon_high=high-1",
            "verl policy_loss=vanilla, clip_ratio_low=1-low, clip_ratio_high=high-1, clip_ratio_c=dual",
        ),
        caution="GRPO, Dr.GRPO and DAPO share this weight: they differ in the advantage and in the reduction. With mu "
        "= the policy of the start of the update; a mismatch between engines is a second ratio that this weight does "
        "not have.",
    ),
    uses_advantage=True,
    local=True,
    check=_check,
)
def ppo_clip(tokens: Tokens, *, clip: tuple[float, float] = (0.8, 1.2), dual: float | None = None) -> Any:
    """c_t = rho_t where the clipped objective has a gradient, else 0."""
    ratio = tokens.ratio
    return tokens.xp.where(has_gradient(ratio, tokens.advantage, *clip, dual), ratio, tokens.xp.zeros_like(ratio))
