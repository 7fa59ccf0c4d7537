"""Each method as a sum over the steps of one trajectory, by plain loops: no recursion, nothing of theory.critic.

A critic is q (T, S, A), its gradient dq (T, S, A, P), and v (T+1, S), each what a method is told it is.
"""

from functools import lru_cache

import numpy as np

from tests import brute_force


def steps_of(process, target, behaviour, trajectory, v, dv=None):
    """(t, s, a, r, rho, C, z, Z, v', dv') of each step; v' is the terminal reward at the end, and dv' zero there."""
    C, Z, P = 1.0, np.zeros(target.parameter_count), target.parameter_count
    L = trajectory.length
    for t in range(L):
        s, a, after = trajectory.states[t], trajectory.actions[t], trajectory.states[t + 1]
        rho = target.probabilities[s, a] / behaviour.probabilities[s, a]
        C, Z = C * rho, Z + target.score[s, a]
        v_after = trajectory.terminal if t + 1 == L else v[t + 1, after]
        dv_after = np.zeros(P) if t + 1 == L or dv is None else dv[t + 1, after]
        yield t, s, a, trajectory.rewards[t], rho, C, target.score[s, a], Z, v_after, dv_after


def expected(target, table):
    """Sum over a of pi(a|s) table[t, s, a], by loops."""
    T, S, A = table.shape[:3]
    return np.array([[sum(target.probabilities[s, a] * table[t, s, a] for a in range(A)) for s in range(S)]
                     for t in range(T)])  # fmt: skip


def with_score(target, q):
    """z(s, a) q[t, s, a], (T, S, A, P)."""
    return target.score[None] * q[..., None]


def per_decision(process, target, behaviour, trajectory, q, dq, v):
    total, discount = np.zeros(target.parameter_count), process.discount
    for t, _, _, r, _, C, _, Z, _, _ in steps_of(process, target, behaviour, trajectory, v):
        paid = r + (discount * trajectory.terminal if t + 1 == trajectory.length else 0.0)
        total += discount**t * C * paid * Z
    return total


def state_baseline(process, target, behaviour, trajectory, q, dq, v):
    total = per_decision(process, target, behaviour, trajectory, q, dq, v)
    for t, s, _, _, _, C, z, _, _, _ in steps_of(process, target, behaviour, trajectory, v):
        total -= process.discount**t * C * v[t, s] * z
    return total


def action_baseline(process, target, behaviour, trajectory, q, dq, v):
    total = per_decision(process, target, behaviour, trajectory, q, dq, v)
    mean, before = expected(target, with_score(target, q)), 1.0
    for t, s, a, _, _, C, z, _, _, _ in steps_of(process, target, behaviour, trajectory, v):
        total += process.discount**t * (before * mean[t, s] - C * q[t, s, a] * z)
        before = C
    return total


def doubly_robust(process, target, behaviour, trajectory, q, dq, v):
    """The derivative of v_0 + sum over t of discount^t C_t (r_t + discount v_{t+1} - q_t), with v = E_pi[q]."""
    v, dv = expected(target, q), expected(target, with_score(target, q) + dq)
    if not trajectory.length:
        return np.zeros(target.parameter_count)
    total = dv[0, trajectory.states[0]].copy()
    for t, s, a, r, _, C, _, Z, v_, dv_ in steps_of(process, target, behaviour, trajectory, v, dv):
        error, d_error = r + process.discount * v_ - q[t, s, a], process.discount * dv_ - dq[t, s, a]
        total += process.discount**t * C * (Z * error + d_error)
    return total


def trajectory_baseline(process, target, behaviour, trajectory, q, dq, v):
    return doubly_robust(process, target, behaviour, trajectory, q, 0.0 * dq, v)


def marginal(process, target, behaviour, trajectory, q, dq, v):
    v, dv = expected(target, q), expected(target, with_score(target, q) + dq)
    if not trajectory.length:
        return np.zeros(target.parameter_count)
    w, dw = marginal_tables(process, target, behaviour)
    total = dv[0, trajectory.states[0]].copy()
    for t, s, a, r, _, _, _, _, v_, dv_ in steps_of(process, target, behaviour, trajectory, v, dv):
        error, d_error = r + process.discount * v_ - q[t, s, a], process.discount * dv_ - dq[t, s, a]
        total += process.discount**t * (dw[t, s, a] * error + w[t, s, a] * d_error)
    return total


