"""MinPRO: the smallest earlier token ratio in place of the prefix ratio."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.weights.options import bounds_nothing, check_bounds
from theory.weights.registry import Array, Card, Factors, Parts, register
from theory.weights.tokens import Tokens, exclusive_minimum


def _factors(log_ratio: Array, length: int, *, clip: tuple[float, float] | None, inclusive: bool) -> Factors:
    ratio = np.exp(log_ratio)[:, :, None]

    def own(stat: Array, advantage: Array) -> Array:
        least = np.minimum(stat, ratio) if inclusive else np.where(np.isinf(stat), 1.0, stat)
        product = least * ratio
        return product if clip is None else np.clip(product, *clip)

    return Factors(before=None, own=own, key=np.exp(log_ratio))


@register(
    Card(
        name="minpro",
        summary="Smallest earlier ratio times the token's own: a bounded stand-in for the prefix ratio.",
        formula="c_t = m_t rho_t, m_t = min over j < t of rho_j, m_0 = 1; with clip=(low, high): clip(m_t rho_t, low, "
        "high)",
        source="MinPRO, Lei, Cheng & Tao 2026, arXiv 2601.22718",
        defaults="clip=None, the surrogate itself: the paper's clip bounds are not known from public sources (a third "
        "party's script uses (0.8, 1.28)). inclusive=False: the minimum is over strictly earlier tokens.",
        caution="The method of the paper clips the product on both sides: pass clip=(low, high). inclusive=True, the "
        "minimum over j <= t, is a misreading found in the wild, kept to measure what it costs.",
    ),
    factors=_factors,
    baseline_invariant=lambda clip, inclusive: bounds_nothing(clip) and not inclusive,
    check=lambda clip, inclusive: check_bounds("clip", clip, optional=True),
    parts=lambda clip, inclusive: Parts("inclusive_minimum" if inclusive else "minimum"),
)
def minpro(tokens: Tokens, *, clip: tuple[float, float] | None = None, inclusive: bool = False) -> Any:
    """c_t = m_t rho_t, clipped where asked."""
    xp, log_ratio = tokens.xp, tokens.log_ratio
    none_yet = float("inf")
    # A masked token has no ratio, so it must not lower the minimum (its neutral log-ratio 0 would).
    earlier = exclusive_minimum(xp, xp.where(tokens.mask, log_ratio, xp.full_like(log_ratio, none_yet)))
    first = xp.zeros_like(log_ratio)
    least = xp.minimum(earlier, log_ratio) if inclusive else xp.where(earlier == none_yet, first, earlier)
    # A sum of logs, so that a zero times an overflow gives zero, not NaN.
    product = xp.exp(least + log_ratio)
    return product if clip is None else xp.clip(product, *clip)
