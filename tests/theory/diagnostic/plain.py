"""Logged statistics by visiting every trajectory one by one: the slow twin of `theory.diagnostics`."""

from __future__ import annotations

import math

import numpy as np

import theory
from tests import brute_force
from tests.theory.weights import twins


def mean_and_second(pairs):
    total = sum(p for p, _ in pairs)
    return sum(p * x for p, x in pairs) / total, sum(p * x * x for p, x in pairs) / total


def diagnostics(process, target, behaviour, weight, signal="target_advantage", clip=(0.8, 1.2)):
    """Name -> value. A list of (probability, number) per token or per sequence, then plain means."""
    tokens, sequences, coefficients, dead = [], [], [], []
    for y in brute_force.trajectories(process, behaviour):
        if y.length == 0:
            continue
        l = brute_force.log_ratios(y, target, behaviour)  # noqa: E741
        psi = brute_force.signals(process, target, behaviour, signal, y)
        c = twins.coefficients(theory.weight(weight), l, psi)
        steps = list(zip(y.states, y.actions, strict=False))
        sequences.append((y.probability, l, steps))
        tokens += [(y.probability, x, s, a) for x, (s, a) in zip(l, steps, strict=True)]
        coefficients += [(y.probability, float(x)) for x in c]
        dead.append((y.probability, float(all(x == 0.0 for x in c))))

    def per_token(f):
        return mean_and_second([(p, f(x)) for p, x, _, _ in tokens])[0]

    def per_state(f):
        return mean_and_second([(p, f(s, a)) for p, _, s, a in tokens])[0]

    def per_sequence(f):
        return mean_and_second([(p, f(x, steps)) for p, x, steps in sequences])[0]

    def entropy(policy, s):
        return sum(-p * math.log(p) for p in policy.probabilities[s] if p > 0.0)

    def perplexity(policy, steps):
        return math.exp(-sum(policy.log_probabilities[s, a] for s, a in steps) / len(steps))

    mean, second = mean_and_second([(p, math.exp(x)) for p, x, _, _ in tokens])
    w_mean, w_second = mean_and_second([(p, math.exp(sum(x))) for p, x, _ in sequences])
    c_mean, c_second = mean_and_second(coefficients)
    low, high = clip
    return {
        "ratio_mean": mean,
        "ratio_std": math.sqrt(max(second - mean**2, 0.0)),
        "ratio_maximum": max(math.exp(x) for _, x, _, _ in tokens),
        "ratio_minimum": min(math.exp(x) for _, x, _, _ in tokens),
        "ratio_effective_sample_size": mean**2 / second,
        "ratio_chi_square": second - 1,
        "kl_k1": per_token(lambda x: -x),
        "kl_k2": per_token(lambda x: x**2 / 2),
        "kl_k3": per_token(lambda x: math.exp(x) - 1 - x),
        "log_ratio_absolute_mean": per_token(abs),
        "log_ratio_absolute_maximum": max(abs(x) for _, x, _, _ in tokens),
        "ratio_folded_mean": per_token(lambda x: math.exp(abs(x))),
        "clip_fraction": per_token(lambda x: float(not low <= math.exp(x) <= high)),
        "clip_fraction_low": per_token(lambda x: float(math.exp(x) < low)),
        "clip_fraction_high": per_token(lambda x: float(math.exp(x) > high)),
        "entropy_target": per_state(lambda s, a: entropy(target, s)),
        "entropy_behaviour": per_state(lambda s, a: entropy(behaviour, s)),
        "cross_entropy": per_state(lambda s, a: -target.log_probabilities[s, a]),
        "sequence_ratio_mean": w_mean,
        "sequence_ratio_effective_sample_size": w_mean**2 / w_second,
        "sequence_ratio_chi_square": w_second - 1,
        "sequence_ratio_maximum": max(math.exp(sum(x)) for _, x, _ in sequences),
        "sequence_ratio_minimum": min(math.exp(sum(x)) for _, x, _ in sequences),
        "sequence_kl_k1": per_sequence(lambda x, _: -sum(x)),
        "sequence_kl_k3": per_sequence(lambda x, _: math.exp(sum(x)) - 1 - sum(x)),
        "geometric_ratio_mean": per_sequence(lambda x, _: math.exp(np.mean(x))),
        "geometric_chi_square": per_sequence(lambda x, _: math.exp(2 * np.mean(x))) - 1,
        "perplexity_ratio": per_sequence(lambda x, _: math.exp(-np.mean(x))),
        "perplexity_target": per_sequence(lambda _, steps: perplexity(target, steps)),
        "perplexity_behaviour": per_sequence(lambda _, steps: perplexity(behaviour, steps)),
        "largest_ratio_mean": per_sequence(lambda x, _: math.exp(max(x))),
        "smallest_ratio_mean": per_sequence(lambda x, _: math.exp(min(x))),
        "length_mean": per_sequence(lambda x, _: len(x)),
        "weight_mean": c_mean,
        "weight_std": math.sqrt(max(c_second - c_mean**2, 0.0)),
        "weight_effective_sample_size": c_mean**2 / c_second if c_second else math.nan,
        "weight_share_zero": mean_and_second([(p, float(x == 0.0)) for p, x in coefficients])[0],
        "weight_share_sequences_zero": mean_and_second(dead)[0],
    }


def sample(process, behaviour, n, rng):
    """States and actions (n, T) of n episodes, drawn step by step, and which steps act."""
    S, T = process.states, process.horizon
    state = rng.choice(S, size=n, p=process.initial)
    states, actions, acting = np.zeros((n, T), int), np.zeros((n, T), int), np.zeros((n, T), bool)
    alive = ~process.absorbing[state]
    for t in range(T):
        states[:, t], acting[:, t] = state, alive
        for i in np.flatnonzero(alive):
            a = rng.choice(process.actions, p=behaviour.probabilities[state[i]])
            actions[i, t] = a
            state[i] = rng.choice(S, p=process.transition[state[i], a])
        alive &= ~process.absorbing[state]
    return states, actions, acting
