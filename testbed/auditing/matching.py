"""Which named estimator a loss equals, up to one positive constant: coefficients compared token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import theory
from testbed.auditing import reductions
from testbed.auditing.batch import Array, Batch
from testbed.auditing.observing import ANCHORS, EQUAL, Evidence

FAR = 0.5
"""Distance beyond which a named estimator is no neighbour."""
# Of the first probe, so many that are nearest go on to all probes.
_SCREENED = 12
_SAME_SHAPE = 1e-6
_NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class Difference:
    """The first token at which a loss and a named estimator differ."""

    batch: int
    sequence: int
    token: int
    of_loss: float
    """Coefficient of the loss, divided by the constant."""
    of_named: float
    """Coefficient of the named estimator, reduction included."""
    log_ratio: float
    advantage: float
    logp: float
    old_logp: float
    rollout_logp: float


@dataclass(frozen=True)
class Match:
    """A named estimator beside the loss: loss gradient = -constant x coefficients x advantages."""

    weight: theory.Weight
    anchor: str
    """Which ratio the weight looks at: a name of `ANCHORS`."""
    score: str
    """"own", or "cumulative" where each token's term goes through the scores of all tokens up to it."""
    reduction: str
    """A name of `testbed.auditing.reductions.REDUCTIONS`."""
    constant: float
    """The factor between the two; negative where the loss descends."""
    distance: float
    """|c - constant c_named| / |c| over the probe batches, each batch with equal weight."""
    largest: float
    """Largest relative difference at a token."""
    difference: Difference | None
    """Where the two first differ; None where they are equal."""
    tolerance: float = EQUAL
    """Relative difference up to which they are the same: `EQUAL`, or `SINGLE` for a loss that is no more exact."""

    @property
    def exact(self) -> bool:
        """Whether the coefficients are the same up to a constant of either sign."""
        return self.largest <= self.tolerance

    @property
    def equal(self) -> bool:
        """Whether the coefficients are the same with a positive constant."""
        return self.exact and self.constant > 0.0

    @property
    def label(self) -> str:
        """Weight with its options, reduction and ratio."""
        parts = [self.weight.label, *(["cumulative score"] if self.score == "cumulative" else []), self.reduction]
        return f"{' x '.join(parts)}, log-ratio {_ANCHOR_WORDS[self.anchor]}"


_ANCHOR_WORDS = {
    "old_logp": "logp - old_logp",
    "rollout_logp": "logp - rollout_logp",
    "old_logp over rollout_logp": "old_logp - rollout_logp",
}


class Candidate(NamedTuple):
    """A gradient without reduction that a loss may have."""

    weight: theory.Weight
    anchor: str
    score: str = "own"


Gradient = Callable[[Candidate, Batch], Array]
"""(candidate, batch) -> what the step would ascend before any reduction, (N, T)."""


def named_gradient(candidate: Candidate, batch: Batch) -> Array:
    """c_t A_t of the registry's weight, (N, T); with the cumulative score the sum of them from t on."""
    with np.errstate(all="ignore"):
        own = coefficients(candidate.weight, ANCHORS[candidate.anchor](batch), batch) * batch.advantages
    return own if candidate.score == "own" else _cumulative(own, batch)


def _cumulative(own: Array, batch: Batch) -> Array:
    return np.where(batch.counted, np.cumsum(own[:, ::-1], axis=1)[:, ::-1], 0.0)


def coefficients(weight: theory.Weight, log_ratio: Array, batch: Batch) -> Array:
    """The registry's coefficients, with what the weight needs beside ratios."""
    beside: Mapping[str, Array] = {
        "log_probability": batch.logp,
        "old_log_ratio": batch.old_logp - batch.rollout_logp,
    }
    given: dict[str, Any] = {need: beside[need] for need in weight.needs}
    with np.errstate(all="ignore"):
        return np.asarray(weight.coefficients(log_ratio, batch.mask, batch.advantages, **given))


def search(
    seen: Evidence, weights: Iterable[theory.Weight], scores: Sequence[str] = ("own", "cumulative")
) -> list[Match]:
    """Named estimators on all probes, the best first: equal ones by plainness, then the others by distance."""
    if seen.silent:
        return []
    screened = []
    for weight in weights:
        for anchor in seen.anchors(weight):
            raw = named_gradient(Candidate(weight, anchor), seen.batches[0])
            for score in scores:
                distance = _shape_distance(seen, 0, raw if score == "own" else _cumulative(raw, seen.batches[0]))
                screened.append((distance, Candidate(weight, anchor, score)))
    screened.sort(key=lambda pair: pair[0])
    kept = [
        c for i, (distance, c) in enumerate(screened) if i < _SCREENED or distance < max(_SAME_SHAPE, seen.tolerance)
    ]
    matches = [found for c in kept if (found := _best(seen, c, named_gradient)) is not None]
    return sorted(matches, key=_plainness)


def equal_to(seen: Evidence, weights: Iterable[theory.Weight], gradient: Gradient) -> Match | None:
    """The plainest candidate whose gradient is the loss's up to a factor, of either sign; None where there is none.

    Small probes come first, and one that differs ends the comparison. Those with holes in the mask are left out: what
    a token's neighbour is there depends on how the mistake was made.
    """
    seen = seen.without_holes()
    order = sorted(range(len(seen.batches)), key=lambda i: seen.batches[i].mask.size)
    matches, same = [], max(_SAME_SHAPE, seen.tolerance)
    for weight in weights if not seen.silent else ():
        for anchor in seen.anchors(weight):
            candidate = Candidate(weight, anchor)
            if all(_shape_distance(seen, i, gradient(candidate, seen.batches[i])) < same for i in order):
                found = _best(seen, candidate, gradient)
                matches += [found] if found is not None and found.exact else []
    return min(matches, key=_plainness, default=None)


