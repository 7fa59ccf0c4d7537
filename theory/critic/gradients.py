"""The gradient of action values in the target's parameters, and the tables of a critic's gradient, backward in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.value_functions import values

Array = NDArray[np.float64]


def action_value_gradient(process: MarkovProcess, target: SoftmaxPolicy) -> Array:
    """Gradient of Q^pi_t(s, a) in the target's parameters, shape (T, S, A, P).

    With dV_t(s) = sum over a of pi(a|s) (z(s,a) Q_t(s,a) + dQ_t(s,a)), zero in absorbing states and at t = T,

        dQ_t(s,a) = discount sum over s' of P(s'|s,a) dV_{t+1}(s')

    (the derivative of the Bellman equation; Sutton et al. 1999, proof of theorem 1). The policy gradient is the mean of
    dV_0 over start states.

    Raises:
        ValueError: the policy is not a policy over the states and actions of the process.
    """
    steps = exact_gradients(process, target)
    return np.stack([dq for dq, _ in steps][::-1])


def exact_gradients(process: MarkovProcess, target: SoftmaxPolicy) -> Iterator[tuple[Array, Array]]:
    """(dQ_t (S, A, P), dV_t (S, P)) for t = T-1 down to 0."""
    action_value = values(process, target).action_value
    state_gradient = np.zeros((process.states, target.parameter_count))
    for t in reversed(range(process.horizon)):
        action_gradient = backed_up(process, state_gradient)
        state_gradient = mean_over_actions(target, action_value[t], action_gradient)
        state_gradient[process.absorbing] = 0.0
        yield action_gradient, state_gradient


def backed_up(process: MarkovProcess, state_gradient: Array) -> Array:
    """dQ_t = discount sum over s' of P(s'|s,a) dV_{t+1}(s'), (S, A, P), from dV_{t+1} of shape (S, P)."""
    following = np.asarray(process.transition_matrix @ state_gradient)
    result = process.discount * following.reshape(process.states, process.actions, -1)
    result[process.absorbing] = 0.0
    return np.asarray(result)


def mean_over_actions(target: SoftmaxPolicy, action_value: Array, action_gradient: Array | None) -> Array:
    """Sum over a of pi(a|s) (z(s,a) Q(s,a) + dQ(s,a)), (S, P), from Q of shape (S, A) and dQ of shape (S, A, P)."""
    pi = target.probabilities
    # A constant in Q adds nothing, as sum over a of pi z = 0; without it nothing is lost to rounding.
    centred = action_value - np.einsum("sa,sa->s", pi, action_value)[:, None]
    result = np.einsum("sa,sap->sp", pi * centred, target.score)
    if action_gradient is not None:
        result += np.einsum("sa,sap->sp", pi, action_gradient)
    return result


def critic_gradients(process: MarkovProcess, target: SoftmaxPolicy, which: Any) -> Callable[[], Iterator[Array | None]]:
    """A function that gives the critic's gradient (S, A, P) for t = T-1 down to 0; None stands for zero."""
    if isinstance(which, str):
        checks.known_name("critic_gradient", which, ("exact", "zero"))
        if which == "zero":
            return lambda: iter([None] * process.horizon)
        return lambda: (dq for dq, _ in exact_gradients(process, target))
    table = checks.numbers("critic_gradient", which)
    shape = process.horizon, process.states, process.actions, target.parameter_count
    if table.shape != shape:
        raise ValueError(f"critic_gradient has shape {table.shape}; expected 'exact', 'zero' or (T, S, A, P) = {shape}")
    checks.finite("critic_gradient", table)
    return lambda: iter(table[::-1])
