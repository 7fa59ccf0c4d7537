"""Each method as steps of the affine backward recursion, for t = T-1 down to 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from theory.critic.gradients import mean_over_actions
from theory.critic.marginal import marginal_ratios
from theory.critic.steps import Setting, Step

Array = NDArray[np.float64]


def control_variates(x: Setting, *, of_value: str, of_score: str) -> Iterator[Step]:
    """Per-decision importance sampling and its control variates: `per_decision` to `doubly_robust`."""
    p, pi, s = x.process, x.target.probabilities, x.walk.state
    rho, z = x.ratio, x.score
    follow = rho * p.discount
    for t, dq in zip(reversed(range(p.horizon)), x.gradients(), strict=True):
        q, q_of_score = x.critic.control(of_value, t), x.critic.control(of_score, t)
        v, dv = np.einsum("sa,sa->s", pi, q), mean_over_actions(x.target, q_of_score, dq)
        value = v[s] + rho * (x.walk.reward - q[x.edge])
        gradient = dv[s] + (rho * (x.walk.reward - q_of_score[x.edge]))[:, None] * z
        if dq is not None:
            gradient -= rho[:, None] * dq[x.edge]
        yield Step(value, follow, gradient, follow[:, None] * z, follow)


def marginal(x: Setting) -> Iterator[Step]:
    """The efficient influence function of the Markov model, plus the gradient."""
    p, pi, q = x.process, x.target.probabilities, x.critic.action_value
    s, after = x.walk.state, x.walk.next_state
    nothing = np.zeros(s.size)
    no_gradient = np.zeros((s.size, x.target.parameter_count))
    dv = np.zeros((p.states, x.target.parameter_count))
    v = p.terminal_reward
    ratios = marginal_ratios(p, x.target, x.behaviour)
    for t, dq in zip(reversed(range(p.horizon)), x.gradients(), strict=True):
        w, dw = (table[x.edge] for table in ratios.at(t))
        error = x.walk.reward + p.discount * v[after] - q[t][x.edge]
        gradient = dw * error[:, None] + w[:, None] * p.discount * dv[after]
        if dq is not None:
            gradient -= w[:, None] * dq[x.edge]
        dv = mean_over_actions(x.target, q[t], dq)
        dv[p.absorbing] = 0.0
        v = np.where(p.absorbing, p.terminal_reward, np.einsum("sa,sa->s", pi, q[t]))
        if t == 0:
            gradient += dv[s]
        yield Step(nothing, nothing, gradient, no_gradient, np.full(s.size, p.discount))


def v_trace(x: Setting) -> Iterator[Step]:
    """The policy gradient of IMPALA."""
    p, z = x.process, x.score
    rho, trace = _truncated(x)
    for t in reversed(range(p.horizon)):
        v, v_after = x.critic.state_value[t][x.walk.state], x.next_value(t)
        value = v + rho * (x.walk.reward + p.discount * v_after - v) - p.discount * trace * v_after
        own = (rho * (x.walk.reward - v))[:, None] * z
        yield Step(value, p.discount * trace, own, (p.discount * rho)[:, None] * z, np.full(rho.size, p.discount))


def retrace(x: Setting, *, corrected: bool) -> Iterator[Step]:
    """Retrace as the action value of the token's own gradient, with the correction of ACER or without."""
    p, z, q, pi = x.process, x.score, x.critic.action_value, x.target.probabilities
    rho, trace = _truncated(x)
    with np.errstate(over="ignore"):
        beyond = np.maximum(0.0, 1.0 - x.cap * np.exp(-x.ratios.log_ratio)) if corrected else 0.0 * pi
    for t in reversed(range(p.horizon)):
        v = np.einsum("sa,sa->s", pi, q[t])
        advantage = q[t] - v[:, None]
        own = (rho * (x.walk.reward - v[x.walk.state]))[:, None] * z
        if corrected:
            own += np.einsum("sa,sap->sp", pi * beyond * advantage, x.target.score)[x.walk.state]
        value = v[x.walk.state] + trace * (x.walk.reward - q[t][x.edge])
        yield Step(value, p.discount * trace, own, (p.discount * rho)[:, None] * z, np.full(rho.size, p.discount))


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
