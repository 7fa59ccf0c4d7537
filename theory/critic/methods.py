"""Each method as steps of the affine backward recursion, for t = T-1 down to 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from theory.critic.marginal import marginal_ratios
from theory.critic.steps import Setting, Step
from theory.critic.tables import expected_value

Array = NDArray[np.float64]


def control_variates(x: Setting, *, of_value: str, of_score: str) -> Iterator[Step]:
    """Per-decision importance sampling and its control variates: `per_decision` to `doubly_robust`."""
    p, rho, z = x.process, x.ratio, x.score
    follow = rho * p.discount
    v, dv = p.terminal_reward, np.zeros((p.states, x.target.parameter_count))
    for t, dq in zip(reversed(range(p.horizon)), x.gradients(), strict=True):
        q, q_of_score = x.critic.control(of_value, t), x.critic.control(of_score, t)
        own = rho * x.error(v, q_of_score[x.edge])
        gradient = own[:, None] * z + rho[:, None] * x.gradient_error(dv, dq)
        value = rho * x.error(v, q[x.edge])
        v = x.with_ends(expected_value(x.target, q))
        # A control variate that is a function of the state alone has mean zero.
        dv = x.state_gradient(q_of_score, dq) if of_score == "action" else dv
        yield Step(value, follow, gradient, follow[:, None] * z, follow, dv)


def marginal(x: Setting) -> Iterator[Step]:
    """The efficient influence function of the Markov model, plus the gradient."""
    p, q = x.process, x.critic.action_value
    nothing = np.zeros(x.walk.state.size)
    v, dv = p.terminal_reward, np.zeros((p.states, x.target.parameter_count))
    no_gradient, discounts = np.zeros_like(x.score), np.full(x.walk.state.size, p.discount)
    ratios = marginal_ratios(p, x.target, x.behaviour)
    for t, dq in zip(reversed(range(p.horizon)), x.gradients(), strict=True):
        w, dw = ratios.at(t, *x.edge)
        gradient = dw * x.error(v, q[t][x.edge])[:, None] + w[:, None] * x.gradient_error(dv, dq)
        v, dv = x.with_ends(expected_value(x.target, q[t])), x.state_gradient(q[t], dq)
        yield Step(nothing, nothing, gradient, no_gradient, discounts, dv)


def v_trace(x: Setting) -> Iterator[Step]:
    """The policy gradient of IMPALA."""
    p, z, v = x.process, x.score, x.critic.state_value
    rho, trace = _truncated(x)
    for t in reversed(range(p.horizon)):
        value = rho * x.error(v[t + 1], v[t][x.walk.state])
        follow = p.discount * rho[:, None] * z
        yield Step(value, p.discount * trace, value[:, None] * z, follow, np.full(rho.size, p.discount))


def retrace(x: Setting, *, corrected: bool) -> Iterator[Step]:
    """Retrace as the action value of the token's own gradient, with the correction of ACER or without."""
    p, z, q, v_next = x.process, x.score, x.critic.action_value, x.process.terminal_reward
    rho, trace = _truncated(x)
    # pi max(0, 1 - cap / rho), written so that it has its limit where mu or pi is zero.
    beyond = np.zeros_like(x.target.probabilities)
    if corrected and x.cap < np.inf:
        beyond = np.maximum(0.0, x.target.probabilities - x.cap * x.behaviour.probabilities)
    for t in reversed(range(p.horizon)):
        v = expected_value(x.target, q[t])
        own = (rho * x.error(v_next, v[x.walk.state]))[:, None] * z
        if corrected:
            advantage = q[t] - v[:, None]
            own += np.einsum("sa,sap->sp", beyond * advantage, x.target.score)[x.walk.state]
        value = trace * x.error(v_next, q[t][x.edge])
        v_next = x.with_ends(v)
        follow = p.discount * rho[:, None] * z
        yield Step(value, p.discount * trace, own, follow, np.full(rho.size, p.discount))


def _truncated(x: Setting) -> tuple[Array, Array]:
    """min(cap, rho) and trace_decay min(trace_cap, rho) of each edge."""
    return np.minimum(x.cap, x.ratio), x.trace_decay * np.minimum(x.trace_cap, x.ratio)


METHODS: dict[str, Callable[[Setting], Iterator[Step]]] = {
    "per_decision": partial(control_variates, of_value="none", of_score="none"),
    "state_baseline": partial(control_variates, of_value="none", of_score="state"),
    "action_baseline": partial(control_variates, of_value="none", of_score="action"),
    "trajectory_baseline": partial(control_variates, of_value="action", of_score="action"),
    "doubly_robust": partial(control_variates, of_value="action", of_score="action"),
    "marginal": marginal,
    "v_trace": v_trace,
    "retrace": partial(retrace, corrected=False),
    "acer": partial(retrace, corrected=True),
}
