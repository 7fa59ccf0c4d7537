"""A named estimator as people spell it, and the loss compared with it."""

from __future__ import annotations

import theory
from testbed.auditing import reductions, spelling
from testbed.auditing.batch import Array, Batch
from testbed.auditing.findings import finding
from testbed.auditing.matching import ANCHORS, Candidate, Evidence, Match, coefficients, compare, equal_to
from testbed.auditing.record import Finding

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
    return compare(seen, weight, reduction or own_reduction)


def named(name: str) -> tuple[theory.Weight, str]:
    """Weight and reduction of a name; the name of a weight leaves the reduction open."""
    base, options = spelling.call(name)
    if ":" not in base:
        return theory.weight(base, **options), ""
    preset = theory.preset(base, **options)
    return preset.weight, preset.reduction if preset.reduction in reductions.known() else ""


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
