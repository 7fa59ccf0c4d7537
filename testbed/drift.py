"""Controlled drift: pairs of a target and a behaviour policy at a given exact divergence, whatever drove them apart.

A kind is one function `(process, policy, strength, **options) -> (target, behaviour)` under `@_kind`; strength zero
means no drift. `at` solves for the strength that gives a divergence, so that all kinds share one axis.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar

import theory
from theory import checks
from theory.divergence import kl_behaviour_target
from theory.value_functions import check_policy

Pair = tuple[theory.SoftmaxPolicy, theory.SoftmaxPolicy]
Curve = Callable[[float], float]

_RATIO = 1.5  # of neighbouring strengths when looking for the first that reaches a divergence


class UnreachableError(ValueError):
    """A kind of drift cannot give the divergence asked for in this process."""


@dataclass(frozen=True, eq=False)
class Drifted:
    """A target and a behaviour policy a known divergence apart."""

    kind: str
    strength: float
    """What the kind was applied with; its unit is on the kind's card."""
    kl: float
    """KL(mu || pi) achieved, in nats."""
    per: str
    """What `kl` is counted per: "token" (of mu, on average) or "sequence"."""
    target: theory.SoftmaxPolicy
    """pi, the policy that is differentiated."""
    behaviour: theory.SoftmaxPolicy
    """mu, the policy that generates the data."""


@dataclass(frozen=True, eq=False)
class _Kind:
    name: str
    card: str
    function: Callable[..., Pair]
    options: Mapping[str, Any]
    unit: Callable[[theory.MarkovProcess, theory.SoftmaxPolicy], float]
    """The strength at which drift is neither small nor large; zero where the kind cannot drift at all."""
    limit: float
    """The largest strength tried, in units."""


_KINDS: dict[str, _Kind] = {}


def _kind(
    card: str,
    *,
    limit: float,
    unit: Callable[[theory.MarkovProcess, theory.SoftmaxPolicy], float] = lambda process, policy: 1.0,
) -> Callable[[Callable[..., Pair]], Callable[..., Pair]]:
    """Decorator: enter a kind under its function's name; its keyword-only arguments are its options."""

    def enter(function: Callable[..., Pair]) -> Callable[..., Pair]:
        name = function.__name__.strip("_")
        parameters = inspect.signature(function).parameters.values()
        options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        _KINDS[name] = _Kind(name, card, function, options, unit, limit)
        return function

    return enter


def kinds() -> dict[str, str]:
    """Every kind of drift and its card: what it does, what its strength means, and its options, in one line."""
    return {name: kind.card for name, kind in sorted(_KINDS.items())}


def apply(
    kind: str,
    process: theory.MarkovProcess,
    policy: theory.SoftmaxPolicy,
    strength: float,
    *,
    states: Any = None,
    **options: Any,
) -> Pair:
    """Target and behaviour policy that a kind of drift makes of one policy at a given strength.

    Args:
        kind: a name of `kinds()`.
        process: the process the policy acts in.
        policy: what the drift starts from.
        strength: at least 0; zero returns `(policy, policy)`.
        states: (S,) bool, where the policies drift; elsewhere both stay what they were (those of one agent of several).
            Default: everywhere.
        **options: of the kind, see its card.

    Raises:
        ValueError: an unknown kind or option, an option or a strength without meaning, a policy of another shape, or
            `states` for a log-linear target that moves.
    """
    known = _checked(kind, process, policy, options)
    strength = checks.non_negative("strength", strength)
    pair = known.function(process, policy, strength, **options)
    if strength == 0.0:
        return policy, policy
    return pair if states is None else (_only_in(states, policy, pair[0]), _only_in(states, policy, pair[1]))


