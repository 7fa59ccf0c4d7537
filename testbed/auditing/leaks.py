"""Where a loss's gradient comes from that it should not: masked tokens, padding, other sequences, the level of logp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.auditing.batch import Array, Batch
from testbed.auditing.loss import Loss

ROUNDING = 1e-8
"""Relative change below which nothing has changed."""
_INPUTS = ("logp", "old_logp", "rollout_logp", "advantages")


@dataclass(frozen=True)
class MaskLeaks:
    """What stands at masked tokens, and whether it matters. All relative to the largest gradient or to the loss."""

    mask_has_effect: bool
    """Whether masking one more token changes anything."""
    gradient_at_masked: float
    """Largest gradient at a masked token."""
    values_at_masked: float
    """Change of the gradient at tokens that count when the numbers at masked tokens change."""
    padding: float
    """Change of the gradient at tokens that count when masked columns are added."""
    padding_factor: float
    """What the gradient is multiplied by when the padded width T grows to 2 T; NaN where it is no single factor."""


@dataclass(frozen=True)
class LevelDependence:
    """Whether the gradient changes when all log-probabilities move together, all ratios held."""

    change: float
    """Relative change for a shift by one nat."""
    linear: bool
    """Whether it is exactly proportional to the shift, as through a weight without stop-gradient."""


@dataclass(frozen=True)
class Coupling:
    """Whether a sequence's gradient depends on the others of its batch."""

    by_input: dict[str, float]
    """Relative change of a sequence's gradient when that input of another sequence changes."""
    shares_count: bool
    """Whether it changes, by one factor, when another sequence is one token shorter: a shared token count."""

    @property
    def couples(self) -> bool:
        """Whether anything but a shared count of tokens couples them."""
        return max(self.by_input.values()) > ROUNDING


@dataclass(frozen=True)
class MicroBatches:
    """grad(loss(batch)) against the gradients over its micro-batches."""

    rule: str
    """"mean" or "sum" of the micro-batches' gradients, or "neither"."""
    from_mean: float
    """Relative difference to their mean, on ragged batches."""
    from_sum: float
    """Relative difference to their sum."""
    equal_lengths: str
    """The rule that holds where all sequences are equally long."""


def mask_leaks(loss: Loss, batch: Batch) -> MaskLeaks:
    """Change what is masked, and see."""
    rng = np.random.default_rng(3)
    plain = loss.at(batch).ascent
    counted, size = batch.counted, _size(plain)
    noise = [np.where(counted, 0.0, rng.normal(-1.0, 0.5, counted.shape)) for _ in range(4)]
    logp, old, rollout, advantages = (array + n for array, n in zip(batch[:4], noise, strict=True))
    filled = Batch(logp, old, rollout, advantages, batch.mask)
    garbage = loss.at(filled).ascent
    # The last token of every longer sequence; the values stay, only the mask says that it no longer counts.
    fewer = batch.mask.copy()
    longer = np.flatnonzero(batch.length[:, 0] > 1)
    fewer[longer, batch.length[longer, 0].astype(np.int64) - 1] = 0.0
    effect = _largest(loss.at(batch._replace(mask=fewer)).ascent - plain) / size
    width = counted.shape[1]
    wide = loss.at(batch.padded(width)).ascent[:, :width]
    factor = _multiple(wide[counted], plain[counted])
    single = _largest((wide - factor * plain)[counted]) <= ROUNDING * size
    return MaskLeaks(
        mask_has_effect="mask" in loss.takes and effect > ROUNDING,
        gradient_at_masked=_largest(garbage[~counted]) / size,
        values_at_masked=_largest((garbage - plain)[counted]) / size,
        padding=_largest((wide - plain)[counted]) / size,
        padding_factor=factor if single else float("nan"),
    )


def level_dependence(loss: Loss, batch: Batch) -> LevelDependence:
    """Move all log-probabilities down by one nat and by two."""
    here, one, two = (loss.at(batch.shifted(nats)).ascent[batch.counted] for nats in (0.0, -1.0, -2.0))
    change = _largest(one - here)
    bend = _largest(two - 2.0 * one + here)
    return LevelDependence(change / _size(here), change > ROUNDING * _size(here) and bend <= ROUNDING * change)


def coupling(loss: Loss, batch: Batch) -> Coupling:
    """Change one sequence's inputs, one by one, and look at the others' gradients."""
    rng = np.random.default_rng(4)
    plain = loss.at(batch).ascent
    others = batch.counted.copy()
    others[0] = False
    size = _size(plain[others])
    by_input = {}
    for name in _INPUTS:
        changed = getattr(batch, name).copy()
        changed[0] = np.where(batch.counted[0], changed[0] * rng.uniform(1.2, 1.8), 0.0)
        moved = loss.at(batch._replace(**{name: changed})).ascent
        by_input[name] = _largest((moved - plain)[others]) / size
    shorter = batch.mask.copy()
    shorter[0, np.flatnonzero(batch.counted[0])[-1]] = 0.0
    moved = loss.at(Batch(*(np.where(shorter != 0.0, a, 0.0) for a in batch))._replace(mask=shorter)).ascent
    factor = _multiple(moved[others], plain[others])
    single = _largest((moved - factor * plain)[others]) <= ROUNDING * size
    return Coupling(by_input, single and abs(factor - 1.0) > ROUNDING)


def micro_batches(loss: Loss, ragged: Batch, equal: Batch) -> MicroBatches:
    """Two halves against the whole, with ragged and with equal lengths."""
    from_mean, from_sum = _halves(loss, ragged)
    return MicroBatches(_rule(from_mean, from_sum), from_mean, from_sum, _rule(*_halves(loss, equal)))


def _halves(loss: Loss, batch: Batch) -> tuple[float, float]:
    half = len(batch.mask) // 2
    parts = [loss.at(batch.rows(slice(0, half))).ascent, loss.at(batch.rows(slice(half, 2 * half))).ascent]
    together, whole = np.concatenate(parts), loss.at(batch.rows(slice(0, 2 * half))).ascent
    size = _size(whole)
    return _largest(together / 2.0 - whole) / size, _largest(together - whole) / size


def _rule(from_mean: float, from_sum: float) -> str:
    return "mean" if from_mean <= ROUNDING else "sum" if from_sum <= ROUNDING else "neither"


def _multiple(moved: Array, plain: Array) -> float:
    """The factor nearest to being between two gradients; 1 where there is none to compare with."""
    size = float((plain**2).sum())
    return float((moved * plain).sum()) / size if size > 0.0 else 1.0


def _largest(array: Array) -> float:
    """Largest absolute entry; NaN counts as infinite."""
    largest = float(np.abs(array).max(initial=0.0))
    return largest if largest == largest else float("inf")


def _size(array: Array) -> float:
    """The largest entry of a gradient, to divide by; the smallest number where there is no gradient."""
    return max(_largest(array), float(np.finfo(float).tiny))
