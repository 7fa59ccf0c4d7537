"""Where a loss's gradient comes from that it should not: masked tokens, padding, other sequences, the level of logp."""

from __future__ import annotations

from collections.abc import Sequence
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
    changes: bool
    """Whether that is more than rounding."""
    linear: bool
    """Whether it is exactly proportional to the shift, as through a weight without stop-gradient."""
    value_changes: bool
    """Whether the loss itself changes: one of ratios alone does not."""


@dataclass(frozen=True)
class Coupling:
    """Whether a sequence's gradient depends on the others of its batch."""

    by_input: dict[str, float]
    """Relative change of a sequence's gradient when that input of another sequence changes."""
    alone: float
    """Largest relative difference between the gradient of a sequence in a batch and a multiple, one for all sequences
    of its length, of the gradient that it has alone; infinite where the loss cannot take a sequence alone."""
    worst: tuple[int, int]
    """Batch and sequence of that difference."""
    shares_count: bool
    """Whether it changes, by one factor, when another sequence is one token shorter: a shared token count."""
    rounding: float = ROUNDING
    """Relative difference below which nothing differs."""

    @property
    def couples(self) -> bool:
        """Whether anything but a shared count of tokens couples them."""
        return bool(self.through) or self.alone > self.rounding

    @property
    def through(self) -> tuple[str, ...]:
        """The inputs of another sequence that were seen to matter."""
        return tuple(name for name, change in self.by_input.items() if change > self.rounding)


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


def mask_leaks(loss: Loss, batch: Batch, holes: Batch, rounding: float = ROUNDING) -> MaskLeaks:
    """Change what is masked, and see: padding on the right, on the left, and masked tokens between others."""
    plain = loss.at(batch).ascent
    counted, size = batch.counted, _size(plain)
    width = counted.shape[1]
    wide = loss.at(batch.padded(width)).ascent[:, :width]
    factor = _multiple(wide[counted], plain[counted])
    single = _largest((wide - factor * plain)[counted]) <= rounding * size
    # An advantage per sequence may well stand at its masked tokens; on the right anything may.
    filled = [_filled(loss, batch, True), *(_filled(loss, b, False) for b in (batch.padded_left(2), holes))]
    return MaskLeaks(
        mask_has_effect="mask" in loss.takes and max(_effect(loss, batch, last) for last in (True, False)) > rounding,
        gradient_at_masked=max(at_masked for at_masked, _ in filled),
        values_at_masked=max(of_others for _, of_others in filled),
        padding=_largest((wide - plain)[counted]) / size,
        padding_factor=factor if single else float("nan"),
    )


def _filled(loss: Loss, batch: Batch, advantages: bool) -> tuple[float, float]:
    """Other numbers at masked tokens: the gradient there, and the change of that of the others."""
    rng = np.random.default_rng(3)
    plain, counted = loss.at(batch).ascent, batch.counted
    noise = [np.where(counted, 0.0, rng.normal(-1.0, 0.5, counted.shape)) for _ in range(4)]
    changed = [array + n for array, n in zip(batch[:4], noise, strict=True)]
    logp, old, rollout, other = changed
    filled = Batch(logp, old, rollout, other if advantages else batch.advantages, batch.mask)
    garbage = loss.at(filled).ascent
    size = _size(plain)
    return _largest(garbage[~counted]) / size, _largest((garbage - plain)[counted]) / size


def _effect(loss: Loss, batch: Batch, last: bool) -> float:
    """Relative change when the last or first token of every longer sequence no longer counts; its values stay."""
    plain, fewer = loss.at(batch).ascent, batch.mask.copy()
    longer = np.flatnonzero(batch.length[:, 0] > 1)
    fewer[longer, batch.length[longer, 0].astype(np.int64) - 1 if last else 0] = 0.0
    return _largest(loss.at(batch._replace(mask=fewer)).ascent - plain) / _size(plain)


def level_dependence(loss: Loss, batch: Batch, rounding: float = ROUNDING) -> LevelDependence:
    """Move all log-probabilities down by one nat and by two."""
    at = [loss.at(batch.shifted(nats)) for nats in (0.0, -1.0, -2.0)]
    here, one, two = (found.ascent[batch.counted] for found in at)
    change = _largest(one - here)
    bend = _largest(two - 2.0 * one + here)
    changes = change > rounding * _size(here)
    moved = abs(at[1].value - at[0].value) > rounding * abs(at[0].value)
    return LevelDependence(change / _size(here), changes, changes and bend <= rounding * change, moved)


def coupling(loss: Loss, batches: Sequence[Batch], rounding: float = ROUNDING) -> Coupling:
    """Every sequence alone against the same in its batch; and one sequence's inputs changed, one by one."""
    rng, batch = np.random.default_rng(4), batches[0]
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
    single = _largest((moved - factor * plain)[others]) <= rounding * size
    apart = {(i, n): gap for i, b in enumerate(batches) for n, gap in enumerate(_beyond_a_factor(loss, b).tolist())}
    worst = max(apart, key=lambda where: apart[where])
    return Coupling(by_input, apart[worst], worst, single and abs(factor - 1.0) > rounding, rounding)


def _beyond_a_factor(loss: Loss, batch: Batch) -> Array:
    """(N,), relative to the largest gradient among the sequences of the same length."""
    counted = batch.counted
    together = np.where(counted, loss.at(batch).ascent, 0.0)
    try:
        each = [loss.at(batch.rows(slice(i, i + 1))).ascent for i in range(len(counted))]
    except ValueError:
        return np.full(len(counted), np.inf)
    alone, gaps = np.where(counted, np.concatenate(each), 0.0), np.zeros(len(counted))
    for length in np.unique(batch.length):
        rows = batch.length[:, 0] == length
        ours, single = together[rows], alone[rows]
        factor = _multiple(ours, single)
        apart = np.abs(ours - factor * single).max(axis=1) / _size(ours)
        gaps[rows] = np.where(np.isfinite(apart), apart, np.inf) if factor > 0.0 else np.inf
    return gaps


def micro_batches(loss: Loss, ragged: Batch, equal: Batch, rounding: float = ROUNDING) -> MicroBatches:
    """Two halves against the whole, with ragged and with equal lengths."""
    from_mean, from_sum = _halves(loss, ragged)
    return MicroBatches(
        _rule(from_mean, from_sum, rounding), from_mean, from_sum, _rule(*_halves(loss, equal), rounding)
    )


def _halves(loss: Loss, batch: Batch) -> tuple[float, float]:
    half = len(batch.mask) // 2
    parts = [loss.at(batch.rows(slice(0, half))).ascent, loss.at(batch.rows(slice(half, 2 * half))).ascent]
    together, whole = np.concatenate(parts), loss.at(batch.rows(slice(0, 2 * half))).ascent
    size = _size(whole)
    return _largest(together / 2.0 - whole) / size, _largest(together - whole) / size


def _rule(from_mean: float, from_sum: float, rounding: float) -> str:
    return "mean" if from_mean <= rounding else "sum" if from_sum <= rounding else "neither"


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