def at(
    kind: str,
    process: theory.MarkovProcess,
    policy: theory.SoftmaxPolicy,
    kl: float = 0.1,
    *,
    per: str = "token",
    states: Any = None,
    **options: Any,
) -> Drifted:
    """The drift of a kind at an exact divergence, at the smallest strength that gives it.

    Strengths are tried on a geometric grid of ratio 1.5; a peak between two grid points is refined; the first bracket
    is solved by Brent's method.

    Args:
        kind: a name of `kinds()`.
        process: the process the policy acts in.
        policy: what the drift starts from.
        kl: KL(mu || pi) in nats, at least 0.
        per: "token" is the average over the tokens of mu, which keeps its meaning across horizons; "sequence" is the
            divergence of the trajectory's law.
        states: (S,) bool, where the policies drift, as for `apply`; the divergence is that of the whole process.
        **options: of the kind, see its card.

    Raises:
        ValueError: what `apply` raises, a `kl` that is negative or not finite, or an unknown `per`.
        UnreachableError: the kind cannot give this divergence in this process; the message tells the maximum. It is a
            ValueError.

    >>> bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    >>> drifted = at("mixture", bandit, theory.SoftmaxPolicy(np.log([[0.9, 0.1]])), kl=0.1)
    >>> round(drifted.kl, 9), round(drifted.strength, 3)
    (0.1, 0.392)
    """
    known = _checked(kind, process, policy, options)
    checks.known_name("per", per, ("token", "sequence"))
    kl = checks.non_negative("kl", kl, "nats")
    if kl == 0.0:
        known.function(process, policy, 0.0, **options)  # so that options without meaning are refused here as well
        return Drifted(kind, 0.0, 0.0, per, policy, policy)
    if not process.initial[~process.absorbing].any():
        raise UnreachableError(
            f"kl = {kl:g} per {per} is out of reach: every episode of this process ends before a step"
        )

    @functools.cache
    def curve(strength: float) -> float:
        return kl_behaviour_target(process, *apply(kind, process, policy, strength, states=states, **options), per=per)

    unit = known.unit(process, policy)
    problem = f"kl = {kl:g} per {per} is out of reach of {kind} drift in this process"
    strength = _smallest_strength(curve, kl, unit, known.limit * unit, problem)
    target, behaviour = apply(kind, process, policy, strength, states=states, **options)
    return Drifted(kind, strength, curve(strength), per, target, behaviour)


def _only_in(states: Any, policy: theory.SoftmaxPolicy, moved: theory.SoftmaxPolicy) -> theory.SoftmaxPolicy:
    """The policy, and where `states` is true the one that it moved to."""
    if moved is policy:
        return policy
    chosen = np.asarray(states)
    if chosen.shape != (policy.states,) or chosen.dtype != np.bool_:
        raise ValueError(
            f"states has shape {chosen.shape} and type {chosen.dtype}; expected ({policy.states},) of bool"
        )
    # The parameters of a tabular policy are a view of its logits.
    if not np.shares_memory(moved.parameters, moved.logits):
        raise ValueError(
            "states is given for a log-linear policy that moves in all states at once; expected a tabular policy, or a "
            "kind of drift that moves mu alone"
        )
    return theory.SoftmaxPolicy(np.where(chosen[:, None], moved.logits, policy.logits))


def _checked(
    kind: str, process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, options: Mapping[str, Any]
) -> _Kind:
    known = _KINDS[checks.known_name("kind of drift", kind, _KINDS)]
    for option in options:
        checks.known_name("option", option, known.options, of=f"drift {kind!r}")
    check_policy(process, policy, "the")
    return known


def _smallest_strength(curve: Curve, kl: float, unit: float, limit: float, problem: str) -> float:
    """The smallest strength up to `limit` at which the curve, zero at zero, reaches `kl`."""
    largest = (0.0, 0.0)
    for low, strength, reached in _scan(curve, kl, unit, limit):
        if reached >= kl:
            return _solve(curve, kl, low, strength, problem)
        if reached > largest[1] * (1.0 + 1e-9):  # on a plateau, the first strength is named, not a rounding later on
            largest = strength, reached
    raise UnreachableError(f"{problem}; the maximum is {largest[1]:.6g} at strength {largest[0]:.6g}")


