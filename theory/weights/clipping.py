"""Where the clipped objective of PPO still has a gradient."""

from __future__ import annotations

from typing import Any


def has_gradient(ratio: Any, advantage: Any, low: Any, high: Any, dual: float | None = None) -> Any:
    """Where min(ratio A, clip(ratio, low, high) A), or with `dual` its dual clip, has a gradient in the ratio.

    It has none where A > 0 and ratio > high, and where A < 0 and ratio < low (PPO, arXiv 1707.06347, eq. 7). The dual
    clip max(that, dual A) of A < 0 (arXiv 1912.09729) takes the gradient also where ratio > dual. On the bounds the
    gradient is kept. Written with operators alone: for NumPy arrays and PyTorch tensors of any shapes that broadcast.
    """
    lost = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
    if dual is not None:
        lost = lost | ((advantage < 0) & (ratio > dual))
    return ~lost
