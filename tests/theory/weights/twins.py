"""Every weight again, as a scalar loop over the tokens that a reader can check by eye.

A twin sees only the tokens that count: lists of their log-ratios and signals, in order, and of what the weight needs
beside them by name. It returns their coefficients. The twin of a weight that couples a batch sees a list of such lists,
one for each sequence of the batch.
"""

from __future__ import annotations

import math

import theory
from tests.theory.weights.plain import INFINITY, exp, has_gradient
from tests.theory.weights.prefix_twins import PREFIX_TWINS


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
    ratios = {"token": token, "prefix": prefix, "sequence": sequence}[level](log_ratios, advantages)
    return [min(ratio, cap) for ratio in ratios]


def masked(log_ratios, advantages, *, level, interval):
    ratios = {"token": token, "prefix": prefix, "sequence": sequence}[level](log_ratios, advantages)
    return [ratio if interval[0] <= ratio <= interval[1] else 0.0 for ratio in ratios]


def cispo(log_ratios, advantages, *, clip, mask=False):
    clipped = [min(max(exp(log_rho), clip[0]), clip[1]) for log_rho in log_ratios]
    if not mask:
        return clipped
    kept = [has_gradient(exp(log_rho), a, *clip) for log_rho, a in zip(log_ratios, advantages, strict=True)]
    return [c if keep else 0.0 for c, keep in zip(clipped, kept, strict=True)]


def v_trace(log_ratios, advantages, *, cap, trace_cap):
    # The product is a sum of logs: e^-800 times e^800 is 1, which the product of two numbers of float64 is not.
    result, log_trace = [], 0.0
    for log_rho in log_ratios:
        result.append(exp(log_trace + min(math.log(cap), log_rho)))
        log_trace += min(math.log(trace_cap), log_rho)
    return result


def ppo_clip(log_ratios, advantages, *, clip, dual, level="token"):
    ratios = {"token": token, "prefix": prefix, "sequence": sequence}[level](log_ratios, advantages)
    result = []
    for ratio, advantage in zip(ratios, advantages, strict=True):
        result.append(ratio if has_gradient(ratio, advantage, *clip, dual) else 0.0)
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


def sapo(log_ratios, advantages, *, tau_positive, tau_negative):
    result = []
    for log_rho, advantage in zip(log_ratios, advantages, strict=True):
        rho = exp(log_rho)
        x = (tau_positive if advantage > 0 else tau_negative) * (rho - 1.0)
        # Beyond 700 both 1 - p and its product with any finite rho are zero.
        result.append(4.0 * rho / (1.0 + exp(-x)) / (1.0 + exp(x)) if x < 700.0 else 0.0)
    return result


def aspo(log_ratios, advantages, *, clip, cap, dual):
    result = []
    for log_rho, advantage in zip(log_ratios, advantages, strict=True):
        rho, inverse = exp(log_rho), exp(-log_rho)
        if advantage < 0:
            result.append(0.0 if rho < clip[0] else rho if dual is None else min(rho, dual))
        else:
            result.append(0.0 if rho > clip[1] else min(inverse, cap))
    return result


def topr(log_ratios, advantages, *, level, cap):
    tapered = truncated(log_ratios, advantages, level=level, cap=cap)
    return [1.0 if advantage > 0 else c for c, advantage in zip(tapered, advantages, strict=True)]


def both_probabilities(log_rho, log_pi):
    """pi and mu of the sampled token; mu is 0 where rho is, since rho does not tell it there."""
    return exp(log_pi), 0.0 if log_rho == -INFINITY else exp(log_pi - log_rho)


def binary_kl(log_rho, log_pi):
    """mu log(mu / pi) + (1 - mu) log((1 - mu) / (1 - pi)), where 0 log 0 = 0 and 1 - pi is at least 2^-53."""
    if log_rho == -INFINITY:
        return -math.log(max(-math.expm1(log_pi), 2.0**-53))
    log_mu = log_pi - log_rho
    rest_mu, rest_pi = -math.expm1(log_mu), max(-math.expm1(log_pi), 2.0**-53)
    return -math.exp(log_mu) * log_rho + (rest_mu * math.log(rest_mu / rest_pi) if rest_mu > 0.0 else 0.0)


def dppo(log_ratios, advantages, log_probability=None, total_variation=None, kl=None, *, divergence, delta, cap):
    if delta is None:
        delta = {"binary_tv": 0.15, "total_variation": 0.15, "binary_kl": 0.05, "kl": 0.05}[divergence]
    result = []
    for t, (log_rho, advantage) in enumerate(zip(log_ratios, advantages, strict=True)):
        if divergence == "total_variation":
            distance = total_variation[t]
        elif divergence == "kl":
            distance = kl[t]
        else:
            pi, mu = both_probabilities(log_rho, log_probability[t])
            distance = abs(pi - mu) if divergence == "binary_tv" else binary_kl(log_rho, log_probability[t])
        lost = distance > delta and advantage * log_rho > 0
        result.append(0.0 if lost else min(exp(log_rho), cap))
    return result


