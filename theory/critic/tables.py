"""What a method takes for the values of the target policy: exact ones, those of mu, none, or a table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.value_functions import acting_states, values

Array = NDArray[np.float64]

CRITICS = {
    "target": "exact values of pi",
    "behaviour": "exact values of mu",
    "zero": "no critic: zero everywhere but the terminal reward",
}


class Critic(NamedTuple):
    """The tables of a critic. Values count from their own step."""

    action_value: Array
    """Q(s, a), (T, S, A); the state's value for every action where only state values were given."""
    state_value: Array
    """V(s), (T+1, S): of pi, of mu, the given table, or sum over a of pi(a|s) Q(s, a). At the end of an episode, which
    is t = T or an absorbing state, it is the terminal reward: nothing is left to be estimated there."""

    def control(self, kind: str, t: int) -> Array:
        """What is subtracted from a return at step t, (S, A): "none", "state" values or "action" values."""
        if kind == "action":
            return self.action_value[t]
        state_value = self.state_value[t] if kind == "state" else np.zeros_like(self.state_value[t])
        return np.asarray(np.broadcast_to(state_value[:, None], self.action_value[t].shape))


def critic_tables(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, critic: Any, needs_actions: bool
) -> Critic:
    """The tables behind `critic`: a name of CRITICS, Q of shape (T, S, A), or V of shape (T+1, S)."""
    T, S, A = process.horizon, process.states, process.actions
    if isinstance(critic, str):
        checks.known_name("critic", critic, CRITICS)
        if critic == "zero":
            return Critic(np.zeros((T, S, A)), _with_ends(process, np.zeros((T + 1, S))))
        v = values(process, target if critic == "target" else behaviour)
        return Critic(v.action_value, v.state_value)
    table = checks.numbers("critic", critic)
    if table.shape not in ((T, S, A), (T + 1, S)):
        raise ValueError(
            f"critic has shape {table.shape}; expected one of {', '.join(CRITICS)}, action values (T, S, A) = "
            f"{(T, S, A)}, or state values (T+1, S) = {(T + 1, S)}"
        )
    checks.finite("critic", table)
    if table.ndim == 2:
        if needs_actions:
            raise ValueError(f"critic has shape {table.shape}, state values; expected action values {(T, S, A)}")
        return Critic(np.repeat(table[:T, :, None], A, axis=2), _with_ends(process, table))
    state_value = np.zeros((T + 1, S))
    state_value[:T] = [expected_value(target, action_value) for action_value in table]
    return Critic(table, _with_ends(process, state_value))


def expected_value(policy: SoftmaxPolicy, action_value: Array) -> Array:
    """Sum over a of pi(a|s) Q(s, a), (S,).

    Summed in the order of `theory.values`, so that for exact Q the result is exactly the value of that function.
    """
    return np.asarray(np.einsum("sa,sa->s", policy.probabilities, action_value))


def _with_ends(process: MarkovProcess, state_value: Array) -> Array:
    result = np.where(process.absorbing, process.terminal_reward, state_value)
    result[-1] = process.terminal_reward
    return result


def noisy_critic(process: MarkovProcess, policy: SoftmaxPolicy, error: float, seed: int = 0) -> Array:
    """Q of a policy plus seeded Gaussian noise, (T, S, A): a critic that is wrong by a known amount.

    Over all steps, and all states in which the policy ever acts, the root mean square of the noise is exactly `error`,
    in units of the return. For a critic that is out of date take `theory.values(process, older_policy).action_value`.

    Raises:
        ValueError: the policy is not one of the process, or `error` is negative or not finite.
    """
    error = checks.non_negative("error", error, "units of the return")
    exact = values(process, policy).action_value
    noise = np.random.default_rng(seed).normal(size=exact.shape)
    noise[:, ~acting_states(process, policy)] = 0.0
    size = np.sqrt((noise**2).sum() / max(np.count_nonzero(noise), 1))
    return np.asarray(exact + (error / size * noise if size > 0.0 else 0.0))
