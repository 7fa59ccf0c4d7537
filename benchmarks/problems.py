"""The problems that are timed: an environment, a target and a drifted behaviour policy."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import theory
from testbed import drift
from testbed.environments import environment

KL = 0.01


class Problem(NamedTuple):
    """What the engines and their twins are given."""

    label: str
    process: theory.MarkovProcess
    target: theory.SoftmaxPolicy
    behaviour: theory.SoftmaxPolicy


@cache
def problem(name: str, **options: int) -> Problem:
    """An environment with noise drift of `KL` nats per token."""
    made = environment(name, **options)
    pair = drift.at("noise", made.process, made.target, kl=KL)
    return Problem(made.label, made.process, pair.target, pair.behaviour)


def long_horizon(horizon: int) -> Problem:
    """S = 10, A = 5, so that MinPRO's running minimum takes K = 51 values."""
    return problem("garnet", states=10, actions=5, horizon=horizon)


def million_trajectories(length: int = 10) -> Problem:
    """4^10 = 1,048,576 trajectories of 10 tokens."""
    return problem("modular_sum", tokens=4, horizon=length)
