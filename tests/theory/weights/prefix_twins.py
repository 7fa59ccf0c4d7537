"""The weights of prefixes, windows and batches as scalar loops; `twins.py` says what a twin sees."""

from __future__ import annotations

import math
import statistics

from tests.theory.weights.plain import INFINITY, exp, has_gradient


def ctpo(log_ratios, advantages, *, epsilon_low, epsilon_high, power, epsilon_dual, cap, normalised):
    def bound(slope, t):
        try:
            return exp(slope * t**power)
        except OverflowError:  # of t^power
            return 1.0 if slope == 0.0 else exp(math.copysign(INFINITY, slope))

    result, total = [], 0.0
    for t, (log_rho, advantage) in enumerate(zip(log_ratios, advantages, strict=True), start=1):
        total += min(max(log_rho, -20.0), 20.0)
        ratio = exp(total / t if normalised else total)
        low, high = bound(-epsilon_low, t), bound(epsilon_high, t)
        kept = has_gradient(ratio, advantage, low, high, None if epsilon_dual is None else bound(epsilon_dual, t))
        result.append(ratio if kept and ratio <= cap else 0.0)
    return result


def pnpo(log_ratios, advantages, *, epsilon_low, epsilon_high, gate):
    result = []
    for t in range(1, len(log_ratios) + 1):
        mean = exp(sum(log_ratios[:t]) / t)
        h = math.sqrt(len(log_ratios) / t)
        result.append(mean if not gate or 1 - epsilon_low * h <= mean <= 1 + epsilon_high * h else 0.0)
    return result


def window(log_ratios, advantages, *, size):
    return [exp(sum(log_ratios[max(t - size, 0) : t + 1])) for t in range(len(log_ratios))]


def nfpo(log_ratios, advantages, *, steps):
    return [exp(sum(log_ratios[t : t + steps])) for t in range(len(log_ratios))]


def retrace(log_ratios, advantages, *, decay):
    result, log_trace = [], 0.0
    for log_rho in log_ratios:
        result.append(exp(log_trace + log_rho))
        log_trace += math.log(decay) + min(log_rho, 0.0)
    return result


def marginalised(log_ratios, advantages, *, state_ratio):
    return [w * exp(log_rho) if w else 0.0 for w, log_rho in zip(state_ratio, log_ratios, strict=True)]


def prefix_mask(log_ratios, advantages, *, statistic, interval, inclusive):
    result = []
    for t, log_rho in enumerate(log_ratios):
        seen = log_ratios[: t + 1] if inclusive else log_ratios[:t]
        x = 1.0
        if seen:
            x = exp({"product": sum(seen), "geometric": sum(seen) / len(seen), "minimum": min(seen)}[statistic])
        result.append(exp(log_rho) if interval[0] <= x <= interval[1] else 0.0)
    return result


def cppo(
    log_ratios,
    advantages,
    total_variation=None,
    log_probability=None,
    *,
    delta,
    w_min,
    delta_b,
    delta_b_min,
    soft,
    divergence,
):
    length, result = len(log_ratios), []
    if divergence == "binary_tv":
        mu = [0.0 if x == -INFINITY else exp(p - x) for p, x in zip(log_probability, log_ratios, strict=True)]
        total_variation = [abs(exp(p) - m) for p, m in zip(log_probability, mu, strict=True)]
    if delta_b == "p90":
        ninth = statistics.quantiles(total_variation, n=10, method="inclusive")[8] if length > 1 else total_variation[0]
        delta_b = min(max(ninth, delta_b_min), 2 * delta_b_min)
    spent, earned = 0.0, 0.0
    for t in range(length):
        w = 1.0 - (1.0 - w_min) * t / (length - 1) if length > 1 else 1.0
        here = w * total_variation[t]
        spent += here
        allowed = delta + delta_b * earned
        earned += w
        harmful = (advantages[t] > 0 and log_ratios[t] > 0) or (advantages[t] < 0 and log_ratios[t] < 0)
        gate = 1.0
        if harmful and (here > delta or spent > allowed):
            gate = 1.0 / max(here / delta, spent / allowed) if soft else 0.0
        result.append(gate * exp(log_ratios[t]) if gate else 0.0)
    return result


def self_normalised(log_ratios, advantages, *, level, cap):
    """Lists of lists: one for each sequence of the batch."""

    def value(row, t):
        ratios = {"token": row[t : t + 1], "prefix": row[: t + 1], "sequence": row}[level]
        return min(sum(ratios), math.log(cap) if cap < INFINITY else INFINITY)

    def beside(t):
        """What a token at place t is compared with: by token, all tokens; by sequence, each sequence once."""
        if level == "token":
            return [value(row, u) for row in log_ratios for u in range(len(row))]
        if level == "sequence":
            return [value(row, 0) for row in log_ratios if row]
        return [value(row, t) for row in log_ratios if len(row) > t]

    def relative(row, t):
        others = beside(t)
        top = max(others)
        if top == -INFINITY:
            return 0.0
        return math.exp(value(row, t) - top) / (sum(math.exp(x - top) for x in others) / len(others))

    return [[relative(row, t) for t in range(len(row))] for row in log_ratios]


PREFIX_TWINS = (ctpo, pnpo, window, nfpo, retrace, marginalised, prefix_mask, cppo, self_normalised)
