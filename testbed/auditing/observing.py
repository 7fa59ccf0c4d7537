"""A loss's gradient on the probe batches: what named estimators are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import theory
from testbed.auditing.batch import Array, Batch
from testbed.auditing.loss import Loss

EQUAL = 1e-8
"""Relative difference of coefficients up to which a loss equals a named estimator."""
SINGLE = 1e-5
"""The same for a loss that computes in float32, or adds a small number to a denominator."""
ANCHORS = {
    "old_logp": lambda b: b.logp - b.old_logp,
    "rollout_logp": lambda b: b.logp - b.rollout_logp,
    "old_logp over rollout_logp": lambda b: b.old_logp - b.rollout_logp,
}
"""What the log-ratio is."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A loss's gradient on the probe batches, at the tokens that count."""

    loss: Loss
    batches: tuple[Batch, ...]
    ascents: tuple[Array, ...]
    tolerance: float = EQUAL
    """Relative difference up to which coefficients are the same."""
    finite_value: bool = True
    """Whether the loss itself is finite."""
    masked_only: bool = False
    """Whether there is a gradient at masked tokens and nowhere else."""

    @property
    def single(self) -> bool:
        """Whether every gradient is a number of single precision."""
        return not self.silent and all((a.astype(np.float32) == a).all() for a in self.ascents)

    @property
    def silent(self) -> bool:
        """Whether there is no gradient anywhere."""
        return not any(a.any() for a in self.ascents)

    def without_holes(self) -> Evidence:
        """The probes whose masked tokens all come last."""
        chosen = [i for i, batch in enumerate(self.batches) if (np.diff(batch.mask, axis=1) <= 0.0).all()]
        return replace(
            self, batches=tuple(self.batches[i] for i in chosen), ascents=tuple(self.ascents[i] for i in chosen)
        )

    def anchors(self, weight: theory.Weight) -> tuple[str, ...]:
        """The ratios that a weight may look at in this loss."""
        if "old_log_ratio" in weight.needs:
            return ("rollout_logp",)
        own = self.loss.anchors or ("rollout_logp",)
        return (*own, "old_logp over rollout_logp") if len(own) == 2 else own


def evidence(loss: Loss, batches: Sequence[Batch], strict: bool = True) -> Evidence:
    """Evaluate a loss on the probes, where pi_old is mu unless the loss tells the two apart.

    Raises:
        ValueError: the gradient is not finite at a token that counts, and `strict`.
    """
    if len(loss.anchors) < 2:
        batches = [batch._replace(rollout_logp=batch.old_logp) for batch in batches]
    found = [loss.at(b) for b in batches]
    ascents = tuple(np.where(b.counted, f.ascent, 0.0) for b, f in zip(batches, found, strict=True))
    for batch, ascent in zip(batches, ascents, strict=True):
        for n, t in np.argwhere(~np.isfinite(ascent)) if strict else ():
            raise ValueError(
                f"the gradient of loss {loss.name!r} is {ascent[n, t]:g} at a token with logp {batch.logp[n, t]:.4g}, "
                f"old_logp {batch.old_logp[n, t]:.4g}, rollout_logp {batch.rollout_logp[n, t]:.4g} and advantage "
                f"{batch.advantages[n, t]:.4g}; expected a number"
            )
    masked_only = any(f.ascent.any() for f in found) and not any(a.any() for a in ascents)
    seen = Evidence(loss, tuple(batches), ascents, EQUAL, all(np.isfinite(f.value) for f in found), masked_only)
    return replace(seen, tolerance=SINGLE) if seen.single else seen
