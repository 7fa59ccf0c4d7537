"""Controlled drift: pairs of a target and a behaviour policy at a given exact divergence, whatever drove them apart.

Strength zero means no drift. `at` solves for the strength that gives a divergence, so that all kinds share one axis;
`apply` and `measured` take a strength, or a sampler's own setting.

A kind of one's own is one function `(process, policy, strength, **options) -> (target, behaviour)` under
`testbed.drifting.registry.kind`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import theory
from testbed.drifting import samplers, smooth  # noqa: F401 - importing a file enters its kinds
from testbed.drifting.registry import KINDS, Kind, Pair
from testbed.drifting.solving import UnreachableError, smallest_strength, step_strength
from theory import checks
from theory.divergence import kl_behaviour_target, lost_mass
from theory.value_functions import check_policy

__all__ = ["Drifted", "UnreachableError", "apply", "at", "kinds", "measured"]


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
    lost_mass: float = 0.0
    """Probability under pi of the trajectories that mu cannot generate: zero unless the drift loses support."""


def kinds() -> dict[str, str]:
    """Every kind of drift and its card: what it does, what its strength means, and its options, in one line.

    >>> sorted(testbed.drift.kinds())
    ['mixture', 'noise', 'rounding', 'staleness', 'temperature', 'top_k', 'top_p']
    """
    return {name: kind.card for name, kind in sorted(KINDS.items())}


def apply(
    kind: str,
    process: theory.MarkovProcess,
    policy: theory.SoftmaxPolicy,
    strength: float | None = None,
    *,
    states: Any = None,
    **options: Any,
) -> Pair:
    """Target and behaviour policy that a kind of drift makes of one policy at a given strength.

    Args:
        kind: a name of `kinds()`.
        process: the process the policy acts in.
        policy: what the drift starts from.
        strength: at least 0; zero returns `(policy, policy)`. It may be left out where the kind has a setting of its
            own that says the same: p of top_p, k of top_k, bits or format of rounding.
        states: (S,) bool, where the policies drift; elsewhere both stay what they were (those of one agent of several).
            Default: everywhere.
        **options: of the kind, see its card.

    >>> bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0], [1.0]]], [[0.0, 1.0, 2.0]], horizon=1)
    >>> _, nucleus = testbed.drift.apply("top_p", bandit, theory.SoftmaxPolicy(np.log([[0.6, 0.3, 0.1]])), p=0.9)
    >>> nucleus.probabilities.round(6)
    array([[0.666667, 0.333333, 0.      ]])

    Raises:
        ValueError: an unknown kind or option, an option or a strength without meaning, no strength or two of them, a
            policy of another shape, or `states` for a log-linear target that moves.
    """
    known, options, strength = _checked(kind, process, policy, options, strength)
    pair = known.function(process, policy, strength, **options)
    if strength == 0.0:
        return policy, policy
    return pair if states is None else (_only_in(states, policy, pair[0]), _only_in(states, policy, pair[1]))


def measured(
    kind: str,
    process: theory.MarkovProcess,
    policy: theory.SoftmaxPolicy,
    strength: float | None = None,
    *,
    per: str = "token",
    states: Any = None,
    **options: Any,
) -> Drifted:
    """The pair of `apply`, with its exact divergence and lost mass.

    >>> bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    >>> cut = testbed.drift.measured("top_p", bandit, theory.SoftmaxPolicy(np.log([[0.9, 0.1]])), p=0.5)
    >>> round(cut.kl, 6), round(cut.lost_mass, 6)
    (0.105361, 0.1)

    Raises:
        ValueError: what `apply` raises, or an unknown `per`.
    """
    checks.known_name("per", per, ("token", "sequence"))
    _, rest, strength = _checked(kind, process, policy, options, strength)
    target, behaviour = apply(kind, process, policy, strength, states=states, **rest)
    kl = kl_behaviour_target(process, target, behaviour, per=per)
    return Drifted(kind, strength, kl, per, target, behaviour, lost_mass(process, target, behaviour))


def at(
    kind: str,
    process: theory.MarkovProcess,
    policy: theory.SoftmaxPolicy,
    kl: float = 0.1,
    *,
    per: str = "token",
    nearest: bool = False,
    states: Any = None,
    **options: Any,
) -> Drifted:
    """The drift of a kind at an exact divergence, at the smallest strength that gives it.

    Strengths are tried on a geometric grid of ratio 1.5; a peak between two grid points is refined; the first bracket
    is solved by Brent's method. Samplers (top_p, top_k, rounding) go in steps: every step is tried, and a divergence
    between two of them is out of reach.

    Args:
        kind: a name of `kinds()`.
        process: the process the policy acts in.
        policy: what the drift starts from.
        kl: KL(mu || pi) in nats, at least 0.
        per: "token" is the average over the tokens of mu, which keeps its meaning across horizons; "sequence" is the
            divergence of the trajectory's law.
        nearest: take the nearest divergence that can be reached where `kl` itself cannot; `Drifted.kl` is then that.
        states: (S,) bool, where the policies drift, as for `apply`; the divergence is that of the whole process.
        **options: of the kind, see its card.

    Raises:
        ValueError: what `apply` raises, a setting that says the strength already, a `kl` that is negative or not
            finite, or an unknown `per`.
        UnreachableError: the kind cannot give this divergence in this process; the message tells the maximum, or the
            nearest divergences below and above with their strengths. It is a ValueError.

    >>> bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    >>> drifted = testbed.drift.at("mixture", bandit, theory.SoftmaxPolicy(np.log([[0.9, 0.1]])), kl=0.1)
    >>> round(drifted.kl, 9), round(drifted.strength, 3)
    (0.1, 0.392)
    >>> cut = testbed.drift.at("top_p", bandit, theory.SoftmaxPolicy(np.log([[0.9, 0.1]])), kl=0.1, nearest=True)
    >>> round(cut.kl, 6), round(cut.lost_mass, 9)  # -log 0.9
    (0.105361, 0.1)
    """
    known = _known(kind)
    for name in known.settings:
        if name in options:
            raise ValueError(
                f"{name}={options[name]!r} says how strong {kind} drift is; expected kl alone, or drift.measured("
                f"{kind!r}, ..., {name}={options[name]!r})"
            )
    # So that options without meaning are refused here as well.
    apply(kind, process, policy, 0.0, **options)
    checks.known_name("per", per, ("token", "sequence"))
    kl = checks.non_negative("kl", kl, "nats")
    if kl == 0.0:
        return Drifted(kind, 0.0, 0.0, per, policy, policy)
    if not process.initial[~process.absorbing].any():
        raise UnreachableError(
            f"kl = {kl:g} per {per} is out of reach: every episode of this process ends before a step"
        )

    @functools.cache
    def curve(strength: float) -> float:
        return kl_behaviour_target(process, *apply(kind, process, policy, strength, states=states, **options), per=per)

    problem = f"kl = {kl:g} per {per} is out of reach of {kind} drift in this process"
    try:
        if known.steps is not None:
            strength = step_strength(curve, kl, known.steps(process, policy), problem)
        else:
            unit = known.unit(process, policy)
            strength = smallest_strength(curve, kl, unit, known.limit * unit, problem)
    except UnreachableError as unreachable:
        if not nearest:
            raise
        strength = unreachable.nearest(kl)
    target, behaviour = apply(kind, process, policy, strength, states=states, **options)
    lost = lost_mass(process, target, behaviour)
    return Drifted(kind, strength, curve(strength), per, target, behaviour, lost)


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


def _known(kind: str) -> Kind:
    return KINDS[checks.known_name("kind of drift", kind, KINDS)]


def _checked(
    kind: str,
    process: theory.MarkovProcess,
    policy: theory.SoftmaxPolicy,
    options: Mapping[str, Any],
    strength: Any,
) -> tuple[Kind, dict[str, Any], float]:
    """The kind, its options without the settings that say the strength, and the strength."""
    known = _known(kind)
    for option in options:
        checks.known_name("option", option, (*known.options, *known.settings), of=f"drift {kind!r}")
    check_policy(process, policy, "the")
    said = [name for name in known.settings if name in options]
    if len(said) + (strength is not None) != 1:
        ways = " or ".join(("strength", *known.settings))
        got = " and ".join((*(["strength"] if strength is not None else []), *said)) or "none of them"
        raise ValueError(f"how strong {kind} drift is, is said by {ways}, one of them; got {got}")
    rest = {name: value for name, value in options.items() if name not in known.settings}
    if said:
        return known, rest, known.settings[said[0]](options[said[0]], policy)
    return known, rest, checks.non_negative("strength", strength)
