"""Several agents that take turns: the gradient of each, and corrections that look at all tokens or at its own alone.

The agents are given by `acting`, (S,): which of them moves in each state, counted from 0. What an agent contributes to
a gradient or to an estimator is the sum over its own tokens, a vector in the parameters of the joint policy, (P,); the
contributions sum to the whole. With a tabular policy the logits of the states in which an agent moves are its
parameters, and its vector is zero elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import theory
from testbed import drift
from theory import checks
from theory.engines import enumeration
from theory.engines.problem import Problem, checked_ratios
from theory.engines.trajectories import Block, Walk, coefficients, token_signals
from theory.signals import is_group, resolve

Array = NDArray[np.float64]
Agents = NDArray[np.int64]

RATIOS = {
    "joint": "the weight sees the ratios of all tokens, whoever wrote them",
    "own": "the weight of an agent's token sees the ratios of that agent's tokens alone",
}
_BLOCK_NUMBERS = 2_000_000


@dataclass(frozen=True, eq=False)
class AgentMoments:
    """Exact moments of what each agent's tokens contribute to an estimator, and of their sum."""

    agents: tuple[theory.Moments, ...]
    """One per agent: `gradient` is its own contribution to g, `bias`, `cosine` and `variance` are its own too."""
    joint: theory.Moments
    """The sum over agents; with ratios "joint" it is `theory.moments` of the estimator."""
    ratios: str
    """"joint" or "own"."""


