"""DPPO: PPO's mask by a divergence of the policies at the token, not by the ratio."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_cap, check_limit, check_word
from theory.weights.registry import Card, register
from theory.weights.sampled_token import sampled_token
from theory.weights.tokens import Tokens

DELTA = {"binary_tv": 0.15, "binary_kl": 0.05, "total_variation": 0.15, "kl": 0.05}
"""divergence -> the bound that delta=None stands for."""


def _check(divergence: str, delta: float | None, cap: float) -> None:
    check_word("divergence", divergence, DELTA)
    check_limit("delta", delta, "a bound of the divergence", optional=True)
    check_cap("cap", cap)


def _needs(divergence: str, delta: float | None, cap: float) -> tuple[str, ...]:
    return ("log_probability",) if divergence.startswith("binary") else (divergence,)


@register(
    Card(
        name="dppo",
        summary="The token's own ratio, and nothing where a divergence is too large and the update would widen it.",
        formula="c_t = min(rho_t, cap), but 0 where D_t > delta and (A_t > 0 and rho_t > 1, or A_t < 0 and rho_t < 1). "
        "D_t: binary_tv |pi - mu| of the sampled token; binary_kl mu log(mu/pi) + (1-mu) log((1-mu)/(1-pi)) of it; "
        "total_variation TV(mu(.|s_t), pi(.|s_t)); kl KL(mu(.|s_t) || pi(.|s_t))",
        source="DPPO, arXiv 2602.04879",
        defaults="divergence='binary_tv', one of the paper's two with a released loss. delta=None: 0.15 for the total "
        "variations and 0.05 for the KLs, the paper's (0.2 for the total variation in its scaling runs). cap=20.0: "
        "verl's default, the paper's objective has none.",
        aliases=(
            "divergence proximal policy optimization",
            "verl policy_loss=dppo_tv (divergence='binary_tv'), clip_ratio=delta, clip_ratio_c=cap",
            "verl policy_loss=dppo_kl (divergence='binary_kl'), clip_ratio=delta, clip_ratio_c=cap",
        ),
        caution="verl's binary KL is KL(mu || pi), checked against its released loss; mu is the policy that generated "
        "the data (the paper's anchor), not that of the update's start. verl adds 1e-8 inside both logarithms; here a "
        "probability that rounds to one leaves half a rounding unit to the others. The binary divergences see the "
        "sampled token only: the same state is masked for one action and not for another. The paper's top-K (K = 20) "
        "total variation is a lower bound of the total variation; here total_variation and kl are exact and of the "
        "whole distribution, so at one delta they mask more. verl's delta is set where PPO's clip offsets are.",
    ),
    uses_advantage=True,
    baseline_invariant=lambda divergence, delta, cap: delta == math.inf and math.isinf(cap),
    local=True,
    check=_check,
    needs=_needs,
)
def dppo(tokens: Tokens, *, divergence: str = "binary_tv", delta: float | None = None, cap: float = 20.0) -> Any:
    """c_t = min(rho_t, cap) where the divergence is within delta or the update narrows it, else 0."""
    xp, log_ratio, advantage = tokens.xp, tokens.log_ratio, tokens.advantage
    if divergence == "binary_tv":
        distance = xp.abs(sampled_token(tokens).shift)
    elif divergence == "binary_kl":
        distance = sampled_token(tokens).binary_kl
    else:
        distance = tokens.given[divergence]
    widens = ((advantage > 0) & (log_ratio > 0)) | ((advantage < 0) & (log_ratio < 0))
    lost = widens & (distance > (DELTA[divergence] if delta is None else delta))
    return xp.where(lost, xp.zeros_like(log_ratio), xp.clip(tokens.ratio, None, cap))
