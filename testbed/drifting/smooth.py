"""Kinds of drift whose divergence changes continuously with their strength."""

from __future__ import annotations

import math

import numpy as np

import theory
from testbed.drifting.registry import Pair, kind
from theory import checks


@kind("mu = softmax(logits + strength * direction), a seeded direction of unit variance; option seed=0", limit=1e4)
def _noise(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float, *, seed: int = 0) -> Pair:
    seed = checks.whole_number("seed", seed, 0, "any size")
    direction = np.random.default_rng(seed).standard_normal(policy.logits.shape)
    return policy, theory.SoftmaxPolicy(policy.logits + strength * direction)


def _inverse_gradient(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy) -> float:
    """The learning rate that moves a parameter by one; zero where the gradient is nothing but rounding."""
    steepest = float(np.abs(theory.policy_gradient(process, policy)).max())
    rounding = 1e-14 * process.horizon * float(np.abs(theory.values(process, policy).action_value).max())
    return 1.0 / steepest if steepest > rounding else 0.0


@kind(
    "mu = the policy, pi = the policy after exact policy-gradient ascent with learning rate strength; option steps=8",
    limit=1e4,
    unit=_inverse_gradient,
)
def _staleness(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float, *, steps: int = 8) -> Pair:
    steps = checks.whole_number("steps", steps, 1, "gradient steps")
    target = policy
    for _ in range(steps):
        gradient = theory.policy_gradient(process, target)
        target = target.with_parameters(target.parameters + strength * gradient)
    return target, policy


@kind('mu = softmax(logits / temperature), strength = |log temperature|; option direction="hot" or "cold"', limit=50.0)
def _temperature(
    process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float, *, direction: str = "hot"
) -> Pair:
    checks.known_name("direction", direction, ("hot", "cold"))
    inverse = math.exp(-strength if direction == "hot" else strength)
    # Scaled from the largest logit, so that a very low temperature does not drown the differences in rounding.
    shifted = policy.logits - policy.logits.max(axis=1, keepdims=True)
    return policy, theory.SoftmaxPolicy(inverse * shifted)


@kind("mu = (1 - strength) pi + strength uniform over the actions that pi can take, strength in [0, 1]", limit=1.0)
def _mixture(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float) -> Pair:
    if strength > 1.0:
        raise ValueError(f"strength of mixture drift is {strength!r}; expected a number in [0, 1]")
    possible = np.isfinite(policy.logits)
    uniform = possible / possible.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        logits = np.log((1.0 - strength) * policy.probabilities + strength * uniform)
    return policy, theory.SoftmaxPolicy(logits)
