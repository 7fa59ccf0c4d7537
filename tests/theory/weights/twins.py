"""Every weight again, as a scalar loop over the tokens that a reader can check by eye.

A twin sees only the tokens that count: lists of their log-ratios and signals, in order, and of what the weight needs
beside them by name. It returns their coefficients. The twin of a weight that couples a batch sees a list of such lists,
one for each sequence of the batch.
"""

from __future__ import annotations

import math

INFINITY = math.inf


def exp(x):
    """e^x that overflows to +inf, as arrays do, where math.exp would raise."""
    return INFINITY if x > 709.0 else math.exp(x)


def none(log_ratios, advantages):
    return [1.0 for _ in log_ratios]


def token(log_ratios, advantages):
    return [exp(log_rho) for log_rho in log_ratios]


def prefix(log_ratios, advantages):
    return [exp(sum(log_ratios[: t + 1])) for t in range(len(log_ratios))]


def suffix(log_ratios, advantages):
    return [exp(sum(log_ratios[t:])) for t in range(len(log_ratios))]


def sequence(log_ratios, advantages):
    return [exp(sum(log_ratios)) for _ in log_ratios]


def geometric(log_ratios, advantages):
    return [exp(sum(log_ratios) / len(log_ratios)) for _ in log_ratios]


def minpro(log_ratios, advantages, *, clip, inclusive):
    result = []
    for t, own in enumerate(log_ratios):
        earlier = log_ratios[: t + 1] if inclusive else log_ratios[:t]
        least = min(earlier) if earlier else 0.0
        product = exp(least + own)
        result.append(product if clip is None else min(max(product, clip[0]), clip[1]))
    return result


def truncated(log_ratios, advantages, *, level, cap):
    ratios = token(log_ratios, advantages) if level == "token" else sequence(log_ratios, advantages)
    return [min(ratio, cap) for ratio in ratios]


def masked(log_ratios, advantages, *, level, interval):
    ratios = token(log_ratios, advantages) if level == "token" else sequence(log_ratios, advantages)
    return [ratio if interval[0] <= ratio <= interval[1] else 0.0 for ratio in ratios]


def cispo(log_ratios, advantages, *, clip):
    return [min(max(exp(log_rho), clip[0]), clip[1]) for log_rho in log_ratios]


def v_trace(log_ratios, advantages, *, cap, trace_cap):
    # The product is a sum of logs: e^-800 times e^800 is 1, which the product of two numbers of float64 is not.
    result, log_trace = [], 0.0
    for log_rho in log_ratios:
        result.append(exp(log_trace + min(math.log(cap), log_rho)))
        log_trace += min(math.log(trace_cap), log_rho)
    return result


def has_gradient(ratio, advantage, low, high, dual=None):
    """Whether min(ratio A, clip(ratio, low, high) A), or its dual clip, has a gradient in the ratio."""
    if advantage > 0:
        return ratio <= high
    if advantage < 0:
        return ratio >= low and (dual is None or ratio <= dual)
    return True


def ppo_clip(log_ratios, advantages, *, clip, dual):
    result = []
    for log_rho, advantage in zip(log_ratios, advantages, strict=True):
        result.append(exp(log_rho) if has_gradient(exp(log_rho), advantage, *clip, dual) else 0.0)
    return result


def gspo(log_ratios, advantages, *, clip):
    mean = geometric(log_ratios, advantages)
    return [s if has_gradient(s, a, *clip) else 0.0 for s, a in zip(mean, advantages, strict=True)]


def m2po(log_ratios, advantages, *, budget, clip):
    pairs = [pair for rows in zip(log_ratios, advantages, strict=True) for pair in zip(*rows, strict=True)]
    squares = [x * x for x, advantage in pairs if (advantage > 0 and x > 0) or (advantage < 0 and x < 0)]

    def fits(tau):
        return sum(min(square, tau * tau) for square in squares) <= budget * len(squares)

    tau = INFINITY
    if not fits(INFINITY):
        # Bisection: what is capped at tau grows with tau.
        tau, above = 0.0, 1.0
        while fits(above):
            above *= 2.0
        for _ in range(200):
            middle = 0.5 * (tau + above)
            tau, above = (middle, above) if fits(middle) else (tau, middle)
    low, high = min(clip[0], exp(-tau)), max(clip[1], exp(tau))
    return [ppo_clip(*rows, clip=(low, high), dual=None) for rows in zip(log_ratios, advantages, strict=True)]


TWINS = {
    function.__name__: function
    for function in (
        none, token, prefix, suffix, sequence, geometric, minpro, truncated, masked, ppo_clip, gspo, cispo, v_trace,
        m2po,
    )
}  # fmt: skip


def coefficients(weight, log_ratios, advantages, given=None):
    """c_t of one sequence whose tokens all count, the sequence being a batch of its own."""
    if not log_ratios:
        return []
    beside = {name: list(given[name]) for name in weight.needs}
    if weight.family.couples_batch:
        beside = {name: [values] for name, values in beside.items()}
        return TWINS[weight.name]([list(log_ratios)], [list(advantages)], **beside, **weight.options)[0]
    return TWINS[weight.name](list(log_ratios), list(advantages), **beside, **weight.options)


def batch_coefficients(weight, log_ratio, mask, advantage, given=None, batch=None):
    """c_t of (N, T) nested lists, zero where masked; every `batch` sequences are one batch, by default all."""
    N = len(log_ratio)
    places = [[(n, t) for t in range(len(mask[n])) if mask[n][t]] for n in range(N)]
    result = [[0.0] * len(row) for row in log_ratio]

    def of(values, row):
        return [values[n][t] for n, t in row]

    size = N if batch is None else batch
    for first in range(0, N, size):
        rows = places[first : first + size]
        names = {name: given[name] for name in weight.needs}
        if weight.family.couples_batch:
            beside = {name: [of(values, row) for row in rows] for name, values in names.items()}
            arguments = [of(log_ratio, row) for row in rows], [of(advantage, row) for row in rows]
            found = TWINS[weight.name](*arguments, **beside, **weight.options)
        else:
            found = [
                coefficients(weight, of(log_ratio, row), of(advantage, row), {k: of(v, row) for k, v in names.items()})
                for row in rows
            ]
        for row, values in zip(rows, found, strict=True):
            for (n, t), value in zip(row, values, strict=True):
                result[n][t] = value
    return result
