"""Where a loss is audited: environment, three policies, signal, and the trajectories of one draw."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

import theory
from testbed import drift as drifts
from testbed import environments, spelling
from testbed.auditing.batch import Array, Batch
from testbed.auditing.loss import Loss
from testbed.drifting.registry import KINDS
from theory import checks
from theory.divergence import lost_mass
from theory.engines.problem import Problem, checked_ratios, rounded_returns
from theory.engines.question import Question, problem_to_sample
from theory.engines.trajectories import Block, Walk, returns, token_signals
from theory.estimator import Estimator
from theory.groups import GroupSignal
from theory.policy import SoftmaxPolicy

MOST_LOGITS = 200_000
"""States times actions of an environment: every draw is a vector of so many scores."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A problem whose true gradient is known, and how a loss sees it."""

    label: str
    """Environment, drift and signal, in words."""
    process: theory.MarkovProcess
    target: SoftmaxPolicy
    behaviour: SoftmaxPolicy
    """mu, the policy that generated the data."""
    old: SoftmaxPolicy
    """The geometric mean of target and behaviour where the loss takes both old_logp and rollout_logp, else mu."""
    signal: theory.Signal | GroupSignal
    per_draw: int
    """Trajectories in one call of the loss."""
    lost_mass: float = 0.0
    """Probability under the target of the trajectories that the behaviour policy cannot generate."""

    def estimator(self, weight: Any = "none", reduction: str = "sum", score: str = "own") -> Estimator:
        """A named estimator of the same signal and draw."""
        batch = 1 if isinstance(self.signal, GroupSignal) else self.per_draw
        return Estimator(weight, self.signal, score, theory.reduction(reduction, batch=batch))  # type: ignore[arg-type]

    @property
    def problem(self) -> Problem:
        """The engines' form of the process, its policies and the signal."""
        table = checked_ratios(self.process, self.target, self.behaviour, True, self.old)
        asked = Question(self.process, self.target, self.behaviour, table, self.estimator(), 0)
        return problem_to_sample(asked)

    def batch(self, walk: Walk, block: Block, problem: Problem) -> Batch:
        """Trajectories as the tensors of a loss, draw after draw."""
        if isinstance(self.signal, GroupSignal):
            outcomes = rounded_returns(self.process, returns(walk, block)).reshape(-1, self.per_draw)
            each = self.signal.advantages(outcomes).reshape(-1, 1)
            advantages = np.where(block.acting, each, 0.0)
        else:
            advantages = token_signals(walk, block, problem)[0]

        def of(policy: SoftmaxPolicy) -> Array:
            table = policy.log_probabilities[walk.state, walk.action]
            return np.where(block.acting, table[block.edge], 0.0)

        return Batch(of(self.target), of(self.old), of(self.behaviour), advantages, block.acting.astype(float))


def setting(
    loss: Loss, environment: Any, drift: str, kl: float, seed: int, signal: Any, batch: int | None, coupled: bool
) -> Setting:
    """Build it from names.

    Raises:
        ValueError: an unknown name or option, a divergence out of reach, or a batch that is not the group.
    """
    if isinstance(environment, str):
        name, options = spelling.call(environment, "token_tree(depth=4)")
        environment = environments.environment(name, **options)
    if not isinstance(environment, environments.Environment):
        raise ValueError(f"environment is {environment!r}; expected a name such as 'token_tree(depth=4)'")
    size = environment.process.states * environment.process.actions
    if size > MOST_LOGITS:
        raise ValueError(
            f"environment {environment.label!r} has {size} logits; an audit takes at most {MOST_LOGITS}: expected "
            "fewer states or actions"
        )
    made = spelling.signal(signal)
    batch = 0 if batch is None else checks.whole_number("batch", batch, 1, "trajectories")
    group = made.size if isinstance(made, GroupSignal) else 0
    if batch and group and batch != group:
        raise ValueError(f"batch is {batch} and the signal a group of {group}; expected batch={group}, or none")
    target, behaviour, drifted = _policies(environment, drift, kl, seed)
    middle = 0.5 * (target.log_probabilities + behaviour.log_probabilities)
    old = SoftmaxPolicy(middle) if len(loss.anchors) == 2 else behaviour
    lost = lost_mass(environment.process, target, behaviour)
    missing = f", of which mu misses {lost:.4g} of the target's trajectories" if lost > 0.0 else ""
    label = f"{environment.label}, {drifted}{missing}, signal {made.label}"
    per_draw = batch or group or (2 if coupled else 1)
    return Setting(label, environment.process, target, behaviour, old, made, per_draw, lost)


def _policies(
    environment: environments.Environment, drift: str, kl: float, seed: int
) -> tuple[SoftmaxPolicy, SoftmaxPolicy, str]:
    """Target, behaviour, and the drift between them in words."""
    kind, options = spelling.call(drift, "top_p(p=0.9)")
    if kind == "given":
        if environment.behaviour is None:
            raise ValueError(f"environment {environment.label!r} brings no behaviour policy; expected another drift")
        return environment.target, environment.behaviour, "its own behaviour policy"
    if kind == "noise":
        options = {"seed": seed, **options}
    # A strength, or a setting that says the same, is what it is; otherwise the divergence asks for one.
    given = kind in KINDS and {"strength", *KINDS[kind].settings} & set(options)
    made = drifts.measured if given else functools.partial(drifts.at, kl=kl)
    drifted = made(kind, environment.process, environment.target, **options)
    return drifted.target, drifted.behaviour, f"{drift} drift of {drifted.kl:.6g} nats per token"
