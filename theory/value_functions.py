"""Exact value functions and occupancies, by backward and forward recursion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Values:
    """Exact values of one policy in one process. Values count from their own step, not from t = 0."""

    state_value: Array
    """V_t(s), (T+1, S). V_T and every absorbing state hold the terminal reward."""
    action_value: Array
    """Q_t(s, a), (T, S, A). In absorbing states, where nothing acts, it repeats the terminal reward."""
    advantage: Array
    """A_t(s, a) = Q_t(s, a) - V_t(s), (T, S, A); zero in absorbing states."""
    occupancy: Array
    """P(s_t = s), (T+1, S), rows sum to one: an episode that ended stays in the state where it ended."""
    expected_return: float
    """J = E[return] = sum over s of initial(s) V_0(s)."""


def check_policy(process: MarkovProcess, policy: SoftmaxPolicy, name: str) -> None:
    """Raise unless the process is one, and the policy a policy over its states and actions."""
    for what, value, expected in (("process", process, MarkovProcess), (f"{name} policy", policy, SoftmaxPolicy)):
        if not isinstance(value, expected):
            raise ValueError(
                f"{what} is of type {type(value).__name__}; expected theory.{expected.__name__} "
                "(the process is passed first, then the policies)"
            )
    shape = (process.states, process.actions)
    if policy.logits.shape != shape:
        raise ValueError(f"{name} policy has shape {policy.logits.shape}; expected (S, A) = {shape} of the process")


def values(process: MarkovProcess, policy: SoftmaxPolicy) -> Values:
    """V, Q, A, occupancy and expected return of a policy.

    Q_t(s,a) = r(s,a) + discount sum over s' of P(s'|s,a) V_{t+1}(s'),  V_t(s) = sum over a of pi(a|s) Q_t(s,a),
    V_T = terminal_reward (Sutton & Barto 2018, eq. 4.3 and 4.4, for a finite horizon).

    >>> process = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=2)  # a reward for each token 1
    >>> pi = theory.SoftmaxPolicy(np.log([[0.5, 0.5]]))
    >>> theory.values(process, pi).expected_return
    1.0
    >>> theory.values(process, pi).advantage[0]
    array([[-0.5,  0.5]])

    Raises:
        ValueError: the policy is not a policy over the states and actions of the process.
    """
    check_policy(process, policy, "the")
    S, A, T = process.states, process.actions, process.horizon
    pi, ended = policy.probabilities, process.absorbing
    state_value = np.empty((T + 1, S))
    action_value = np.empty((T, S, A))
    state_value[T] = process.terminal_reward
    for t in reversed(range(T)):
        future = np.asarray(process.transition_matrix @ state_value[t + 1]).reshape(S, A)
        action_value[t] = process.expected_reward + process.discount * future
        action_value[t, ended] = process.terminal_reward[ended, None]
        state_value[t] = np.einsum("sa,sa->s", pi, action_value[t])
        state_value[t, ended] = process.terminal_reward[ended]
    advantage = action_value - state_value[:T, :, None]
    advantage[:, ended] = 0.0
    occupancy = occupancies(process, policy)
    expected_return = float(process.initial @ state_value[0])
    for array in (state_value, action_value, advantage, occupancy):
        array.flags.writeable = False
    return Values(state_value, action_value, advantage, occupancy, expected_return)


def occupancies(process: MarkovProcess, policy: SoftmaxPolicy) -> Array:
    """P(s_t = s) under the policy, (T+1, S); ended episodes stay where they ended."""
    moving = np.where(process.absorbing[:, None], 0.0, policy.probabilities)
    occupancy = np.empty((process.horizon + 1, process.states))
    occupancy[0] = process.initial
    for t in range(process.horizon):
        flow = (occupancy[t][:, None] * moving).reshape(-1)
        occupancy[t + 1] = process.transition_matrix.T @ flow + np.where(process.absorbing, occupancy[t], 0.0)
    return occupancy


def acting_states(process: MarkovProcess, policy: SoftmaxPolicy) -> NDArray[np.bool_]:
    """Where the policy takes an action with positive probability, however small, within the horizon, (S,)."""
    edges = process.edges
    possible = policy.probabilities[edges.state, edges.action] > 0.0
    state, next_state = edges.state[possible], edges.next_state[possible]
    reached = (process.initial > 0.0) & ~process.absorbing
    for _ in range(process.horizon - 1):
        after = reached.copy()
        after[next_state[reached[state]]] = True
        after &= ~process.absorbing
        if np.array_equal(after, reached):
            break
        reached = after
    return reached
