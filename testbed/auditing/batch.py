"""A batch of token sequences as a loss is given it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TENSORS = {
    "logp": "log pi(a_t|s_t) of the policy being trained; requires grad",
    "old_logp": "log pi_old(a_t|s_t), the policy at the start of the update",
    "rollout_logp": "log mu(a_t|s_t), the policy that generated the data",
    "advantages": "A_t",
    "mask": "1 where a token counts, 0 elsewhere",
}
"""The parameters of a loss that the audit fills, by name: each an (N, T) tensor of float64."""


class Batch(NamedTuple):
    """N sequences of up to T tokens, each array (N, T)."""

    logp: Array
    old_logp: Array
    rollout_logp: Array
    advantages: Array
    mask: Array
    """1 where a token counts, 0 elsewhere."""

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(N, T), true where a token counts."""
        return self.mask != 0.0

    @property
    def length(self) -> Array:
        """(N, 1), tokens that count in each sequence."""
        return self.mask.sum(axis=1, keepdims=True)

    def rows(self, which: slice | NDArray[np.int64]) -> Batch:
        """Some of the sequences."""
        return Batch(*(array[which] for array in self))

    def padded(self, columns: int) -> Batch:
        """The same sequences with masked columns of zeros to the right."""
        return Batch(*(np.pad(array, ((0, 0), (0, columns))) for array in self))

    def padded_left(self, columns: int) -> Batch:
        """The same sequences with masked columns of zeros to the left."""
        return Batch(*(np.pad(array, ((0, 0), (columns, 0))) for array in self))

    def on_policy(self) -> Batch:
        """The same sequences where the three policies are one: every ratio is 1."""
        return self._replace(old_logp=self.logp, rollout_logp=self.logp)

    def shifted(self, nats: float) -> Batch:
        """All log-probabilities of tokens that count moved by the same amount: every ratio stays what it was."""
        moved = np.where(self.counted, nats, 0.0)
        return self._replace(
            logp=self.logp + moved, old_logp=self.old_logp + moved, rollout_logp=self.rollout_logp + moved
        )
