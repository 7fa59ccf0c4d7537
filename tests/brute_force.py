"""Moments of an estimator by visiting every trajectory one by one: the slow twin of all exact engines.

Nothing here is shared with the engines but the tables of a process, the scores of a policy and, for the signals that
are values, `theory.values`. The weights are those of `tests.theory.weights.twins`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

import theory
from tests.theory.weights import twins


class Trajectory(NamedTuple):
    probability: float
    """Under the behaviour policy."""
    states: tuple[int, ...]
    """s_0 .. s_L."""
    actions: tuple[int, ...]
    """a_0 .. a_{L-1}."""
    rewards: tuple[float, ...]
    """r_0 .. r_{L-1}, not discounted, without the terminal reward."""
    terminal: float
    """The terminal reward of s_L, not discounted."""

    @property
    def length(self):
        """L, zero where the episode starts in an absorbing state."""
        return len(self.actions)


@lru_cache(maxsize=8)
def trajectories(process, behaviour):
    """All trajectories of positive probability under the behaviour policy, as a list."""
    S, A = process.states, process.actions
    transition = np.asarray(
        process.transition_matrix.todense() if hasattr(process.transition_matrix, "todense") else process.transition
    ).reshape(S, A, S)
    reward = np.broadcast_to(process.reward.reshape(S, A, -1), (S, A, S))
    chance = behaviour.probabilities
    result = []

    def walk(probability, states, actions, rewards):
        s = states[-1]
        if process.absorbing[s] or len(actions) == process.horizon:
            result.append(Trajectory(probability, states, actions, rewards, float(process.terminal_reward[s])))
            return
        for a in range(A):
            for after in range(S):
                p = probability * float(chance[s, a]) * float(transition[s, a, after])
                if p > 0.0:
                    walk(p, (*states, after), (*actions, a), (*rewards, float(reward[s, a, after])))

    for s in range(S):
        if process.initial[s] > 0.0:
            walk(float(process.initial[s]), (s,), (), ())
    return result


def log_ratios(trajectory, target, behaviour):
    """log pi(a_t|s_t) - log mu(a_t|s_t) along a trajectory."""
    pi, mu = target.log_probabilities, behaviour.log_probabilities
    pairs = zip(trajectory.states, trajectory.actions, strict=False)
    return [float(pi[s, a]) - float(mu[s, a]) for s, a in pairs]


@lru_cache(maxsize=32)
def _values(process, policy):
    return theory.values(process, policy)


def signals(process, target, behaviour, name, trajectory, baseline=0.0):
    """psi_t along a trajectory, discounted to the start of the episode.

    `baseline`, a number or a (T, S) array, is subtracted as it is from `outcome` and `reward_to_go`.
    """
    discount, L = process.discount, trajectory.length
    paid = [discount**t * r for t, r in enumerate(trajectory.rewards)]
    if L:
        paid[-1] += discount**L * trajectory.terminal
    steps = list(zip(range(L), trajectory.states, trajectory.actions, strict=False))
    if name == "reward":
        return paid
    if name in ("reward_to_go", "outcome"):
        table = np.broadcast_to(baseline, (process.horizon, process.states))
        return [sum(paid[t:] if name == "reward_to_go" else paid) - float(table[t, s]) for t, s, a in steps]
    whose, what = name.split("_", 1)
    table = getattr(_values(process, {"target": target, "behaviour": behaviour}[whose]), what)
    return [discount**t * float(table[t, s, a]) for t, s, a in steps]


@lru_cache(maxsize=32)
def beside(process, target, behaviour):
    """An old policy and a table of lags, for the weights that need them: arguments of `theory.moments`."""
    t, s = np.mgrid[: process.horizon, : process.states]
    old = theory.SoftmaxPolicy(0.6 * target.log_probabilities + 0.4 * behaviour.log_probabilities)
    return {"old": old, "lag": (t + 2 * s) % 3 + 1.0}


@lru_cache(maxsize=64)
def _occupancy(process, policy):
    """P(s_t = s), a dictionary by (t, s), over all trajectories."""
    total = {}
    for trajectory in trajectories(process, policy):
        for t, s in enumerate(trajectory.states):
            total[t, s] = total.get((t, s), 0.0) + trajectory.probability
    return total


def _log(probability):
    """log 0 is -inf, without a warning."""
    return np.log(probability) if probability > 0.0 else -np.inf


def given(process, target, behaviour, name, trajectory):
    """What a weight may need beside ratios, by its name in `theory.NEEDS`, along a trajectory."""
    pi, mu = target.probabilities, behaviour.probabilities
    others = beside(process, target, behaviour)
    result = []
    for t, (s, a) in enumerate(zip(trajectory.states, trajectory.actions, strict=False)):
        if name == "log_probability":
            value = _log(pi[s, a])
        elif name == "total_variation":
            value = 0.5 * sum(abs(pi[s, b] - mu[s, b]) for b in range(process.actions))
        elif name == "kl":
            value = sum(mu[s, b] * (_log(mu[s, b]) - _log(pi[s, b])) for b in range(process.actions) if mu[s, b] > 0.0)
        elif name == "old_log_ratio":
            value = _log(others["old"].probabilities[s, a]) - _log(mu[s, a])
        elif name == "lag":
            value = others["lag"][t, s]
        elif name == "state_ratio":
            value = _occupancy(process, target)[t, s] / _occupancy(process, behaviour)[t, s]
        else:
            raise ValueError(f"no plain way to {name!r} is written here")
        result.append(float(value))
    return result


def coefficients(process, target, behaviour, weight, psi, trajectory):
    """c_t along a trajectory that is a batch of its own."""
    weight = theory.weight(weight)
    needed = {name: given(process, target, behaviour, name, trajectory) for name in weight.needs}
    return twins.coefficients(weight, log_ratios(trajectory, target, behaviour), psi, needed)


def estimate(process, target, behaviour, weight, signal, trajectory, score="own", reduction="sum", baseline=0.0):
    """g_hat of one trajectory, shape (P,)."""
    psi = signals(process, target, behaviour, signal, trajectory, baseline)
    c = coefficients(process, target, behaviour, weight, psi, trajectory)
    total, so_far = np.zeros(target.parameter_count), np.zeros(target.parameter_count)
    for t, (s, a) in enumerate(zip(trajectory.states, trajectory.actions, strict=False)):
        z = target.score[s, a]
        so_far = so_far + z
        if c[t] != 0.0:
            total = total + c[t] * psi[t] * {"own": z, "cumulative": so_far}[score]
    return total / {"sum": 1, "length_mean": max(trajectory.length, 1), "constant": process.horizon}[reduction]


def moments(process, target, behaviour, weight, signal, score="own", reduction="sum", baseline=0.0):
    """(E[g_hat] of shape (P,), E|g_hat|^2) over every trajectory of the behaviour policy.

    `weight` is a name or a theory.Weight, `signal` a name of `theory.signal_cards()`.
    """
    mean, second = np.zeros(target.parameter_count), 0.0
    for trajectory in trajectories(process, behaviour):
        g_hat = estimate(process, target, behaviour, weight, signal, trajectory, score, reduction, baseline)
        mean += trajectory.probability * g_hat
        second += trajectory.probability * float(g_hat @ g_hat)
    return mean, second


def leak(process, target, behaviour, weight, signal, baseline):
    """E[sum over t of c_t b(s_t) z_t] for `baseline` b of shape (S,); c_t looks at the signal where the weight does."""
    total = np.zeros(target.parameter_count)
    for trajectory in trajectories(process, behaviour):
        psi = signals(process, target, behaviour, signal, trajectory)
        c = coefficients(process, target, behaviour, weight, psi, trajectory)
        for t, (s, a) in enumerate(zip(trajectory.states, trajectory.actions, strict=False)):
            total += trajectory.probability * c[t] * float(baseline[s]) * target.score[s, a]
    return total
