"""Moments of estimators that use several trajectories at once, by visiting every tuple of trajectories.

The slow twin of "token_mean" batches and of group-relative advantages.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

import theory
from tests import brute_force
from tests.theory.weights import twins


def batch_moments(process, target, behaviour, weight, signal, batch, score="own"):
    """(E[g], E[g g']) of (sum over the batch of X_i) / (sum of L_i), over every tuple of `batch` trajectories."""
    paths = brute_force.trajectories(process, behaviour)
    sums = [brute_force.estimate(process, target, behaviour, weight, signal, x, score) for x in paths]
    P = target.parameter_count
    mean, outer = np.zeros(P), np.zeros((P, P))
    for members in itertools.product(range(len(paths)), repeat=batch):
        tokens = sum(paths[i].length for i in members)
        g = sum(sums[i] for i in members) / max(tokens, 1)
        probability = math.prod(paths[i].probability for i in members)
        mean += probability * g
        outer += probability * np.outer(g, g)
    return mean, outer


def coupled_moments(process, target, behaviour, weight, signal, batch, reduction):
    """(E[g], E[g g']) over every tuple, for a weight whose coefficients depend on all tokens of the batch.

    `signal` is a name, or a group of one prompt; the sum is over the batch's tokens with "token_mean", and else each
    trajectory's own reduction, over `batch`.
    """
    weight, P = theory.weight(weight), target.parameter_count
    paths = brute_force.trajectories(process, behaviour)
    mean, outer = np.zeros(P), np.zeros((P, P))
    for members in itertools.product(paths, repeat=batch):
        probability = math.prod(x.probability for x in members)
        if isinstance(signal, str):
            psi = [brute_force.signals(process, target, behaviour, signal, x) for x in members]
        else:
            if len({x.states[0] for x in members}) > 1:
                continue
            probability /= float(process.initial[members[0].states[0]]) ** (batch - 1)
            advantages = plain_advantages([total_return(process, x) for x in members], signal.centre, signal.scale)
            psi = [[A] * x.length for A, x in zip(advantages, members, strict=True)]
        log_ratios = [brute_force.log_ratios(x, target, behaviour) for x in members]
        c = twins.TWINS[weight.name](log_ratios, psi, **weight.options)
        tokens, g = sum(x.length for x in members), np.zeros(P)
        for x, c_of_x, psi_of_x in zip(members, c, psi, strict=True):
            divisor = {
                "sum": batch,
                "token_mean": max(tokens, 1),
                "length_mean": batch * max(x.length, 1),
                "constant": batch * process.horizon,
            }[reduction]
            for ct, At, s, a in zip(c_of_x, psi_of_x, x.states, x.actions, strict=False):
                g = g + ct * At * target.score[s, a] / divisor
        mean += probability * g
        outer += probability * np.outer(g, g)
    return mean, outer


def plain_advantages(returns, centre, scale, ddof=1, epsilon=1e-6):
    """Group-relative advantages of a list of returns."""
    G = len(returns)
    # Returns that differ by rounding only are equal.
    if max(returns) - min(returns) < 1e-9 and not (centre == scale == "none"):
        return [0.0] * G
    average = sum(returns) / G
    deviation = math.sqrt(sum((r - average) ** 2 for r in returns) / (G - ddof)) if scale == "std" else 0.0
    result = []
    for i, r in enumerate(returns):
        others = returns[:i] + returns[i + 1 :]
        subtracted = {"mean": average, "leave_one_out": sum(others) / max(G - 1, 1), "none": 0.0}[centre]
        result.append((r - subtracted) / (deviation + epsilon if scale == "std" else 1.0))
    return result


def total_return(process, trajectory):
    """Discounted rewards of a trajectory and its terminal reward."""
    paid = sum(process.discount**t * r for t, r in enumerate(trajectory.rewards))
    return paid + process.discount**trajectory.length * trajectory.terminal


def group_moments(process, target, behaviour, weight, group, score="own", reduction="sum"):
    """(E[g], E[g g']) of one group's estimator, over every start state and every tuple of its trajectories.

    g = (1/G) sum of A_i X_i / (1, L_i or T), or (sum of A_i X_i) / (sum of L_i) with "token_mean".
    """
    weight, G, P = theory.weight(weight), group.size, target.parameter_count
    paths = brute_force.trajectories(process, behaviour)
    mean, outer = np.zeros(P), np.zeros((P, P))

    def weighted(x, advantage):
        """A_i X_i; the coefficients may look at the sign of A_i, which all tokens of the trajectory share."""
        signs = [advantage] * x.length
        c = twins.coefficients(weight, brute_force.log_ratios(x, target, behaviour), signs)
        total, so_far = np.zeros(P), np.zeros(P)
        for t, (s, a) in enumerate(zip(x.states, x.actions, strict=False)):
            so_far = so_far + target.score[s, a]
            total = total + c[t] * advantage * {"own": target.score[s, a], "cumulative": so_far}[score]
        return total / {"length_mean": max(x.length, 1), "constant": process.horizon}.get(reduction, 1)

    # The vector of a trajectory changes with its advantage in size and, for some weights, with its sign.
    units = {(i, sign): weighted(x, sign) * sign for i, x in enumerate(paths) for sign in (1.0, -1.0)}
    for s in np.flatnonzero(process.initial):
        prompt = [i for i, x in enumerate(paths) if x.states[0] == s]
        for members in itertools.product(prompt, repeat=G):
            advantages = plain_advantages(
                [total_return(process, paths[i]) for i in members], group.centre, group.scale, group.ddof, group.epsilon
            )
            g = sum(A * units[i, 1.0 if A >= 0 else -1.0] for A, i in zip(advantages, members, strict=True))
            tokens = sum(paths[i].length for i in members)
            g = g / (max(tokens, 1) if reduction == "token_mean" else G)
            # Every path's probability carries that of its start state, which is drawn once for the group.
            probability = math.prod(paths[i].probability for i in members) / float(process.initial[s]) ** (G - 1)
            mean += probability * g
            outer += probability * np.outer(g, g)
    return mean, outer