def _scan(curve: Curve, kl: float, unit: float, limit: float) -> Iterator[tuple[float, float, float]]:
    """Upwards on a geometric grid, and at the peaks between its points: (a lower strength, strength, divergence)."""
    if limit == 0.0:
        return
    low, middle = (0.0, 0.0), (0.0, 0.0)
    strength = _first_strength(curve, kl, unit, limit)
    while True:
        high = (strength, curve(strength))
        if low[1] <= middle[1] and high[1] < middle[1] * (1.0 - 1e-12):
            yield low[0], *_peak(curve, low[0], high[0])
        yield middle[0], *high
        if strength >= limit:
            break
        low, middle, strength = middle, high, min(strength * _RATIO, limit)
    if high[1] > middle[1]:
        yield middle[0], *_peak(curve, middle[0], limit)


def _first_strength(curve: Curve, kl: float, unit: float, limit: float) -> float:
    """A strength well below the solution: divergences grow with the square of a small strength."""
    probe = min(1e-2 * unit, limit)
    reached = curve(probe)
    strength = min(probe, 0.5 * probe * math.sqrt(kl / reached)) if reached > 0.0 else probe
    while curve(strength) >= kl and strength > 1e-300:
        strength *= 0.25
    return strength


def _peak(curve: Curve, low: float, high: float) -> tuple[float, float]:
    found = minimize_scalar(lambda x: -curve(x), bounds=(low, high), method="bounded", options={"xatol": 1e-9 * high})
    return float(found.x), float(-found.fun)


def _solve(curve: Curve, kl: float, low: float, high: float, problem: str) -> float:
    """The strength between `low` (below `kl`) and `high` (at or above it); an error where the curve jumps."""
    # The second term is the rounding of logits: they move by some sqrt(kl), and carry an error of some 1e-15.
    tolerance = 1e-10 * kl + 1e-14 * math.sqrt(kl)

    def residual(strength: float) -> float:
        excess = curve(strength) - kl
        return 0.0 if abs(excess) <= 0.1 * tolerance else excess  # zero ends the iteration

    while math.isinf(curve(high)) and low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if curve(middle) < kl else (low, middle)
    if math.isfinite(curve(high)):
        strength = float(brentq(residual, low, high, xtol=1e-300, rtol=1e-14, maxiter=500))
        if abs(curve(strength) - kl) <= tolerance:
            return strength
        low, high = strength * (1.0 - 1e-9), strength * (1.0 + 1e-9)
    raise UnreachableError(f"{problem}; at strength {high:.6g} it jumps from {curve(low):.6g} to {curve(high):.6g}")


@_kind("mu = softmax(logits + strength * direction), a seeded direction of unit variance; option seed=0", limit=1e4)
def _noise(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float, *, seed: int = 0) -> Pair:
    seed = checks.whole_number("seed", seed, 0, "any size")
    direction = np.random.default_rng(seed).standard_normal(policy.logits.shape)
    return policy, theory.SoftmaxPolicy(policy.logits + strength * direction)


def _inverse_gradient(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy) -> float:
    """The learning rate that moves a parameter by one; zero where the gradient is nothing but rounding."""
    steepest = float(np.abs(theory.policy_gradient(process, policy)).max())
    rounding = 1e-14 * process.horizon * float(np.abs(theory.values(process, policy).action_value).max())
    return 1.0 / steepest if steepest > rounding else 0.0


@_kind(
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


@_kind('mu = softmax(logits / temperature), strength = |log temperature|; option direction="hot" or "cold"', limit=50.0)
def _temperature(
    process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float, *, direction: str = "hot"
) -> Pair:
    checks.known_name("direction", direction, ("hot", "cold"))
    inverse = math.exp(-strength if direction == "hot" else strength)
    # Scaled from the largest logit, so that a very low temperature does not drown the differences in rounding.
    shifted = policy.logits - policy.logits.max(axis=1, keepdims=True)
    return policy, theory.SoftmaxPolicy(inverse * shifted)


@_kind("mu = (1 - strength) pi + strength uniform over the actions that pi can take, strength in [0, 1]", limit=1.0)
def _mixture(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float) -> Pair:
    if strength > 1.0:
        raise ValueError(f"strength of mixture drift is {strength!r}; expected a number in [0, 1]")
    possible = np.isfinite(policy.logits)
    uniform = possible / possible.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        logits = np.log((1.0 - strength) * policy.probabilities + strength * uniform)
    return policy, theory.SoftmaxPolicy(logits)