@lru_cache(maxsize=4)
def marginal_tables(process, target, behaviour):
    """w and dw by visiting all trajectories of both policies: dw is w times the mean sum of scores, given s and a."""
    shape = process.horizon, process.states, process.actions
    ours, theirs, gradient = np.zeros(shape), np.zeros(shape), np.zeros((*shape, target.parameter_count))
    for trajectory in brute_force.trajectories(process, behaviour):
        for t, (s, a) in enumerate(zip(trajectory.states, trajectory.actions, strict=False)):
            theirs[t, s, a] += trajectory.probability
    for trajectory in brute_force.trajectories(process, target):
        Z = np.zeros(target.parameter_count)
        for t, (s, a) in enumerate(zip(trajectory.states, trajectory.actions, strict=False)):
            Z = Z + target.score[s, a]
            ours[t, s, a] += trajectory.probability
            gradient[t, s, a] += trajectory.probability * Z
    seen = np.where(theirs > 0.0, theirs, 1.0)
    return np.where(theirs > 0.0, ours / seen, 0.0), gradient / seen[..., None]


def v_trace(process, target, behaviour, trajectory, q, dq, v, cap=1.0, trace_cap=1.0, trace_decay=1.0):
    """v_t = v(s_t) + sum over k >= t of discount^{k-t} (product over t <= j < k of c_j) delta_k, term by term."""
    steps = list(steps_of(process, target, behaviour, trajectory, v))
    discount, targets = process.discount, []
    for t in range(trajectory.length):
        total, trace = v[t, trajectory.states[t]], 1.0
        for k, s, _, r, rho, _, _, _, v_, _ in steps[t:]:
            total += discount ** (k - t) * trace * min(cap, rho) * (r + discount * v_ - v[k, s])
            trace *= trace_decay * min(trace_cap, rho)
        targets.append(total)
    targets.append(trajectory.terminal)
    total = np.zeros(target.parameter_count)
    for t, s, _, r, rho, _, z, _, _, _ in steps:
        total += discount**t * min(cap, rho) * (r + discount * targets[t + 1] - v[t, s]) * z
    return total


def retrace(process, target, behaviour, trajectory, q, dq, v, cap=np.inf, trace_cap=1.0, trace_decay=1.0):
    """q_t + sum over k >= t of discount^{k-t} (product over t < j <= k of c_j) delta_k for the action value."""
    v = expected(target, q)
    steps, discount = list(steps_of(process, target, behaviour, trajectory, v)), process.discount
    result = np.zeros(target.parameter_count)
    for t, s, a, _, own, _, z, _, _, _ in steps:
        total, trace = q[t, s, a], 1.0
        for k, s_k, a_k, r, rho, _, _, _, v_, _ in steps[t:]:
            trace *= trace_decay * min(trace_cap, rho) if k > t else 1.0
            total += discount ** (k - t) * trace * (r + discount * v_ - q[k, s_k, a_k])
        result += discount**t * min(cap, own) * (total - v[t, s]) * z
    return result


def acer(process, target, behaviour, trajectory, q, dq, v, cap=10.0, trace_cap=1.0, trace_decay=1.0):
    result = retrace(process, target, behaviour, trajectory, q, dq, v, cap, trace_cap, trace_decay)
    v, pi, mu = expected(target, q), target.probabilities, behaviour.probabilities
    for t, s in enumerate(trajectory.states[: trajectory.length]):
        for b in range(process.actions):
            if pi[s, b] == 0.0:
                continue
            # Where mu cannot draw b the ratio is infinite, and all of its share is left to the critic.
            rho = pi[s, b] / mu[s, b] if mu[s, b] > 0.0 else np.inf
            share = pi[s, b] * max(0.0, 1.0 - cap / rho)
            result += process.discount**t * share * (q[t, s, b] - v[t, s]) * target.score[s, b]
    return result


METHODS = {
    f.__name__: f
    for f in (per_decision, state_baseline, action_baseline, trajectory_baseline, doubly_robust, marginal, v_trace,
              retrace, acer)
}  # fmt: skip


def moments(process, target, behaviour, method, q, dq, v, **options):
    """(mean, E[g g']) over every trajectory of mu."""
    P = target.parameter_count
    mean, outer = np.zeros(P), np.zeros((P, P))
    for trajectory in brute_force.trajectories(process, behaviour):
        g = METHODS[method](process, target, behaviour, trajectory, q, dq, v, **options)
        mean += trajectory.probability * g
        outer += trajectory.probability * np.outer(g, g)
    return mean, outer
