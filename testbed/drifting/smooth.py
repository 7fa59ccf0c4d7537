"""Kinds of drift whose divergence changes continuously with their strength."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

import theory
from testbed.drifting.registry import Pair, kind
from theory import checks

_LARGEST = float(np.finfo(np.float64).max) / 4.0


@kind("mu = softmax(logits + strength * direction), a seeded direction of unit variance; option seed=0", limit=1e4)
def _noise(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float, *, seed: int = 0) -> Pair:
    seed = checks.whole_number("seed", seed, 0, "any size")
    direction = np.random.default_rng(seed).standard_normal(policy.logits.shape)
    with np.errstate(over="ignore"):
        moved = policy.logits + strength * direction
    _check_finite("noise", strength, moved, policy.logits)
    return policy, theory.SoftmaxPolicy(moved)


def _check_finite(kind: str, strength: float, moved: NDArray[np.float64], before: NDArray[np.float64]) -> None:
    """Raise where a strength takes what was finite out of the range of float64."""
    # Twice the largest difference of two such logits is a number of float64 still.
    if not (np.abs(moved[np.isfinite(before)]) < _LARGEST).all():
        raise ValueError(
            f"strength of {kind} drift is {strength:g}; expected one that keeps logits below {_LARGEST:.2g} in size"
        )


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
        with np.errstate(over="ignore", invalid="ignore"):
            moved = target.parameters + strength * gradient
        _check_finite("staleness", strength, moved, target.parameters)
        target = target.with_parameters(moved)
    return target, policy


@kind('mu = softmax(logits / temperature), strength = |log temperature|; option direction="hot" or "cold"', limit=50.0)
def _temperature(
    process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float, *, direction: str = "hot"
) -> Pair:
    checks.known_name("direction", direction, ("hot", "cold"))
    # Scaled from the largest logit, so that a very low temperature does not drown the differences in rounding.
    shifted = policy.logits - policy.logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        inverse = _exp(-strength if direction == "hot" else strength)
        # At no temperature does an action come back that the policy never takes.
        moved = np.where(np.isfinite(shifted), inverse * shifted, shifted)
    _check_finite("temperature", strength, moved, shifted)
    return policy, theory.SoftmaxPolicy(moved)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


@kind("mu = (1 - strength) pi + strength uniform over the actions that pi can take, strength in [0, 1]", limit=1.0)
def _mixture(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float) -> Pair:
    if strength > 1.0:
        raise ValueError(f"strength of mixture drift is {strength!r}; expected a number in [0, 1]")
    possible = np.isfinite(policy.logits)
    uniform = possible / possible.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        logits = np.log((1.0 - strength) * policy.probabilities + strength * uniform)
    return policy, theory.SoftmaxPolicy(logits)
