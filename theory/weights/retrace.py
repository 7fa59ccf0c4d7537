"""Retrace's traces in front of the token ratio: a prefix ratio whose factors never grow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from theory.weights.options import check_fraction
from theory.weights.registry import Array, Card, Factors, Parts, constant_own, register
from theory.weights.tokens import Tokens, exclusive_sum


def _factors(log_ratio: Array, length: int, *, decay: float) -> Factors:
    ratio = np.exp(log_ratio)
    return Factors(before=decay * np.minimum(ratio, 1.0), own=constant_own(ratio))


@register(
    Card(
        name="retrace",
        summary="The token's own ratio, whole, times traces of the earlier tokens that can only fade.",
        formula="c_t = [product over j < t of decay min(1, rho_j)] rho_t",
        source="the traces of Retrace(lambda): Munos et al. 2016, arXiv 1606.02647, as a policy-gradient weight over "
        "prefixes",
        defaults="decay=1.0, the lambda without extra fading.",
        aliases=("Retrace", "Retrace(lambda): lambda=decay"),
        caution="Retrace uses its traces in a value target and has no policy gradient of its own. `v_trace` truncates "
        "the token's own ratio too, which lets baselines leak; here they drop out. decay=1.0 is `v_trace` with "
        "cap=inf. With decay < 1 equal policies do not give the on-policy gradient.",
    ),
    factors=_factors,
    baseline_invariant=True,
    check=lambda decay: check_fraction("decay", decay, zero=False),
    parts=Parts("full"),
)
def retrace(tokens: Tokens, *, decay: float = 1.0) -> Any:
    """c_t = [product over j < t of decay min(1, rho_j)] rho_t."""
    xp, log_ratio = tokens.xp, tokens.log_ratio
    # A masked token's factor is 1, not decay.
    trace = xp.where(tokens.mask, xp.clip(log_ratio, None, 0.0) + math.log(decay), xp.zeros_like(log_ratio))
    return xp.exp(exclusive_sum(xp, trace) + log_ratio)
