"""Places in a sequence, counted over the tokens that count: how many so far, and sums over a window of them."""

from __future__ import annotations

from typing import Any

from theory.weights.tokens import Tokens


def position(tokens: Tokens) -> Any:
    """t counted from 1 over the tokens that count, (N, T), of log_ratio's type; at masked tokens at least 1."""
    xp = tokens.xp
    count = xp.cumulative_sum(xp.astype(tokens.mask, tokens.log_ratio.dtype), axis=1)
    return xp.maximum(count, xp.ones_like(count))


def packing(tokens: Tokens) -> Any:
    """(N, T) indices that put the tokens that count first in their row, in their order."""
    xp = tokens.xp
    return xp.argsort(xp.astype(~tokens.mask, xp.int64), axis=1, stable=True)


def windowed_sum(tokens: Tokens, x: Any, width: int) -> Any:
    """Sum of x over the token and the width - 1 tokens before it, of those that count, (N, T).

    Without a difference of cumulative sums, which would lose what stands beside a log-ratio of -inf.
    """
    xp, order = tokens.xp, packing(tokens)
    # `block` is the sum over `size` tokens, `size` a power of two; the width is a sum of such powers.
    block, result = xp.take_along_axis(x, order, axis=1), xp.zeros_like(x)
    size, done = 1, 0
    while done < width:
        if width & size:
            result = result + _later(xp, block, done)
            done += size
        block, size = block + _later(xp, block, size), 2 * size
    return xp.take_along_axis(result, xp.argsort(order, axis=1), axis=1)


def _later(xp: Any, x: Any, steps: int) -> Any:
    """Every entry `steps` places later in its row, zeros before it."""
    steps = min(steps, x.shape[1])
    return xp.concat([xp.zeros_like(x[:, :steps]), x[:, : x.shape[1] - steps]], axis=1)
