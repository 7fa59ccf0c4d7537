"""CPPO: a budget for the divergence that a prefix may spend, beside a bound for each token."""

from __future__ import annotations

import math
from typing import Any

from theory import checks
from theory.weights.options import check_flag, check_fraction, check_positive, check_word
from theory.weights.positions import position
from theory.weights.registry import Card, register
from theory.weights.sampled_token import sampled_token
from theory.weights.tokens import Tokens, exclusive_sum


def _check(delta: float, w_min: float, delta_b: float | str, delta_b_min: float, soft: bool, divergence: str) -> None:
    check_word("divergence", divergence, ("total_variation", "binary_tv"))
    check_positive("delta", delta, "a bound of a divergence")
    check_fraction("w_min", w_min, zero=False)
    if delta_b != "p90":
        if isinstance(delta_b, str):
            raise ValueError(f"delta_b is {delta_b!r}; expected 'p90' or a finite number of at least 0")
        checks.non_negative("delta_b", delta_b)
    checks.non_negative("delta_b_min", delta_b_min)
    check_flag("soft", soft)


@register(
    Card(
        name="cppo",
        summary="The token's own ratio while the divergence of the prefix is within a budget that grows with it.",
        formula="c_t = rho_t M_t; M_t = 1 where A_t (rho_t - 1) <= 0 or (w_t D_t <= delta and S_t <= delta + delta_b "
        "W_{t-1}), else 0; w_t = 1 - (1 - w_min)(t - 1)/(L - 1), t counted from 1 over the tokens that count; D_t the "
        "total variation of mu and pi in s_t; S_t = sum over j <= t of w_j D_j, W_t of w_j. With soft, in the place of "
        "0: min(1, 1/x), x = max(w_t D_t / delta, S_t / (delta + delta_b W_{t-1}))",
        source="CPPO, Tencent Hunyuan 2026, arXiv 2606.10968",
        defaults="delta=0.15 (dense models; 0.2 for mixtures of experts), w_min=0.8, delta_b='p90': the 90th "
        "percentile of the sequence's D_t, clamped to [delta_b_min, 2 delta_b_min], delta_b_min=0.02; soft=False: the "
        "paper's for base models. A number is delta_b itself: 0.015 for its post-trained model. "
        "divergence='total_variation'; 'binary_tv' is the released code's variant, with delta=0.2.",
        aliases=(
            "CPPO",
            "cumulative prefix-divergence policy optimization",
            "UniRL CPPO (divergence='binary_tv'), cppo_delta=delta, cppo_w_min=w_min, cppo_delta_b=delta_b_min",
        ),
        caution="D_t here is that of the whole distribution, or |pi - mu| of the sampled token; the paper's is over "
        "the 20 likeliest tokens of mu, the sampled one and the rest, a lower bound of the former. The percentile "
        "interpolates linearly between tokens, as the released code does. L is the sequence's own length; a sequence "
        "of one token has w_1 = 1. With 'binary_tv' an action that pi never takes is refused: its ratio of zero does "
        "not tell mu, which the budget of later tokens needs. mu is the policy that generated the data.",
    ),
    uses_advantage=True,
    needs=lambda divergence, **_: ("log_probability" if divergence == "binary_tv" else "total_variation",),
    check=_check,
)
def cppo(
    tokens: Tokens,
    *,
    delta: float = 0.15,
    w_min: float = 0.8,
    delta_b: float | str = "p90",
    delta_b_min: float = 0.02,
    soft: bool = False,
    divergence: str = "total_variation",
) -> Any:
    """c_t = rho_t where the step is harmless or its prefix within budget; else 0, or with `soft` a share of it."""
    xp = tokens.xp
    distance = _binary_tv(tokens) if divergence == "binary_tv" else tokens.given["total_variation"]
    distance = xp.where(tokens.mask, distance, xp.zeros_like(distance))
    one = xp.ones_like(distance)
    share = (position(tokens) - 1.0) / xp.maximum(tokens.length - 1.0, xp.ones_like(tokens.length))
    w = xp.where(tokens.mask, 1.0 - (1.0 - w_min) * share, xp.zeros_like(distance))
    spent = exclusive_sum(xp, w * distance) + w * distance
    rate = delta_b
    if rate == "p90":
        rate = xp.clip(percentile(tokens, distance, 0.9), delta_b_min, 2.0 * delta_b_min)
    allowed = delta + rate * exclusive_sum(xp, w)
    excess = xp.maximum(w * distance / delta, spent / allowed)
    inside = (w * distance <= delta) & (spent <= allowed)
    gate = xp.where(inside, one, one / xp.maximum(excess, one) if soft else xp.zeros_like(one))
    harmful = ((tokens.advantage > 0) & (tokens.log_ratio > 0)) | ((tokens.advantage < 0) & (tokens.log_ratio < 0))
    gate = xp.where(harmful, gate, one)
    # A selection, as a ratio that overflows times 0 is not 0.
    return gate * xp.where(gate > 0.0, tokens.ratio, xp.zeros_like(gate))


def _binary_tv(tokens: Tokens) -> Any:
    """|pi - mu| of the sampled token, (N, T).

    Raises:
        ValueError: pi never takes a token: a ratio of zero does not tell mu.
    """
    if bool(tokens.xp.any(tokens.log_ratio == -math.inf)):
        raise ValueError(
            "log_ratio is -inf at a token that counts, which does not tell mu; expected finite numbers with "
            "divergence='binary_tv'"
        )
    return tokens.xp.abs(sampled_token(tokens).shift)


def percentile(tokens: Tokens, x: Any, share: float) -> Any:
    """The quantile over each sequence's tokens that count, linear between order statistics, (N, 1)."""
    xp = tokens.xp
    last = xp.max(x, axis=1, keepdims=True) + xp.zeros_like(x)
    ordered = xp.sort(xp.where(tokens.mask, x, last), axis=1)
    place = share * (tokens.length - 1.0)
    below = xp.floor(place)
    above = xp.minimum(below + 1.0, tokens.length - 1.0)
    low, high = (xp.take_along_axis(ordered, xp.astype(i, xp.int64), axis=1) for i in (below, above))
    return low + (place - below) * (high - low)
