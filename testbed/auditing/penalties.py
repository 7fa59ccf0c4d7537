"""The part of a loss that remains where all advantages are zero: a penalty or a bonus, and its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from testbed.auditing import reductions
from testbed.auditing.batch import Array, Batch
from testbed.auditing.observing import ANCHORS, Evidence


def remaining(seen: Evidence) -> tuple[Array, ...] | None:
    """Ascent of every probe at advantages of zero; None where there is none, or where it is not finite."""
    ascents = []
    for batch in seen.batches:
        ascent = seen.loss.at(batch._replace(advantages=np.zeros_like(batch.advantages))).ascent
        ascents.append(np.where(batch.counted, ascent, 0.0))
    finite = all(np.isfinite(a).all() for a in ascents)
    return tuple(ascents) if finite and any(a.any() for a in ascents) else None


def without(seen: Evidence, ascents: tuple[Array, ...]) -> Evidence:
    """What advantages add to that."""
    return replace(seen, ascents=tuple(a - b for a, b in zip(seen.ascents, ascents, strict=True)))


def named(seen: Evidence, ascents: tuple[Array, ...]) -> str:
    """A multiple of the sampled tokens' KL estimators or entropy, such as "0.04 x k3 of old_logp, token_mean"."""
    for words, terms in _terms(seen):
        for reduction in reductions.searched():
            parts = [
                t * reductions.factor(reduction, b.mask, b.counted) for t, b in zip(terms, seen.batches, strict=True)
            ]
            ours, theirs = (np.concatenate([p.reshape(-1) for p in each]) for each in (ascents, parts))
            with np.errstate(all="ignore"):
                factor = float(ours @ theirs) / float(theirs @ theirs) if theirs.any() else 0.0
                gaps = [np.abs(a - factor * p).max() / np.abs(a).max() for a, p in zip(ascents, parts, strict=True)]
            if max(gaps) <= seen.tolerance:
                return f"{-factor:.6g} x {words}, {reduction}"
    return ""


def _terms(seen: Evidence) -> Iterator[tuple[str, list[Array]]]:
    """Derivative of each in logp, at tokens that count."""

    def of(derivative: Array, batch: Batch) -> Array:
        return np.where(batch.counted, derivative, 0.0)

    yield "log pi, as of KL estimator k1", [b.counted.astype(float) for b in seen.batches]
    yield "pi log pi", [of(np.exp(b.logp) * (1.0 + b.logp), b) for b in seen.batches]
    for anchor in seen.loss.anchors:
        log_ratios = [ANCHORS[anchor](b) for b in seen.batches]
        pairs = list(zip(log_ratios, seen.batches, strict=True))
        yield f"KL estimator k2 of {anchor}", [of(x, b) for x, b in pairs]
        yield f"KL estimator k3 of {anchor}", [of(-np.expm1(-x), b) for x, b in pairs]
