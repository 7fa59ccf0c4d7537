"""What an audit saw, as a list of suspicions with a name each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from testbed.auditing.advantages import AdvantageUse
from testbed.auditing.leaks import Coupling, LevelDependence, MaskLeaks, MicroBatches
from testbed.auditing.matching import Candidate, Match, named_gradient
from testbed.auditing.record import Finding
from testbed.auditing.robustness import Case

FAULTS = {
    "detached_everything": "no gradient reaches logp",
    "wrong_sign": "the loss descends what it should ascend",
    "swapped_ratio": "the ratio is mu / pi",
    "missing_stop_gradient": "a weight that should be a constant has a gradient",
    "off_by_one_prefix": "a prefix is one token too short, too long or too late",
    "max_for_min": "each sign of the advantage has the weight of the other",
    "advantages_ignored": "advantages, or their signs, have no effect",
    "advantages_shifted": "a token's gradient has the advantage of its neighbour",
    "loss_not_finite": "the loss is not finite where its gradient is",
    "not_deterministic": "two calls with the same input differ",
    "mask_ignored": "the mask has no effect",
    "tokens_left_out": "tokens that count get no gradient",
    "gradient_at_masked_tokens": "masked tokens get a gradient",
    "masked_values_matter": "numbers at masked tokens change the gradient of the others",
    "padding_in_the_mean": "padded columns change the gradient",
    "mean_for_sum": "divided by a number of tokens where a sum was expected",
    "normaliser": "another reduction than expected, or one that has no name",
}
PROPERTIES = {
    "takes_no_mask": "there is no parameter mask: padding must be cut off before the loss",
    "takes_no_advantages": "there is no parameter advantages",
    "remains_without_advantages": "a gradient remains where all advantages are zero: a penalty or a bonus",
    "differs_with_holes": "a named estimator unless a masked token stands before one that counts",
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


def of_advantages(use: AdvantageUse, takes: Sequence[str], best: Match | None) -> Iterator[Finding]:
    """What advantages do, and tokens that get no gradient."""
    if "advantages" not in takes:
        yield finding("takes_no_advantages", "the loss has no parameter advantages")
    elif not use.matter or not use.sign_matters:
        what = "turning the sign of every advantage" if use.matter else "changing the advantages"
        yield finding("advantages_ignored", f"{what} changes nothing")
    elif use.from_neighbour:
        side = "before" if use.from_neighbour < 0 else "after"
        yield finding("advantages_shifted", f"each token's gradient has the advantage of the token {side} it")
    elif use.left_out and (best is None or not best.equal):
        yield finding(
            "tokens_left_out",
            f"{use.left_out} tokens of a batch that count get no gradient, though others of their sequences do and "
            "every ratio is 1",
            tokens=use.left_out,
        )  # fmt: skip


def of_mask(mask: MaskLeaks, takes: Sequence[str], rounding: float) -> Iterator[Finding]:
    """Masked tokens."""
    if "mask" not in takes:
        yield finding(
            "takes_no_mask", "the loss has no parameter mask: what is padded must be cut off before it",
            gradient_at_masked=mask.gradient_at_masked, padding=mask.padding,
        )  # fmt: skip
        return
    if not mask.mask_has_effect:
        yield finding("mask_ignored", "masking a token changes nothing", gradient_at_masked=mask.gradient_at_masked)
        return
    if mask.gradient_at_masked > rounding:
        yield finding(
            "gradient_at_masked_tokens",
            f"masked tokens get a gradient, up to {mask.gradient_at_masked:.3g} of the largest",
            relative_gradient=mask.gradient_at_masked,
        )  # fmt: skip
    if mask.values_at_masked > rounding:
        yield finding(
            "masked_values_matter",
            f"numbers at masked tokens change the gradient of the others by {mask.values_at_masked:.3g} of the largest",
            relative_change=mask.values_at_masked,
        )  # fmt: skip


def of_padding(mask: MaskLeaks, takes: Sequence[str], rounding: float) -> Iterator[Finding]:
    """Padded columns."""
    if "mask" in takes and mask.padding > rounding:
        by = f", by a factor {mask.padding_factor:.4g}" if np.isfinite(mask.padding_factor) else ""
        yield finding(
            "padding_in_the_mean", f"twice the padded width with the same tokens changes the gradient{by}",
            relative_change=mask.padding, factor=mask.padding_factor,
        )  # fmt: skip


def of_batch(coupling: Coupling, micro: MicroBatches, mixes: bool, level: LevelDependence,
             best: Match | None) -> Iterator[Finding]:  # fmt: skip
    """Properties of the method."""
    if coupling.couples:
        how = f"changes with another sequence's {', '.join(coupling.through)}"
        alone = "in a batch is no multiple of the one that it has alone"
        yield finding(
            "couples_sequences", f"a sequence's gradient {how if coupling.through else alone}", **coupling.by_input,
            alone=coupling.alone,
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
    if level.changes and not level.linear and not known:
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