def _shape_distance(seen: Evidence, i: int, raw: Array) -> float:
    """Relative distance on one probe to the nearest multiple, whatever the reduction; infinite where that is none."""
    batch, ascent = seen.batches[i], seen.ascents[i]
    if not raw.any():
        return 0.0 if not ascent.any() else np.inf
    divisor = np.where(batch.counted, batch.advantages, 1.0)
    ours, named, best = (ascent / divisor), raw / divisor, np.inf
    size = float((ours * ours).sum())
    # Beyond this the squares overflow, and nothing that large is near.
    if size == 0.0 or not (np.abs(named) < 1e150).all():
        return np.inf
    # On one batch every reduction is a constant, or divides by a number of tokens of the sequence.
    kept = np.maximum((raw != 0.0).sum(axis=1, keepdims=True), 1.0)
    for n in (named, named / np.maximum(batch.length, 1.0), named / kept):
        along = float((ours * n).sum())
        gap = ours - along / float((n * n).sum()) * n
        apart = float((gap * gap).sum()) / size
        # Of what points the other way, the nearest positive multiple is nothing at all.
        best = min(best, apart if along > 0.0 or apart < _SAME_SHAPE**2 else 1.0)
    return float(np.sqrt(best))


def compare(seen: Evidence, weight: theory.Weight, reduction: str = "") -> Match | None:
    """The best fit of one weight, over its ratios, and the reductions if none is given."""
    names = reductions.accepted(reduction) if reduction else reductions.searched()
    fits: list[Match] = []
    for anchor in seen.anchors(weight) if not seen.silent else ():
        found = _best(seen, Candidate(weight, anchor), named_gradient, names)
        fits += [found] if found is not None else []
    return min(fits, key=_plainness, default=None)


def refitted(seen: Evidence, match: Match) -> Match | None:
    """The same weight and ratio compared with other evidence."""
    return _best(seen, Candidate(match.weight, match.anchor, match.score), named_gradient)


def _plainness(match: Match) -> tuple[Any, ...]:
    changed = sum(value != match.weight.family.options[name] for name, value in match.weight.options.items())
    order = [*reductions.REDUCTIONS].index(match.reduction)
    exact = match.exact
    apart = (False, 0.0) if exact else (match.constant <= 0.0, match.distance)
    return not exact, *apart, changed, match.score != "own", order, match.weight.name


def _best(
    seen: Evidence, candidate: Candidate, gradient: Gradient, names: Sequence[str] = reductions.searched()
) -> Match | None:
    raws = [gradient(candidate, batch) for batch in seen.batches]
    if not all(np.isfinite(raw).all() for raw in raws):
        return None
    fits = [fit for name in names if (fit := _fit(seen, candidate, raws, name)) is not None]
    return min(fits, key=_plainness, default=None)


def _fit(seen: Evidence, candidate: Candidate, raws: Sequence[Array], reduction: str) -> Match | None:
    ours, named, scales = [], [], []
    for batch, ascent, raw in zip(seen.batches, seen.ascents, raws, strict=True):
        factor = reductions.factor(reduction, batch.mask, raw != 0.0)
        divisor = np.where(batch.counted, batch.advantages, 1.0)
        c = ascent / divisor
        ours.append(c)
        named.append(raw * factor / divisor)
        scales.append(float(np.linalg.norm(c)) or 1.0)
    over = sum(float((c * n).sum()) / s**2 for c, n, s in zip(ours, named, scales, strict=True))
    under = sum(float((n * n).sum()) / s**2 for n, s in zip(named, scales, strict=True))
    if under == 0.0:
        return None
    constant = over / under
    squares = [np.linalg.norm(c - constant * n) ** 2 / s**2 for c, n, s in zip(ours, named, scales, strict=True)]
    gaps = [_relative_gap(c, constant * n) for c, n in zip(ours, named, strict=True)]
    largest = max(float(gap.max()) for gap in gaps)
    where = None
    if largest > seen.tolerance and constant != 0.0:
        where = _first_difference(seen, candidate, [c / constant for c in ours], named, gaps)
    distance = float(np.sqrt(np.mean(squares)))
    return Match(*candidate, reduction, float(constant), distance, largest, where, seen.tolerance)


def _relative_gap(ours: Array, named: Array) -> Array:
    """|c - c_named| per token, relative to the largest of its sequence."""
    scale = np.maximum(np.abs(ours), np.abs(named)).max(axis=1, keepdims=True)
    floor = _NEGLIGIBLE * scale.max() or 1.0
    return np.asarray(np.abs(ours - named) / np.maximum(scale, floor))


def _first_difference(
    seen: Evidence, candidate: Candidate, ours: list[Array], named: list[Array], gaps: list[Array]
) -> Difference | None:
    for i, gap in enumerate(gaps):
        if (gap > seen.tolerance).any():
            n, t = (int(x) for x in np.argwhere(gap > seen.tolerance)[0])
            b = seen.batches[i]
            inputs = (ANCHORS[candidate.anchor](b), b.advantages, b.logp, b.old_logp, b.rollout_logp)
            return Difference(i, n, t, float(ours[i][n, t]), float(named[i][n, t]), *(float(x[n, t]) for x in inputs))
    return None
