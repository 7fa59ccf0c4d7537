"""Products of parts: what stands for P_t, rho_t and S_t, in the coefficients of a batch and in the recursion's form."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.weights.registry import SEQUENCE, Array, Factors, Parts, constant_own
from theory.weights.tokens import Tokens


def level_parts(level: str) -> Parts:
    """The ratio of the token, of the prefix up to and including it, or of the sequence."""
    return {"token": Parts(), "prefix": Parts("full"), "sequence": SEQUENCE}[level]


def product(tokens: Tokens, parts: Parts) -> Any:
    """c_t = prefix part x own part x suffix part, (N, T). A sum of logs, so that zero times an overflow gives zero."""
    xp, log_ratio = tokens.xp, tokens.log_ratio
    log_weight = xp.zeros_like(log_ratio)
    if parts.prefix == parts.own == parts.suffix:  # one number for all tokens of a sequence, to the last digit
        return xp.exp(_power(log_weight + tokens.log_sequence, parts.own, tokens))
    log_weight = log_weight + _power(log_ratio, parts.own, tokens)
    if parts.suffix != "none":
        log_weight = log_weight + _power(tokens.log_suffix, parts.suffix, tokens)
    if parts.prefix.endswith("minimum"):
        log_weight = log_weight + log_minimum(tokens, inclusive=parts.prefix == "inclusive_minimum")
    elif parts.prefix != "none":
        log_weight = log_weight + _power(tokens.log_prefix, parts.prefix, tokens)
    return xp.exp(log_weight)


def product_factors(log_ratio: Array, length: int, parts: Parts) -> Factors:
    """The same product as the recursion needs it."""

    def power(part: str) -> Array:
        if part == "none":
            return np.ones_like(log_ratio)
        return np.exp(log_ratio / length if part == "root" else log_ratio)

    own_part, ratio = power(parts.own), np.exp(log_ratio)
    after = None if parts.suffix == "none" else power(parts.suffix)
    if not parts.prefix.endswith("minimum"):
        before = None if parts.prefix == "none" else power(parts.prefix)
        return Factors(before, constant_own(own_part), after)

    def own(stat: Array, advantage: Array) -> Array:
        if parts.prefix == "inclusive_minimum":
            return np.asarray(np.minimum(stat, ratio[:, :, None]) * own_part[:, :, None])
        return np.asarray(np.where(np.isinf(stat), 1.0, stat) * own_part[:, :, None])

    # +inf is what the minimum over no token is: a ratio that overflows must not be taken for that.
    return Factors(None, own, after, key=np.minimum(ratio, np.finfo(np.float64).max))


def _power(log_value: Any, part: str, tokens: Tokens) -> Any:
    if part == "none":
        return tokens.xp.zeros_like(log_value)
    return log_value / tokens.length if part == "root" else log_value


def log_minimum(tokens: Tokens, *, inclusive: bool) -> Any:
    """log m_t, zero where there is no earlier token; or the same with the token itself among them."""
    return tokens.xp.minimum(tokens.least_earlier, tokens.log_ratio) if inclusive else tokens.log_minimum
