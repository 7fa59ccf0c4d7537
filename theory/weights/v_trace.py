"""V-trace: the truncated ratio of the token times a product of truncated ratios before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from theory.weights.options import check_cap
from theory.weights.registry import Array, Card, Factors, Parts, constant_own, register
from theory.weights.tokens import Tokens, exclusive_sum


def _factors(log_ratio: Array, length: int, *, cap: float, trace_cap: float) -> Factors:
    ratio = np.exp(log_ratio)
    return Factors(before=np.minimum(ratio, trace_cap), own=constant_own(np.minimum(ratio, cap)))


def _check(cap: float, trace_cap: float) -> None:
    check_cap("cap", cap)
    check_cap("trace_cap", trace_cap)


@register(
    Card(
        name="v_trace",
        summary="The prefix ratio with every factor truncated: weights at most cap, and fading along the sequence.",
        formula="c_t = [product over j < t of min(trace_cap, rho_j)] min(cap, rho_t)",
        source="the truncations c-bar and rho-bar of V-trace: IMPALA, Espeholt et al. 2018, arXiv 1802.01561, eq. 1; "
        "as a policy-gradient weight over prefixes: the trace option of SC-GRPO",
        defaults="cap=1.0 (rho-bar) and trace_cap=1.0 (c-bar), IMPALA's.",
        aliases=("V-trace", "IMPALA: rho-bar=cap, c-bar=trace_cap"),
        caution="IMPALA uses the product of traces in its value target; its policy gradient multiplies by min(rho-bar, "
        "rho_t) alone, which is `truncated` with cap=1.0. With cap=inf baselines drop out at any trace_cap; with both "
        "infinite this is `prefix`.",
    ),
    factors=_factors,
    # min(cap, rho_t) is what bends the mean of the score; earlier factors are constants of the step.
    baseline_invariant=lambda cap, trace_cap: math.isinf(cap),
    check=_check,
    parts=Parts("full", "full", "none"),
)
def v_trace(tokens: Tokens, *, cap: float = 1.0, trace_cap: float = 1.0) -> Any:
    """c_t = [product over j < t of min(trace_cap, rho_j)] min(cap, rho_t)."""
    xp, log_ratio = tokens.xp, tokens.log_ratio
    # In logs, so that a zero and an overflow in one product give zero, not NaN. A masked token's factor is 1.
    trace = xp.where(tokens.mask, xp.clip(log_ratio, None, math.log(trace_cap)), xp.zeros_like(log_ratio))
    return xp.exp(exclusive_sum(xp, trace) + xp.clip(log_ratio, None, math.log(cap)))
