"""Weights put together from parts: the steps between the exact correction and a weight of the registry."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.weights.registry import Array, Card, Factors, Family, Parts, Weight
from theory.weights.tokens import Tokens, exclusive_minimum


def hybrid(parts: Parts) -> Weight:
    """The weight c_t = prefix part x own part x suffix part. It is not in the registry."""
    card = Card("/".join(parts), "A product of parts.", "c_t = prefix part x own part x suffix part", "", "")
    never = lambda **_: False  # noqa: E731
    family = Family(
        card=card,
        function=lambda tokens: _coefficients(tokens, parts),
        options={},
        check=None,
        baseline_invariant=never,
        uses_advantage=never,
        factors=lambda log_ratio, length: _factors(log_ratio, length, parts),
        by_length="root" in parts,
        couples_batch=False,
        parts=lambda **_: parts,
    )
    return Weight(family, {})


def _exponent(part: str, length: Any) -> Any:
    return {"full": 1.0, "none": 0.0}[part] if part in ("full", "none") else 1.0 / length


def _coefficients(tokens: Tokens, parts: Parts) -> Any:
    xp, log_ratio = tokens.xp, tokens.log_ratio
    log_weight = xp.zeros_like(log_ratio)
    for part, value in ((parts.own, log_ratio), (parts.suffix, tokens.log_suffix)):
        log_weight = log_weight if part == "none" else log_weight + value * _exponent(part, tokens.length)
    if parts.prefix in ("full", "root"):
        log_weight = log_weight + tokens.log_prefix * _exponent(parts.prefix, tokens.length)
    elif parts.prefix != "none":
        never = xp.full_like(log_ratio, float("inf"))
        least = exclusive_minimum(xp, xp.where(tokens.mask, log_ratio, never))
        if parts.prefix == "inclusive_minimum":
            least = xp.minimum(least, log_ratio)
        log_weight = log_weight + xp.where(xp.isinf(least) & (least > 0), xp.zeros_like(least), least)
    return xp.exp(log_weight)


def _factors(log_ratio: Array, length: int, parts: Parts) -> Factors:
    def power(part: str) -> Array:
        return np.ones_like(log_ratio) if part == "none" else np.exp(log_ratio * _exponent(part, length))

    ratio, own_part = np.exp(log_ratio), power(parts.own)
    minimum = parts.prefix.endswith("minimum")

    def own(stat: Array, advantage: Array) -> Array:
        if not minimum:
            return own_part[:, :, None]
        least = np.where(np.isinf(stat), 1.0, stat)
        if parts.prefix == "inclusive_minimum":
            least = np.minimum(stat, ratio[:, :, None])
        return np.asarray(least * own_part[:, :, None])

    return Factors(
        before=None if minimum or parts.prefix == "none" else power(parts.prefix),
        own=own,
        after=None if parts.suffix == "none" else power(parts.suffix),
        key=ratio if minimum else None,
    )
