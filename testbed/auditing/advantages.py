"""What a loss does with advantages, and which tokens it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from testbed.auditing.batch import Array, Batch
from testbed.auditing.loss import Loss
from testbed.auditing.probes import token_advantages


@dataclass(frozen=True)
class AdvantageUse:
    """How the gradient depends on advantages."""

    matter: bool
    """Whether any change of them changes the gradient."""
    sign_matters: bool
    """Whether turning all signs changes the gradient where every ratio is 1."""
    from_neighbour: int
    """-1 where each token has the advantage of the token before and not its own, 1 of the one after; else 0."""
    left_out: int
    """Tokens that count and get no gradient, whatever their values, where every ratio is 1 and others of their sequence
    have one."""


def advantage_use(loss: Loss, ragged: Batch, full: Batch) -> AdvantageUse:
    """Change them and see; `full` has no masked tokens."""
    other = np.random.default_rng(9).uniform(1.2, 1.8, (len(ragged.mask), 1))
    on_policy = ragged.on_policy()
    return AdvantageUse(
        matter=_changes(loss, ragged, ragged._replace(advantages=ragged.advantages * other)),
        sign_matters=_changes(loss, on_policy, on_policy._replace(advantages=-ragged.advantages))
        or not loss.at(on_policy).ascent.any(),
        from_neighbour=_neighbour(loss, token_advantages(full).on_policy()),
        left_out=_left_out(loss, on_policy),
    )


def _changes(loss: Loss, batch: Batch, other: Batch) -> bool:
    return bool((loss.at(batch).ascent != loss.at(other).ascent).any())


def _neighbour(loss: Loss, batch: Batch) -> int:
    n, t = 0, batch.mask.shape[1] // 2
    changed = batch.advantages.copy()
    changed[n, t] *= 1.5
    moved = loss.at(batch).ascent != loss.at(batch._replace(advantages=changed)).ascent
    where = np.argwhere(moved).tolist()
    return {t + 1: -1, t - 1: 1}.get(where[0][1], 0) if len(where) == 1 and where[0][0] == n else 0


def _left_out(loss: Loss, batch: Batch) -> int:
    """Only where it is a matter of position: the same tokens with other log-probabilities."""
    rng = np.random.default_rng(10)
    other = batch._replace(logp=batch.logp * rng.uniform(0.5, 1.5, batch.mask.shape)).on_policy()
    one, two = (_without_gradient(loss.at(b).ascent, b) for b in (batch, other))
    return int(one.sum()) if (one == two).all() else 0


def _without_gradient(ascent: Array, batch: Batch) -> NDArray[np.bool_]:
    return np.asarray(batch.counted & (ascent == 0.0) & (ascent != 0.0).any(axis=1, keepdims=True))