def drpo(log_ratios, advantages, log_probability, *, epsilon):
    result = []
    for log_rho, advantage, log_pi in zip(log_ratios, advantages, log_probability, strict=True):
        pi, mu = both_probabilities(log_rho, log_pi)
        sign = (advantage > 0) - (advantage < 0)
        result.append(exp(log_rho) * (1.0 - sign * (pi - mu) / epsilon))
    return result


def log_ratio_mask(log_ratios, advantages, *, threshold, estimator):
    estimates = [0.5 * x * x if estimator == "k2" else exp(x) - 1.0 - x for x in log_ratios]
    return [exp(x) if estimate <= threshold else 0.0 for x, estimate in zip(log_ratios, estimates, strict=True)]


def mixed_ratio(log_ratios, advantages, *, alpha):
    return [1.0 if alpha == 1.0 else (1.0 - alpha) * exp(x) + alpha for x in log_ratios]


def gmpo(log_ratios, advantages, *, clip):
    low, high = (math.log(bound) if bound > 0.0 else -INFINITY for bound in clip)
    clipped = []
    for log_rho, advantage in zip(log_ratios, advantages, strict=True):
        clipped.append(min(log_rho, high) if advantage > 0 else max(log_rho, low) if advantage < 0 else log_rho)
    mean = exp(sum(clipped) / len(clipped))
    return [mean if log_rho == kept else 0.0 for log_rho, kept in zip(log_ratios, clipped, strict=True)]


def vespo(log_ratios, advantages, *, k_positive, lambda_positive, k_negative, lambda_negative):
    def cut(x):
        return min(max(x, -20.0), 20.0)

    log_w = cut(sum(cut(x) for x in log_ratios))
    result = []
    for advantage in advantages:
        k, decay = (k_positive, lambda_positive) if advantage >= 0 else (k_negative, lambda_negative)
        result.append(exp(decay + k * log_w - decay * exp(log_w)))
    return result


def sequence_mask(log_ratios, advantages, kl=None, *, statistic, interval, tokens):
    length = len(log_ratios)
    if statistic in ("geometric", "product"):
        value = exp(sum(log_ratios) / (length if statistic == "geometric" else 1))
    elif statistic == "k1":
        value = sum(-x for x in log_ratios) / length
    elif statistic.endswith("kl"):
        value = max(kl) if statistic == "largest_kl" else sum(kl) / length
    else:
        each = [0.5 * x * x if statistic.endswith("k2") else exp(x) - 1.0 - x for x in log_ratios]
        value = max(each) if statistic.startswith("max") else sum(each)
        value = value / length if statistic in ("k2", "k3") else value
    carried = {"none": none, "token": token, "sequence": sequence}[tokens](log_ratios, advantages)
    return carried if interval[0] <= value <= interval[1] else [0.0] * length


def off_policy_sequence_mask(log_ratios, advantages, *, threshold, tokens):
    carried = {"none": none, "token": token, "sequence": sequence}[tokens](log_ratios, advantages)
    moved_away = sum(-x for x in log_ratios) / len(log_ratios) > threshold
    return [0.0 if moved_away and a < 0 else c for c, a in zip(carried, advantages, strict=True)]


def trm(log_ratios, advantages, kl, *, largest, mean):
    kept = (largest is None or max(kl) <= largest) and (mean is None or sum(kl) / len(kl) <= mean)
    return token(log_ratios, advantages) if kept else [0.0] * len(log_ratios)


def decoupled(log_ratios, advantages, *, update, behaviour, anchor, old_log_ratio=None, lag=None):
    ours, theirs = [], []
    for t, log_rho in enumerate(log_ratios):
        if anchor == "old":
            theirs.append(old_log_ratio[t])
            ours.append(log_rho if theirs[t] == -INFINITY else log_rho - theirs[t])
        else:
            alpha = 1.0 - 1.0 / max(lag[t], 1.0) if anchor == "lag" else anchor
            theirs.append(alpha * log_rho if alpha > 0.0 else 0.0)
            ours.append((1.0 - alpha) * log_rho if alpha < 1.0 else 0.0)
    one, other = (
        coefficients(theory.weight(name), given, advantages) for name, given in ((update, ours), (behaviour, theirs))
    )
    return [0.0 if 0.0 in (x, y) else x * y for x, y in zip(one, other, strict=True)]


TWINS = {
    function.__name__: function
    for function in (
        none, token, prefix, suffix, sequence, geometric, minpro, truncated, masked, ppo_clip, gspo, cispo, v_trace,
        m2po,
        sapo, aspo, topr, dppo, drpo, log_ratio_mask, mixed_ratio, gmpo, vespo, sequence_mask, trm,
        off_policy_sequence_mask, decoupled, *PREFIX_TWINS,
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
