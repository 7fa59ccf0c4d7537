"""What a loss makes of extreme inputs: finite or not, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from testbed.auditing.batch import Batch
from testbed.auditing.loss import Loss


@dataclass(frozen=True, eq=False)
class Case:
    """One extreme input and what came of it."""

    name: str
    loss_finite: bool
    gradient_finite: bool
    sequence: int | None
    """Of the first token whose gradient is not finite; None where all are."""
    token: int | None
    error: str = ""
    """What the loss raised, where it did."""
    log_ratio: float = 0.0
    """The largest log-ratio of the input."""
    batch: Batch = field(default_factory=lambda: _plain(), repr=False)
    """The input."""
    dtype: str = "float64"
    """Of the tensors."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are finite."""
        return self.loss_finite and self.gradient_finite and not self.error

    @property
    def outcome(self) -> str:
        """In words."""
        if self.error:
            return self.error
        if self.finite:
            return "finite"
        what = [name for name, fine in (("loss", self.loss_finite), ("gradient", self.gradient_finite)) if not fine]
        where = "" if self.sequence is None else f" (first at sequence {self.sequence}, token {self.token})"
        return f"{' and '.join(what)} not finite{where}"


def robustness(loss: Loss) -> tuple[Case, ...]:
    """Every extreme input, evaluated."""
    return tuple(_case(loss, name, batch, dtype) for name, batch, dtype in _inputs())


def _case(loss: Loss, name: str, batch: Batch, dtype: str) -> Case:
    ratios = np.where(batch.counted, batch.logp - np.minimum(batch.old_logp, batch.rollout_logp), 0.0)
    try:
        with np.errstate(all="ignore"):
            found = loss.at(batch, dtype)
    except ValueError as why:
        return Case(name, False, False, None, None, str(why), float(ratios.max()), batch, dtype)
    bad = np.argwhere(~np.isfinite(found.ascent))
    where: tuple[int | None, int | None] = (int(bad[0][0]), int(bad[0][1])) if len(bad) else (None, None)
    return Case(
        name, bool(np.isfinite(found.value)), not len(bad), where[0], where[1], "", float(ratios.max()), batch, dtype
    )


def _inputs() -> Iterator[tuple[str, Batch, str]]:
    plain = _plain()
    for log_ratio, dtype in ((100.0, "float32"), (-100.0, "float64"), (800.0, "float64"), (-800.0, "float64")):
        at = " in float32" if dtype == "float32" else ""
        yield f"one log-ratio of {log_ratio:+g}{at}, A > 0", _extreme(plain, log_ratio, 1.0), dtype
        yield f"one log-ratio of {log_ratio:+g}{at}, A < 0", _extreme(plain, log_ratio, -1.0), dtype
    yield "one log-ratio of +800, A = 0", _extreme(plain, 800.0, 0.0), "float64"
    yield "one logp of -inf, A = 0", _extreme(plain, -np.inf, 0.0), "float64"
    yield "all advantages zero", plain._replace(advantages=np.zeros_like(plain.mask)), "float64"
    yield "one sequence all masked", _without(plain, [1]), "float64"
    yield "every sequence masked", _without(plain, [0, 1, 2]), "float64"
    yield "sequences of one token", Batch(*(np.ascontiguousarray(a[:, :1]) for a in plain)), "float64"
    yield "one sequence alone", plain.rows(slice(0, 1)), "float64"
    for value in (-800.0, -np.inf):
        masked = plain.counted
        filled = plain._replace(logp=np.where(masked, plain.logp, value))
        yield f"logp of {value:+g} at masked tokens", filled, "float64"


def _plain() -> Batch:
    """Three sequences of four, three and two tokens, ratios near one."""
    rng = np.random.default_rng(5)
    mask = (np.arange(4) < np.array([[4], [3], [2]])).astype(float)
    logp, old, rollout = (mask * (-1.0 + 0.1 * rng.standard_normal(mask.shape)) for _ in range(3))
    return Batch(logp, old, rollout, mask * np.array([[1.0], [-0.7], [0.5]]), mask)


def _extreme(plain: Batch, log_ratio: float, sign: float) -> Batch:
    """The second token of the first sequence with this log-ratio, where the sequence's advantage is `sign`."""
    logp, old, rollout, advantages = (a.copy() for a in plain[:4])
    if log_ratio > 0.0:
        old[0, 1] = rollout[0, 1] = logp[0, 1] - log_ratio
    else:
        logp[0, 1] = old[0, 1] + log_ratio
    advantages[0] = sign * plain.mask[0]
    return Batch(logp, old, rollout, advantages, plain.mask)


def _without(plain: Batch, rows: list[int]) -> Batch:
    mask = plain.mask.copy()
    mask[rows] = 0.0
    return plain._replace(mask=mask)
