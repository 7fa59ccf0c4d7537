"""What a loss is beyond its nearest name: a named estimator with a mistake, another reduction, a penalty beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

import theory
from testbed.auditing import penalties, reductions
from testbed.auditing.batch import Array
from testbed.auditing.findings import finding
from testbed.auditing.leaks import LevelDependence
from testbed.auditing.matching import Candidate, Match, equal_to, named_gradient
from testbed.auditing.mistakes import MISTAKES
from testbed.auditing.observing import Evidence
from testbed.auditing.record import Finding

EXPLAINED = {
    "swapped_ratio", "missing_stop_gradient", "off_by_one_prefix", "max_for_min", "differs_with_holes",
    "advantages_ignored", "advantages_shifted", "takes_no_advantages",
}  # fmt: skip
"""Findings beside which coefficients or reductions without a name are no news."""


def of_penalty(seen: Evidence, remains: tuple[Array, ...] | None, best: Match | None) -> Iterator[Finding]:
    """What remains without advantages; `best` is the match of the rest."""
    if remains is None:
        return
    words = penalties.named(seen, remains)
    rest = f"; what advantages add to it is {best.label}" if best is not None and best.equal else ""
    yield finding(
        "remains_without_advantages",
        f"where all advantages are zero a gradient remains{f', that of {words}' if words else ''}{rest}",
        term=words, policy_term=best.label if rest and best is not None else "",
    )  # fmt: skip


def of_match(
    seen: Evidence, best: Match | None, weights: Sequence[theory.Weight], level: LevelDependence
) -> Iterator[Finding]:
    """Mistakes that turn a named estimator into this loss; none where it is a named one as it stands."""
    if best is not None and best.equal:
        if best.weight.options.get("inclusive") is True:
            yield finding(
                "off_by_one_prefix", "the running minimum counts the token itself among the earlier ones",
                intended=best.weight.name, constant=best.constant,
            )  # fmt: skip
        return
    if best is not None and best.exact:
        yield finding(
            "wrong_sign", f"the loss is {best.label} with the sign turned: minimising it descends the objective",
            intended=best.label, constant=best.constant,
        )  # fmt: skip
        return
    # A mistake that turns one named estimator into another is none.
    without_holes = equal_to(seen, weights, named_gradient)
    if without_holes is not None:
        yield finding(
            "differs_with_holes",
            f"the loss is {without_holes.label} unless a masked token stands before one that counts",
            intended=without_holes.label, constant=without_holes.constant,
        )  # fmt: skip
        return
    for mistake in MISTAKES:
        if mistake.by_level != level.changes:
            continue
        found = equal_to(seen, [w for w in weights if mistake.can_happen(w)], mistake.gradient)
        if found is not None:
            yield finding(
                mistake.finding, f"{mistake.words}{_sign(found, level)}; otherwise the loss is {found.label}",
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


def _sign(found: Match, level: LevelDependence) -> str:
    if found.constant > 0.0:
        return ""
    # A loss of ratios alone has its gradient through the exponent, where logp then has the other sign.
    return "; the sign is turned as well" if level.value_changes else ", which turns the sign of its gradient too"


def of_reduction(best: Match, reduction: str) -> Iterator[Finding]:
    """Another reduction than expected."""
    names = reductions.accepted(reduction) if reduction else (best.reduction,)
    if best.reduction not in names:
        mean = {"sum", "sequence_mean", "width_mean"} & set(names) and best.reduction in reductions.BY_LENGTH
        yield finding(
            "mean_for_sum" if mean else "normaliser",
            f"the reduction is {best.reduction}, {reductions.REDUCTIONS[best.reduction]}; expected {reduction}",
            found=best.reduction, expected=reduction,
        )  # fmt: skip


def of_normaliser(seen: Evidence, weights: Sequence[theory.Weight]) -> Iterator[Finding]:
    """A named weight under a reduction that has no name: every sequence has a factor of its own, set by its length."""
    simple = [w for w in weights if not w.family.couples_batch]
    for weight in sorted(simple, key=lambda w: sum(w.options[k] != v for k, v in w.family.options.items())):
        for anchor in seen.anchors(weight):
            factors = _factors_by_length(seen, Candidate(weight, anchor))
            if factors is None:
                continue
            by_length = len(set(np.round(np.array([*factors[0].values()]) / max(factors[0].values()), 9))) > 1
            what = "sequence" if by_length else "batch"
            shown = _by_length(factors[0]) if by_length else _by_batch(seen, factors)
            yield finding(
                "normaliser",
                f"the coefficients are those of {weight.label}, but the factor of a {what} is none of the named "
                f"reductions: {shown}",
                intended=weight.label, factor_by_length={str(int(k)): v for k, v in factors[0].items()},
            )  # fmt: skip
            return


def _factors_by_length(seen: Evidence, candidate: Candidate) -> list[Mapping[float, float]] | None:
    """Length -> factor on each probe, where every sequence is a multiple of the named one that its length sets."""
    found: dict[int, dict[float, float]] = {}
    for i in sorted(range(len(seen.batches)), key=lambda i: seen.batches[i].mask.size):
        batch, ascent = seen.batches[i], seen.ascents[i]
        raw = named_gradient(candidate, batch)
        if not (np.abs(raw) < 1e150).all():
            return None
        size = (raw * raw).sum(axis=1, keepdims=True)
        factor = (ascent * raw).sum(axis=1, keepdims=True) / np.where(size > 0.0, size, 1.0)
        if (np.abs(ascent - factor * raw) > seen.tolerance * np.abs(ascent).max(axis=1, keepdims=True)).any():
            return None
        found[i] = {}
        for length, f in zip(batch.length[size > 0.0], factor[size > 0.0], strict=True):
            known = found[i].setdefault(float(length), float(f))
            if f <= 0.0 or abs(known - f) > seen.tolerance * f:
                return None
    ordered = [dict(sorted(found[i].items())) for i in range(len(seen.batches))]
    return ordered if all(ordered) else None  # type: ignore[return-value]


def _by_length(factors: Mapping[float, float]) -> str:
    first = next(iter(factors.values()))
    return ", ".join(f"length {int(k)}: {v / first:.4g}" for k, v in list(factors.items())[:4])


def _by_batch(seen: Evidence, factors: Sequence[Mapping[float, float]]) -> str:
    pairs = list(zip(seen.batches, factors, strict=True))[2:]
    return ", ".join(
        f"{len(b.mask)} sequences of {int(b.mask.sum())} tokens: {next(iter(f.values())):.6g}" for b, f in pairs
    )
