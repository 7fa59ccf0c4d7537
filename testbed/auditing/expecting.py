"""A named estimator as people spell it, and the loss compared with it."""

from __future__ import annotations

import difflib

import theory
from testbed import spelling
from testbed.auditing import reductions
from testbed.auditing.batch import Array, Batch
from testbed.auditing.findings import finding
from testbed.auditing.matching import Candidate, Match, coefficients, compare, equal_to
from testbed.auditing.observing import ANCHORS, Evidence
from testbed.auditing.record import Finding
from theory import checks

_TOLD = ("log_probability", "old_log_ratio")
"""What the tensors of a loss tell of a weight's needs."""


def compared(seen: Evidence, name: str, reduction: str = "") -> Match | None:
    """The best fit of a named weight or preset to the loss; None where the loss has no gradient to compare.

    Raises:
        ValueError: an unknown name or option, or a weight that needs what no loss is given.
    """
    weight, own_reduction = named(name)
    if reduction:
        reductions.accepted(reduction)
    missing = [need for need in weight.needs if need not in _TOLD]
    if missing:
        raise ValueError(f"weight {weight.label!r} needs {missing[0]}, which the tensors of a loss cannot tell")
    if "old_log_ratio" in weight.needs and len(seen.loss.anchors) < 2:
        raise ValueError(
            f"weight {weight.label!r} tells three policies apart; expected a loss of both old_logp and rollout_logp"
        )
    if own_reduction and reduction and not {*reductions.accepted(reduction)} & {*reductions.accepted(own_reduction)}:
        raise ValueError(f"{name!r} has the reduction {own_reduction}, and {reduction!r} was asked for; expected one")
    return compare(seen, weight, reduction or own_reduction)


def named(name: str) -> tuple[theory.Weight, str]:
    """Weight and reduction of a name; the name of a weight leaves the reduction open."""
    base, options = spelling.call(name)
    if ":" not in base:
        return theory.weight(base, **options), ""
    preset = theory.preset(_known_preset(base), **options)
    return preset.weight, preset.reduction if preset.reduction in reductions.known() else ""


def _known_preset(name: str) -> str:
    """There are too many to list: the nearest, and where they are listed."""
    known = sorted(theory.preset_cards())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=checks.SIMILAR)
        hint = f"; the nearest known names are {', '.join(map(repr, near))}" if near else ""
        raise ValueError(f"unknown preset {name!r}{hint}; `testbed list presets` has all {len(known)}")
    return name


def presets(match: Match) -> tuple[str, ...]:
    """Recipes with this weight and a reduction that is this one."""
    return tuple(
        name
        for name, preset in theory.preset_cards().items()
        if preset.reduction in reductions.known()
        and match.reduction in reductions.accepted(preset.reduction)
        and match.score == "own"
        and preset.weight == match.weight
    )


def averaged_log_ratios(seen: Evidence, name: str) -> Finding | None:
    """Whether the loss is the expected weight of log-ratios that were divided by the length of their sequence."""
    weight, _ = named(name)

    def gradient(candidate: Candidate, batch: Batch) -> Array:
        log_ratio = ANCHORS[candidate.anchor](batch) / batch.length.clip(min=1.0)
        return coefficients(candidate.weight, log_ratio, batch) * batch.advantages

    found = equal_to(seen, [weight], gradient)
    if found is None:
        return None
    return finding(
        "mean_for_sum",
        f"the log-ratios of a sequence are averaged where {weight.label} sums them",
        intended=weight.label,
        constant=found.constant,
    )
