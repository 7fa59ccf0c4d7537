"""The settings in which claims are measured: reference pairs of policies, and longer sums."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import testbed
import theory
from testbed import drift

SIGNALS = ("target_advantage", "behaviour_advantage", "outcome")
# Below this a relative bias is rounding.
ZERO = 1e-9


class Case(NamedTuple):
    """A process and the two policies, in the order in which `theory` takes them."""

    process: theory.MarkovProcess
    target: theory.SoftmaxPolicy
    behaviour: theory.SoftmaxPolicy


@cache
def reference(kl: float = 0.1, depth: int = 4) -> Case:
    """A full token tree of three tokens, outcome reward; mu is pi with noise in its logits, `kl` nats per token off."""
    tree = testbed.environment("token_tree", depth=depth, vocabulary=3)
    pair = drift.at("noise", tree.process, tree.target, kl=kl)
    return Case(tree.process, pair.target, pair.behaviour)


@cache
def sums(horizon: int, kl: float = 0.01) -> Case:
    """A sum modulo 5 of `horizon` digits, with noise; polynomial in the horizon, so it reaches long sequences."""
    environment = testbed.environment("modular_sum", horizon=horizon)
    pair = drift.at("noise", environment.process, environment.target, kl=kl)
    return Case(environment.process, pair.target, pair.behaviour)


def stopped(case: Case, tokens: int) -> Case:
    """The same policies in a process that stops after so many tokens."""
    process = case.process
    shorter = theory.MarkovProcess(
        process.initial, process.transition, process.reward, tokens, absorbing=process.absorbing
    )
    return Case(shorter, case.target, case.behaviour)


def moments(case: Case, weight: str | theory.Weight, signal: object, **options: object) -> theory.Moments:
    """Exact moments of weight x signal in a case."""
    return theory.moments(*case, theory.Estimator(weight, signal, **options))  # type: ignore[arg-type]