def agent_moments(
    process: theory.MarkovProcess,
    target: theory.SoftmaxPolicy,
    behaviour: theory.SoftmaxPolicy,
    estimator: theory.Estimator,
    acting: Any,
    *,
    ratios: str = "joint",
    most_trajectories: int = enumeration.MOST_TRAJECTORIES,
) -> AgentMoments:
    """Mean, bias and variance of an estimator, agent by agent, over every trajectory of mu.

    The same weight computes both kinds of ratios: its mask holds all tokens ("joint"), or the tokens of the agent whose
    token is weighted ("own"), so that P_t, m_t, W and the length L are those of this agent's tokens. Signals are those
    of the joint process.

    With `prefix` and `target_advantage`, "joint" is unbiased for every agent. "own" takes the expectation under the
    agent's own target policy and the *behaviour* policies of the others: exact for an agent if the others have not
    drifted, however far it has drifted itself. With `sequence` and `outcome`, "own" is the gradient of the return that
    the agent's target policy gets together with the others' behaviour policies.

    Args:
        process: the environment.
        target: pi, the joint policy that is differentiated.
        behaviour: mu, the joint policy that generates the trajectories.
        estimator: any weight and plain signal; own score, reduction "sum".
        acting: (S,) which agent moves in each state.
        ratios: "joint" or "own".
        most_trajectories: larger trees are refused.

    Raises:
        ValueError: what `theory.moments` raises, a table that names no agent, or an estimator with a group signal, an
            optimal baseline, the cumulative score, or a reduction.
    """
    checks.known_name("ratios", ratios, RATIOS)
    mover = _checked_agents(acting, process)
    signal = estimator.signal
    of_trajectories = not is_group(signal) and signal.baseline != "optimal"
    if not (of_trajectories and estimator.score == "own" and estimator.reduction.name == "sum"):
        raise ValueError(
            f"{estimator.label} cannot be taken apart by agents; expected a signal of single trajectories with a "
            "baseline other than 'optimal', score 'own' and reduction 'sum'"
        )
    table = checked_ratios(process, target, behaviour, allow_missing_support=False)
    size = enumeration.count_trajectories(process, behaviour)
    if size > most_trajectories:
        raise ValueError(f"there are {size:.6g} trajectories; expected at most {most_trajectories}, a smaller tree")
    resolved = resolve(signal, process, target, behaviour)
    problem = Problem(process, target, behaviour, table, estimator.weight, (resolved,))
    count = int(mover.max()) + 1
    mean, second = np.zeros((count, target.parameter_count)), np.zeros((count, count))
    rows = max(64, _BLOCK_NUMBERS // (process.states * process.actions * count))
    for walk, block in enumeration.enumerate_blocks(process, behaviour, rows):
        weights = _score_weights(walk, block, problem, mover, count, ratios)
        for i in range(count):
            mean[i] += target.combine_scores(np.einsum("n,nsa->sa", block.probability, weights[i]))
            for j in range(i + 1):
                inner = float(block.probability @ target.squared_norm_of_combination(weights[i], weights[j]))
                second[i, j] += inner
                second[j, i] += inner * (i != j)
    gradients = agent_gradients(process, target, mover)
    return AgentMoments(
        tuple(_moments(mean[i], second[i, i], gradients[i]) for i in range(count)),
        _moments(mean.sum(axis=0), second.sum(), theory.policy_gradient(process, target)),
        ratios,
    )


def agent_gradients(process: theory.MarkovProcess, target: theory.SoftmaxPolicy, acting: Any) -> Array:
    """The contribution of each agent's tokens to the true gradient, (agents, P); the rows sum to it.

    g_i = sum over t and the states s in which i moves, and a, of discount^t P_pi(s_t = s) pi(a|s) A_t(s, a) z(s, a).

    Raises:
        ValueError: a table that names no agent, or a policy of another shape.
    """
    mover, v = _checked_agents(acting, process), theory.values(process, target)
    discount = process.discount ** np.arange(process.horizon, dtype=float)
    alive = np.where(process.absorbing, 0.0, discount[:, None] * v.occupancy[:-1])
    weights = np.einsum("ts,sa,tsa->sa", alive, target.probabilities, v.advantage)
    who = np.arange(int(mover.max()) + 1)[:, None] == mover
    return target.combine_scores(np.where(who[:, :, None], weights, 0.0))


def joint_policy(policies: Sequence[theory.SoftmaxPolicy], acting: Any) -> theory.SoftmaxPolicy:
    """The tabular policy in which agent i acts as in `policies[i]`.

    Raises:
        ValueError: policies of different shapes, or a table that names an agent without a policy.
    """
    shapes, mover = sorted({policy.logits.shape for policy in policies}), np.asarray(acting)
    if len(shapes) != 1 or mover.shape != shapes[0][:1]:
        raise ValueError(f"policies have shapes {shapes} and acting {mover.shape}; expected one (S, A), and (S,)")
    if not 0 <= mover.min() <= mover.max() < len(policies):
        raise ValueError(f"acting names agent {mover.max()}; expected one of {len(policies)} policies, counted from 0")
    return theory.SoftmaxPolicy(np.stack([p.logits for p in policies])[mover, np.arange(mover.size)])


def drift_agents(
    kind: str,
    process: theory.MarkovProcess,
    policy: theory.SoftmaxPolicy,
    acting: Any,
    kl: Sequence[float],
    **options: Any,
) -> drift.Pair:
    """Target and behaviour policy of agents that drift separately: agent i by `kl[i]`, not at all where that is zero.

    Args:
        kind: a name of `drift.kinds()`.
        process: the process the agents act in.
        policy: the joint policy that the drift starts from.
        acting: (S,) which agent moves in each state.
        kl: per agent, KL(mu || pi) in nats per token (of all tokens, as in `drift.at`) while the others do not drift.
        **options: of the kind, or `per="sequence"`.

    Raises:
        ValueError: what `drift.at` raises, or another number of divergences than of agents.
    """
    mover = _checked_agents(acting, process)
    count = int(mover.max()) + 1
    if len(kl) != count:
        raise ValueError(f"kl is {tuple(kl)!r}; expected one number for each of {count} agents")
    moved = [drift.at(kind, process, policy, kl[i], states=mover == i, **options) for i in range(count)]
    if all(pair.target is policy for pair in moved):
        target = policy
    else:
        target = joint_policy([pair.target for pair in moved], mover)
    return target, joint_policy([pair.behaviour for pair in moved], mover)


def _checked_agents(acting: Any, process: theory.MarkovProcess) -> Agents:
    table = np.asarray(acting)
    if table.shape != (process.states,) or table.dtype.kind not in "iu" or table.min() < 0:
        raise ValueError(
            f"acting has shape {table.shape} and type {table.dtype}; expected ({process.states},) of whole numbers, "
            "agents counted from 0"
        )
    return table.astype(np.int64)


def _score_weights(walk: Walk, block: Block, problem: Problem, mover: Agents, count: int, ratios: str) -> Array:
    """How often each score enters each agent's part of the estimator, (agents, N, S, A)."""
    p, N = problem.process, block.edge.shape[0]
    cells = p.states * p.actions
    psi = token_signals(walk, block, problem)[0]
    where = (np.arange(N)[:, None] * cells + (walk.state * p.actions + walk.action)[block.edge]).reshape(-1)
    who = mover[walk.state[block.edge]]
    result = np.empty((count, N, p.states, p.actions))
    for i in range(count):
        own = block.acting & (who == i)
        seen = own if ratios == "own" else block.acting
        c = coefficients(walk, block._replace(acting=seen), problem, psi)
        product = np.where(own & (psi != 0.0), c * psi, 0.0)
        result[i] = np.bincount(where, product.reshape(-1), N * cells).reshape(N, p.states, p.actions)
    return result


def _moments(mean: Array, second: float, gradient: Array) -> theory.Moments:
    variance = max(float(second - mean @ mean), 0.0)
    return theory.Moments(mean, variance, gradient, "enumeration")
