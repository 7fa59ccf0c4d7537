"""Rollouts in which the generating policy was replaced on the way: versions mixed within a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import theory
from theory import checks

Array = NDArray[np.float64]

_MOST_NUMBERS = 20_000_000


@dataclass(frozen=True, eq=False)
class MixedVersions:
    """A process whose states know the step, with policies over them: state (t, s) has number t * S + s.

    `theory.moments(m.process, m.target, m.behaviour, estimator, old=m.old, lag=m.lag)` and all other functions take
    them as they are. The parameters are those of the policy that was given, shared by all steps.
    """

    process: theory.MarkovProcess
    target: theory.SoftmaxPolicy
    behaviour: theory.SoftmaxPolicy
    """At each step the version that generated it."""
    old: theory.SoftmaxPolicy | None
    """The policy of the start of the update, where one was given."""
    lag: Array
    """((T + 1) S,), number of updates between the version that draws a token in each state and the target."""


def mixed_versions(
    process: theory.MarkovProcess,
    target: theory.SoftmaxPolicy,
    versions: Sequence[theory.SoftmaxPolicy],
    switches: Sequence[int],
    *,
    lags: Sequence[float] | None = None,
    old: theory.SoftmaxPolicy | None = None,
) -> MixedVersions:
    """Rollouts of asynchronous training: the weights of the generating engine are replaced while a sequence runs.

    Step t is drawn by versions[k] with k the number of switches at or before t. As the states of a process do not know
    the step, it is unrolled: the new one has (T + 1) S states, and the same trajectories, returns and gradient.

    Args:
        process: the process, of S states and horizon T.
        target: pi, the policy that is differentiated.
        versions: the generating policies, in the order in which they take over.
        switches: for each version but the first, the step from which on it generates; ascending, within 1..T-1.
        lags: number of updates between each version and the target; default len(versions), ..., 1.
        old: the policy of the start of the update, for weights that tell three policies apart.

    Raises:
        ValueError: shapes disagree, switches that do not ascend within the horizon, a tabular target that never takes
            some action, or an unrolled process or policy of over 2e7 numbers.

    >>> env = testbed.environment("parity")
    >>> older = [theory.SoftmaxPolicy(env.target.logits * c) for c in (0.5, 0.8)]
    >>> m = testbed.mixed_versions(env.process, env.target, older, switches=[3])
    >>> estimator = theory.Estimator("prefix", "target_advantage")
    >>> theory.moments(m.process, m.target, m.behaviour, estimator).relative_bias < 1e-12
    True
    """
    S, A, T = process.states, process.actions, process.horizon
    if isinstance(versions, theory.SoftmaxPolicy):
        raise ValueError("versions is one policy; expected a list of policies, in the order in which they take over")
    versions = list(versions)
    named: list[tuple[str, Any]] = [("target", target), *((f"versions[{k}]", p) for k, p in enumerate(versions))]
    _check_policies(process, [*named, *([] if old is None else [("old", old)])])
    steps = _checked_switches(process, len(versions), switches)
    ages = np.arange(len(versions), 0.0, -1.0) if lags is None else checks.numbers("lags", lags)
    if ages.shape != (len(versions),) or not ((ages >= 0.0) & np.isfinite(ages)).all():
        raise ValueError(f"lags is {lags!r}; expected {len(versions)} numbers of at least 0, one per version")
    if target.features is None and np.isinf(target.logits).any():
        raise ValueError(
            "target never takes some actions (a logit is -inf), which parameters shared by the steps cannot say; "
            "expected finite logits"
        )
    needed = (T + 1) * S * A * max(target.parameter_count, (T + 1) * S if process.reward.ndim == 3 else 1)
    if needed > _MOST_NUMBERS:
        raise ValueError(
            f"the unrolled process and policy would hold {needed:.3g} numbers; expected fewer states, steps or "
            "parameters, or rewards (S, A) (at most 2e7)"
        )
    which = np.searchsorted(np.asarray(steps, dtype=int), np.arange(T + 1), side="right")
    behaviour = np.concatenate([versions[k].logits for k in which])
    return MixedVersions(
        _unrolled(process),
        theory.SoftmaxPolicy.from_features(np.tile(_features(target), (T + 1, 1, 1)), target.parameters),
        theory.SoftmaxPolicy(behaviour),
        None if old is None else theory.SoftmaxPolicy(np.tile(old.logits, (T + 1, 1))),
        np.repeat(ages[which], S),
    )


def _checked_switches(process: theory.MarkovProcess, versions: int, switches: Any) -> list[int]:
    message = (
        f"switches is {switches!r}; expected {max(versions - 1, 0)} ascending steps within 1..{process.horizon - 1}, "
        "one less than there are versions"
    )
    if not isinstance(switches, Iterable):
        raise ValueError(message)
    try:
        steps = [checks.whole_number("switches", step, 1, "steps") for step in switches]
    except ValueError as why:
        raise ValueError(message) from why
    if len(steps) != versions - 1 or not all(a < b for a, b in pairwise([*steps, process.horizon])):
        raise ValueError(message)
    return steps


def _check_policies(process: theory.MarkovProcess, named: list[tuple[str, Any]]) -> None:
    shape = (process.states, process.actions)
    for name, policy in named:
        if not isinstance(policy, theory.SoftmaxPolicy):
            raise ValueError(f"{name} is of type {type(policy).__name__}; expected a theory.SoftmaxPolicy")
        if policy.logits.shape != shape:
            raise ValueError(f"{name} has logits of shape {policy.logits.shape}; expected {shape}")


def _features(policy: theory.SoftmaxPolicy) -> Array:
    """Features (S, A, P) whose product with the parameters is the policy's logits."""
    if policy.features is not None:
        return np.asarray(policy.features)
    return np.eye(policy.states * policy.actions).reshape(policy.states, policy.actions, -1)


def _unrolled(process: theory.MarkovProcess) -> theory.MarkovProcess:
    """The process over states (t, s), t = 0..T. Nothing acts at t = T: the episode has ended."""
    S, A, T = process.states, process.actions, process.horizon
    edges = process.edges
    step = np.repeat(np.arange(T + 1), edges.state.size)
    state, action = np.tile(edges.state, T + 1), np.tile(edges.action, T + 1)
    after = np.tile(edges.next_state, T + 1)
    row, column = (step * S + state) * A + action, np.minimum(step + 1, T) * S + after
    N = (T + 1) * S
    transition = sparse.csr_matrix((np.tile(edges.probability, T + 1), (row, column)), shape=(N * A, N))
    # Rows that the walk never uses (absorbing states) must still be distributions.
    empty = np.flatnonzero(np.asarray(transition.sum(axis=1)).reshape(-1) < 0.5)
    stay = sparse.csr_matrix((np.ones(empty.size), (empty, empty // A)), shape=transition.shape)
    reward = process.reward
    if reward.ndim == 3:
        wide = np.zeros((T + 1, S, A, T + 1, S))
        for t in range(T + 1):
            wide[t, :, :, min(t + 1, T)] = reward
        reward = wide.reshape(N, A, N)
    else:
        reward = np.tile(reward, (T + 1, 1))
    initial = np.zeros(N)
    initial[:S] = process.initial
    return theory.MarkovProcess(
        initial, transition + stay, reward, T, np.tile(process.terminal_reward, T + 1),
        np.tile(process.absorbing, T + 1), process.discount,
    )  # fmt: skip
