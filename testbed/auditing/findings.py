"""What an audit saw, as a list of suspicions with a name each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from testbed.auditing import reductions
from testbed.auditing.leaks import ROUNDING, Coupling, LevelDependence, MaskLeaks, MicroBatches
from testbed.auditing.matching import EQUAL, Candidate, Evidence, Match, equal_to, named_gradient
from testbed.auditing.mistakes import MISTAKES
from testbed.auditing.record import Finding
from testbed.auditing.robustness import Case

FAULTS = {
    "detached_everything": "no gradient reaches logp",
    "wrong_sign": "the loss descends what it should ascend",
    "swapped_ratio": "the ratio is mu / pi",
    "missing_stop_gradient": "a weight that should be a constant has a gradient",
    "off_by_one_prefix": "a prefix is one token too short, too long or too late",
    "mask_ignored": "the mask has no effect",
    "gradient_at_masked_tokens": "masked tokens get a gradient",
    "masked_values_matter": "numbers at masked tokens change the gradient of the others",
    "padding_in_the_mean": "padded columns change the gradient",
    "mean_for_sum": "divided by a number of tokens where a sum was expected",
    "normaliser": "another reduction than expected, or one that has no name",
}
PROPERTIES = {
    "depends_on_level": "the gradient changes with the level of all log-probabilities at constant ratios",
    "couples_sequences": "a sequence's gradient depends on the others of its batch",
    "not_microbatch_invariant": "the gradient of a batch is neither mean nor sum of its micro-batches'",
    "mixes_advantages": "a token's gradient depends on the advantages of other tokens",
    "overflow": "loss or gradient is not finite at an extreme input at which the weight is",
}
FINDINGS = {**FAULTS, **PROPERTIES}
"""identifier -> what it means. A fault makes the gradient another one than meant; a property is good to know."""


def finding(identifier: str, sentence: str, **evidence: Any) -> Finding:
    """A finding; whether it is a fault goes by its identifier."""
    assert identifier in FINDINGS
    return Finding(identifier, identifier in FAULTS, sentence, evidence)


def of_match(seen: Evidence, best: Match | None, weights: Sequence[Any], level: LevelDependence) -> Iterator[Finding]:
    """Mistakes that turn a named estimator into this loss; none where it is a named one as it stands."""
    if best is not None and best.equal:
        if best.weight.options.get("inclusive") is True:
            yield finding(
                "off_by_one_prefix", "the running minimum counts the token itself among the earlier ones",
                intended=best.weight.name, constant=best.constant,
            )  # fmt: skip
        return
    if best is not None and best.largest <= EQUAL:
        yield finding(
            "wrong_sign", f"the loss is {best.label} with the sign turned: minimising it descends the objective",
            intended=best.label, constant=best.constant,
        )  # fmt: skip
        return
    for mistake in MISTAKES:
        if mistake.by_level != (level.change > ROUNDING):
            continue
        found = equal_to(seen, weights, mistake.gradient)
        if found is not None:
            also = "; the sign is turned as well" if found.constant < 0.0 else ""
            yield finding(
                mistake.finding, f"{mistake.words}{also}; otherwise the loss is {found.label}",
                intended=found.label, constant=found.constant, largest_difference=found.largest,
            )  # fmt: skip
            return
    if level.linear:
        yield finding(
            "missing_stop_gradient",
            "the coefficients grow in proportion to the level of all log-probabilities at constant ratios: a weight "
            "that multiplies log pi has no stop-gradient",
            change_per_nat=level.change,
        )  # fmt: skip


def of_normaliser(seen: Evidence, ranked: Sequence[Match], reduction: str) -> Iterator[Finding]:
    """A reduction that is not the expected one, or that is none of the named."""
    if ranked and ranked[0].largest <= EQUAL:
        best = ranked[0]
        if reduction and best.reduction not in (names := reductions.accepted(reduction)):
            sums = {"sum", "sequence_mean", "width_mean"} & set(names)
            mean = sums and best.reduction in reductions.BY_LENGTH
            yield finding(
                "mean_for_sum" if mean else "normaliser",
                f"the reduction is {best.reduction}, {reductions.REDUCTIONS[best.reduction]}; expected {reduction}",
                found=best.reduction, expected=reduction,
            )  # fmt: skip
        return
    for near in ranked:
        factors = _factors_by_length(seen, near)
        if factors is not None:
            yield finding(
                "normaliser",
                f"within each sequence the coefficients are those of {near.weight.label}, but the factor of a sequence "
                f"is none of the named reductions: {_shown(factors)}",
                intended=near.weight.label, factor_by_length={str(int(k)): v for k, v in factors.items()},
            )  # fmt: skip
            return


def _factors_by_length(seen: Evidence, near: Match) -> Mapping[float, float] | None:
    """Length -> factor on the first probe, where every sequence is a multiple of the named one that its length sets."""
    candidate = Candidate(near.weight, near.anchor, near.score)
    first: dict[float, float] = {}
    for i, (batch, ascent) in enumerate(zip(seen.batches, seen.ascents, strict=True)):
        raw = named_gradient(candidate, batch)
        here: dict[float, float] = {}
        for row, named, length in zip(ascent, raw, batch.length[:, 0], strict=True):
            factor = float(row @ named / (named @ named)) if named.any() else 0.0
            if np.abs(row - factor * named).max() > EQUAL * np.abs(row).max(initial=0.0):
                return None
            known = here.setdefault(float(length), factor) if named.any() else factor
            if abs(known - factor) > EQUAL * abs(factor):
                return None
        first = here if i == 0 else first
    return dict(sorted(first.items())) if min(first.values(), default=0.0) > 0.0 else None


def _shown(factors: Mapping[float, float]) -> str:
    first = next(iter(factors.values()))
    return ", ".join(f"length {int(k)}: {v / first:.4g}" for k, v in list(factors.items())[:4])


def of_mask(mask: MaskLeaks) -> Iterator[Finding]:
    """Masked tokens."""
    if not mask.mask_has_effect:
        yield finding("mask_ignored", "masking a token changes nothing", gradient_at_masked=mask.gradient_at_masked)
    elif mask.gradient_at_masked > ROUNDING:
        yield finding(
            "gradient_at_masked_tokens",
            f"masked tokens get a gradient, up to {mask.gradient_at_masked:.3g} of the largest",
            relative_gradient=mask.gradient_at_masked,
        )  # fmt: skip
    if mask.mask_has_effect and mask.values_at_masked > ROUNDING:
        yield finding(
            "masked_values_matter",
            f"numbers at masked tokens change the gradient of the others by {mask.values_at_masked:.3g} of the largest",
            relative_change=mask.values_at_masked,
        )  # fmt: skip


def of_padding(mask: MaskLeaks) -> Iterator[Finding]:
    """Columns that hold nothing."""
    if mask.padding > ROUNDING:
        by = "" if np.isnan(mask.padding_factor) else f", by a factor {mask.padding_factor:.4g}"
        yield finding(
            "padding_in_the_mean", f"twice the padded width with the same tokens changes the gradient{by}",
            factor=mask.padding_factor, relative_change=mask.padding,
        )  # fmt: skip


def of_batch(coupling: Coupling, micro: MicroBatches, mixes: bool, level: LevelDependence,
             best: Match | None) -> Iterator[Finding]:  # fmt: skip
    """Properties of the method."""
    if coupling.couples:
        through = [name for name, change in coupling.by_input.items() if change > ROUNDING]
        yield finding(
            "couples_sequences", f"a sequence's gradient changes with another sequence's {', '.join(through)}",
            **coupling.by_input,
        )  # fmt: skip
    if micro.rule == "neither":
        equal = "" if micro.equal_lengths == "neither" else f"; with equal lengths it is their {micro.equal_lengths}"
        yield finding(
            "not_microbatch_invariant",
            "the gradient of a ragged batch is neither the mean nor the sum of its micro-batches' (relative "
            f"differences {micro.from_mean:.3g} and {micro.from_sum:.3g}){equal}",
            from_mean=micro.from_mean, from_sum=micro.from_sum, equal_lengths=micro.equal_lengths,
        )  # fmt: skip
    if mixes:
        yield finding(
            "mixes_advantages",
            "with an advantage for every token, a token's gradient depends on those of the others; the match holds for "
            "one advantage per sequence",
        )  # fmt: skip
    known = best is not None and best.equal and "log_probability" in best.weight.needs
    if level.change > ROUNDING and not level.linear and not known:
        yield finding(
            "depends_on_level",
            f"log-probabilities lower by one nat, at the same ratios, change the gradient by {level.change:.3g}",
            relative_change=level.change,
        )  # fmt: skip


def of_robustness(cases: Sequence[Case], best: Match | None) -> Iterator[Finding]:
    """Inputs at which loss or gradient is not finite though the weight is."""
    bad = [case for case in cases if not case.finite and _weight_is_finite(case, best)]
    if bad:
        more = f"; {len(bad)} such inputs in all" if len(bad) > 1 else ""
        yield finding("overflow", f"{bad[0].name}: {bad[0].outcome}{more}", cases=[case.name for case in bad])


def _weight_is_finite(case: Case, best: Match | None) -> bool:
    """Whether a finite gradient is possible: that of the named estimator, or anything where the ratios are small."""
    if best is None or not best.equal:
        return case.log_ratio <= 0.0
    named = named_gradient(Candidate(best.weight, best.anchor, best.score), case.batch)
    return bool((np.abs(named) < np.finfo(case.dtype).max).all())
