"""MinPRO: the smallest earlier token ratio in place of the prefix ratio."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from theory.weights.options import bounds_nothing, check_bounds, check_flag
from theory.weights.products import product, product_factors
from theory.weights.registry import Array, Card, Factors, Parts, register
from theory.weights.tokens import Tokens


def _parts(clip: tuple[float, float] | None, inclusive: bool) -> Parts:
    return Parts("inclusive_minimum" if inclusive else "minimum")


def _factors(log_ratio: Array, length: int, *, clip: tuple[float, float] | None, inclusive: bool) -> Factors:
    unclipped = product_factors(log_ratio, length, _parts(clip, inclusive))
    if clip is None:
        return unclipped
    return replace(unclipped, own=lambda stat, advantage: np.clip(unclipped.own(stat, advantage), *clip))


def _check(clip: tuple[float, float] | None, inclusive: bool) -> None:
    check_bounds("clip", clip, optional=True)
    check_flag("inclusive", inclusive)


@register(
    Card(
        name="minpro",
        summary="Smallest earlier ratio times the token's own: a bounded stand-in for the prefix ratio.",
        formula="c_t = m_t rho_t, m_t = min over j < t of rho_j, m_t = 1 at the first token; with clip=(low, high): "
        "clip(m_t rho_t, low, high)",
        source="MinPRO, Lei, Cheng & Tao 2026, arXiv 2601.22718",
        defaults="clip=None, the surrogate itself: the paper's clip bounds are not known from public sources (a third "
        "party's script uses (0.8, 1.28)). inclusive=False: the minimum is over strictly earlier tokens.",
        caution="The method of the paper clips the product on both sides: pass clip=(low, high). inclusive=True, the "
        "minimum over j <= t, is a misreading found in the wild, kept to measure what it costs.",
    ),
    factors=_factors,
    baseline_invariant=lambda clip, inclusive: bounds_nothing(clip) and not inclusive,
    check=_check,
    parts=_parts,
)
def minpro(tokens: Tokens, *, clip: tuple[float, float] | None = None, inclusive: bool = False) -> Any:
    """c_t = m_t rho_t, clipped where asked."""
    unclipped = product(tokens, _parts(clip, inclusive))
    return unclipped if clip is None else tokens.xp.clip(unclipped, *clip)
