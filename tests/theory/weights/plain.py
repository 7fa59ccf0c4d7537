"""What the scalar loops share."""

from __future__ import annotations

import math

INFINITY = math.inf


def exp(x):
    """e^x that overflows to +inf, as arrays do, where math.exp would raise."""
    try:
        return math.exp(x)
    except OverflowError:
        return INFINITY


def has_gradient(ratio, advantage, low, high, dual=None):
    """Whether min(ratio A, clip(ratio, low, high) A), or its dual clip, has a gradient in the ratio."""
    if advantage > 0:
        return ratio <= high
    if advantage < 0:
        return ratio >= low and (dual is None or ratio <= dual)
    return True
