"""Differences that are nothing but rounding, and variances that hang on them.

With an exact critic the errors that remain are differences of equal numbers. Products of ratios multiply what rounding
leaves of them, 1e-16, without bound, so that it may come out as any variance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A difference of one backup from its value: a few roundings of numbers of its size.
_ROUNDING = 64.0 * float(np.finfo(float).eps)
# What rounding may add to a variance that is known: relative to it, and to a squared gradient of ordinary size.
_OF_VARIANCE, _OF_SCALE = 1e-6, 1e-20


def without_rounding(difference: Array, size: Array) -> Array:
    """The difference of numbers whose magnitudes sum to `size`; zero where rounding can make as much."""
    return np.where(np.abs(difference) <= _ROUNDING * size, 0.0, difference)


def settled_variance(dropped: Array, kept: Array, scale: float) -> Array:
    """The parts of a variance with rounding dropped, (n,); NaN where keeping it gives another one: neither is known.

    scale: a squared gradient of ordinary size, beside which a variance is no more than rounding.
    """
    known = _OF_VARIANCE * dropped[np.isfinite(dropped)].sum() + _OF_SCALE * scale
    with np.errstate(invalid="ignore"):
        # Equal ones may be infinite.
        return np.where((dropped == kept) | (np.abs(kept - dropped) <= known), dropped, np.nan)
