"""Self-normalised importance sampling: ratios divided by their mean over the batch."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_cap, check_level
from theory.weights.positions import packing
from theory.weights.products import level_parts
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(level: str, cap: float) -> None:
    check_level(level)
    check_cap("cap", cap)


@register(
    Card(
        name="self_normalised",
        summary="The ratio divided by the batch's mean ratio: bounded by the batch, and unbiased in the limit of large "
        "ones.",
        formula="c_t = x_t / mean x, x_t = min(rho_t, cap), the mean over the tokens of the batch; with level="
        "'prefix': x_t = min(P_t rho_t, cap), the mean over the sequences that have a t-th token; with "
        "level='sequence': x = min(W, cap), the mean over the sequences",
        source="weighted importance sampling; level='prefix': the weighted per-decision estimator of Precup, Sutton & "
        "Singh 2000; after a truncation: verl's rollout correction",
        defaults="level='token', cap=inf: nothing is truncated before the mean is taken. verl's default "
        "threshold is 2.0.",
        aliases=(
            "SNIS",
            "WIS (level='sequence')",
            "weighted importance sampling (level='sequence')",
            "weighted per-decision importance sampling (level='prefix', signal reward, cumulative score)",
            "verl rollout_is_batch_normalize=true, rollout_is=token | sequence, rollout_is_threshold=cap",
        ),
        caution="Couples the batch: a sequence alone has weight 1 at level 'sequence' and 'prefix', which is `none`. "
        "The bias falls as 1/N with the batch, towards that of the weight it normalises over its mean, which is 1 "
        "without a cap. Sequences without a token do "
        "not enter the mean. Where all x of a mean are zero the quotient does not exist, and the weight is set to "
        "zero: such tokens are dropped.",
    ),
    couples_batch=True,
    check=_check,
    parts=lambda level, cap: level_parts(level),
)
def self_normalised(tokens: Tokens, *, level: str = "token", cap: float = math.inf) -> Any:
    """c_t = x_t over the batch's mean of x."""
    xp, limit = tokens.xp, math.log(cap)
    if level == "prefix":
        order = packing(tokens)
        cumulative = xp.cumulative_sum(xp.take_along_axis(tokens.log_ratio, order, axis=1), axis=1)
        shape = (-1, tokens.batch, cumulative.shape[1])
        x = xp.reshape(xp.clip(cumulative, None, limit), shape)
        counted = xp.reshape(xp.take_along_axis(tokens.mask, order, axis=1), shape)
        relative = xp.reshape(xp.exp(x - log_mean(xp, x, counted)), cumulative.shape)
        return xp.take_along_axis(relative, xp.argsort(order, axis=1), axis=1)
    own, counted = tokens.log_ratio, tokens.mask
    if level == "sequence":
        own, counted = tokens.log_sequence, xp.any(counted, axis=1, keepdims=True)
    x = xp.clip(own, None, limit)
    mean = log_mean(xp, tokens.by_batch(x), tokens.by_batch(counted))
    return xp.exp(x - tokens.each_sequence(mean) + xp.zeros_like(tokens.log_ratio))


def log_mean(xp: Any, x: Any, counted: Any) -> Any:
    """log of the mean of exp(x) over what is counted along axis 1, which is kept; 0 where that mean is zero."""
    low = xp.where(counted, x, xp.full_like(x, -math.inf))
    top = xp.max(low, axis=1, keepdims=True)
    top = xp.where(top == -math.inf, xp.zeros_like(top), top)
    total = xp.sum(xp.exp(low - top), axis=1, keepdims=True)
    count = xp.sum(xp.astype(counted, x.dtype), axis=1, keepdims=True)
    some = total > 0.0
    mean = xp.where(some, total, xp.ones_like(total)) / xp.where(some, count, xp.ones_like(count))
    return xp.log(mean) + top
