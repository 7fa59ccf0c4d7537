"""Plain-loop twins: expected return by walking every trajectory, and values straight from Gymnasium's tables."""

from __future__ import annotations

import itertools

import numpy as np

import theory


def uniform(process):
    return theory.SoftmaxPolicy(np.zeros((process.states, process.actions)))


def policy_of(process, rows):
    """A policy from rows of probabilities, one row for all states or one row each; zeros allowed."""
    with np.errstate(divide="ignore"):
        return theory.SoftmaxPolicy(np.broadcast_to(np.log(rows), (process.states, process.actions)))


def expected_return(process, policy):
    return theory.values(process, policy).expected_return


def dense(process):
    matrix = process.transition_matrix
    matrix = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
    return matrix.reshape(process.states, process.actions, process.states)


def walk(process, policy):
    """(probability, return) of every trajectory, one by one."""
    transition, pi = dense(process), policy.probabilities
    found = []

    def go(t, s, probability, paid):
        if t == process.horizon or process.absorbing[s]:
            found.append((probability, paid + process.discount**t * process.terminal_reward[s]))
            return
        for a, s_next in itertools.product(range(process.actions), np.flatnonzero(transition[s].sum(axis=0))):
            p = transition[s, a, s_next]
            if p > 0:
                r = process.reward[s, a] if process.reward.ndim == 2 else process.reward[s, a, s_next]
                go(t + 1, s_next, probability * pi[s, a] * p, paid + process.discount**t * r)

    for s in np.flatnonzero(process.initial):
        go(0, s, process.initial[s], 0.0)
    return found


def table_values(table, rows, horizon, discount=1.0):
    """V_0(s) of a policy (rows[s][a]), or of the best one (rows None), from P[s][a] alone, by loops over time."""
    value = [0.0] * len(table)
    for _ in range(horizon):
        earlier = []
        for s in range(len(table)):
            q = [
                sum(p * (r + (0.0 if ends else discount * value[s_next])) for p, s_next, r, ends in table[s][a])
                for a in range(len(table[s]))
            ]
            earlier.append(max(q) if rows is None else sum(w * x for w, x in zip(rows[s], q, strict=True)))
        value = earlier
    return np.array(value)


def table_best_policy(table, horizon, discount=1.0):
    """One best action per state with `horizon` steps ahead, as (S, A) rows of 0 and 1, from P[s][a] alone."""
    value = table_values(table, None, horizon, discount)
    rows = np.zeros((len(table), len(table[0])))
    for s in range(len(table)):
        q = [
            sum(p * (r + (not ends) * discount * value[n]) for p, n, r, ends in table[s][a])
            for a in range(rows.shape[1])
        ]
        rows[s, int(np.argmax(q))] = 1.0
    return rows
