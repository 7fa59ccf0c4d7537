"""Named weights with one mistake made in the code of a loss, so that the mistake can be recognised by its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from testbed.auditing.batch import Array, Batch
from testbed.auditing.loss import import_torch
from testbed.auditing.matching import ANCHORS, Candidate, Gradient, coefficients
from theory.weights.tokens import Tokens

Index = NDArray[np.int64]


def swapped(candidate: Candidate, batch: Batch) -> Array:
    """The weight of mu / pi in the place of pi / mu."""
    log_ratio = -ANCHORS[candidate.anchor](batch)
    return coefficients(candidate.weight, log_ratio, batch, sign=-1.0) * batch.advantages


def live_weight(candidate: Candidate, batch: Batch) -> Array:
    """sum of w_t A_t log pi_t without stop-gradient on w: the weight's own gradient is added."""
    return _autograd(candidate, batch, lambda w, logp, advantages: (w * advantages * logp).sum())


def live_surrogate(candidate: Candidate, batch: Batch) -> Array:
    """sum of w_t A_t with w as it depends on every log-probability: tokens get gradient through later weights."""
    return _autograd(candidate, batch, lambda w, logp, advantages: (w * advantages).sum())


def shorter_prefix(candidate: Candidate, batch: Batch) -> Array:
    """A prefix that misses the last token before this one."""
    return _by_prefix(candidate, batch, _without_last)


def own_token_in_prefix(candidate: Candidate, batch: Batch) -> Array:
    """A prefix that counts this token among the earlier ones."""
    return _by_prefix(candidate, batch, _with_own_twice)


def weight_of_token_before(candidate: Candidate, batch: Batch) -> Array:
    """The weight of the token before, 1 for the first."""
    return _by_prefix(candidate, batch, _before)


def _without_last(before: list[int], own: int) -> list[int]:
    return [*before[:-1], own]


def _with_own_twice(before: list[int], own: int) -> list[int]:
    return [*before, own, own]


def _before(before: list[int], own: int) -> list[int]:
    return before


class Mistake(NamedTuple):
    """A mistake and what it does to a loss."""

    finding: str
    words: str
    gradient: Gradient
    by_level: bool = False
    """Whether it makes the gradient depend on the level of log-probabilities at constant ratios."""


MISTAKES = (
    Mistake("swapped_ratio", "the ratio is upside down, mu / pi instead of pi / mu", swapped),
    Mistake("off_by_one_prefix", "the prefix misses the last token before each one", shorter_prefix),
    Mistake("off_by_one_prefix", "the prefix counts the token itself among the earlier ones", own_token_in_prefix),
    Mistake("off_by_one_prefix", "each token has the weight of the token before", weight_of_token_before),
    Mistake("missing_stop_gradient", "the weight that multiplies log pi has no stop-gradient", live_weight,
            True),
    Mistake("missing_stop_gradient", "gradient flows into earlier tokens through the weights of later ones",
            live_surrogate),
)  # fmt: skip


def _by_prefix(candidate: Candidate, batch: Batch, made: Callable[[list[int], int], list[int]]) -> Array:
    """c of each token as the last coefficient of a sequence made of tokens up to it; 1 where that is empty."""
    where, index, mask = _sequences(batch.mask.tobytes(), batch.mask.shape, made)
    parts = Batch(*(np.where(mask != 0.0, array[index[0], index[1]], 0.0) for array in batch))._replace(mask=mask)
    c = coefficients(candidate.weight, ANCHORS[candidate.anchor](parts), parts)
    last = mask.sum(axis=1).astype(np.int64) - 1
    result = np.zeros(batch.mask.shape)
    result[where[0], where[1]] = np.where(last >= 0, c[np.arange(len(c)), np.maximum(last, 0)], 1.0)
    return result * batch.advantages


@lru_cache(maxsize=32)
def _sequences(
    mask: bytes, shape: tuple[int, int], made: Callable[[list[int], int], list[int]]
) -> tuple[Index, Index, Array]:
    """Which token each sequence is for (2, M), the tokens it is made of (2, M, T + 1), and their mask."""
    counted = np.frombuffer(mask).reshape(shape) != 0.0
    where: list[tuple[int, int]] = []
    index = np.zeros((2, int(counted.sum()), shape[1] + 1), dtype=np.int64)
    filled = np.zeros(index.shape[1:])
    for i in range(shape[0]):
        tokens = np.flatnonzero(counted[i]).tolist()
        for k, t in enumerate(tokens):
            for column, j in enumerate(made(tokens[:k], t)):
                index[:, len(where), column] = i, j
                filled[len(where), column] = 1.0
            where.append((i, t))
    return np.array(where, dtype=np.int64).T, index, filled


def _autograd(candidate: Candidate, batch: Batch, surrogate: Callable[[Any, Any, Any], Any]) -> Array:
    """Gradient in logp of a surrogate whose weight is the registry's function with its history kept."""
    torch = import_torch()
    logp = torch.as_tensor(batch.logp.copy()).requires_grad_(True)
    live = batch._replace(**{name: torch.as_tensor(getattr(batch, name).copy()) for name in batch._fields})._replace(
        logp=logp
    )
    log_ratio = ANCHORS[candidate.anchor](live)
    if not log_ratio.requires_grad:
        return np.zeros_like(batch.logp)
    mask, zeros = live.mask != 0, torch.zeros_like(live.mask)
    beside: Mapping[str, Any] = {"log_probability": logp, "old_log_ratio": live.old_logp - live.rollout_logp}
    given = {need: torch.where(mask, beside[need], zeros) for need in candidate.weight.needs}
    xp = array_api_compat.array_namespace(log_ratio)
    tokens = Tokens(xp, torch.where(mask, log_ratio, zeros), mask, live.advantages, given, len(batch.mask))
    weight = candidate.weight.family.function(tokens, **candidate.weight.options)
    value = surrogate(torch.where(mask, weight, zeros), logp, live.advantages)
    if not value.requires_grad:
        return np.zeros_like(batch.logp)
    (gradient,) = torch.autograd.grad(value, logp)
    return np.asarray(gradient.numpy())
