"""Named weights with one mistake made in the code of a loss, so that the mistake can be recognised by its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from numpy.typing import NDArray

import theory
from testbed.auditing.batch import Array, Batch
from testbed.auditing.loss import import_torch
from testbed.auditing.matching import Candidate, Gradient, coefficients
from testbed.auditing.observing import ANCHORS
from theory.weights.tokens import Tokens

Index = NDArray[np.int64]


def swapped(candidate: Candidate, batch: Batch) -> Array:
    """The weight of mu / pi in the place of pi / mu."""
    logp = batch.logp
    return _of(candidate, batch, 2.0 * logp - batch.old_logp, 2.0 * logp - batch.rollout_logp)


def swapped_update(candidate: Candidate, batch: Batch) -> Array:
    """pi_old / pi in the place of pi / pi_old, beside pi_old / mu as it is."""
    old = 2.0 * batch.logp - batch.old_logp
    return _of(candidate, batch, old, old - batch.old_logp + batch.rollout_logp)


def swapped_engines(candidate: Candidate, batch: Batch) -> Array:
    """mu / pi_old in the place of pi_old / mu, beside pi / pi_old as it is."""
    return _of(candidate, batch, batch.old_logp, 2.0 * batch.old_logp - batch.rollout_logp)


def max_for_min(candidate: Candidate, batch: Batch) -> Array:
    """max(r A, clip(r) A) = -min(r (-A), clip(r) (-A)): each sign of the advantage gets the weight of the other."""
    other = batch._replace(advantages=-batch.advantages)
    return coefficients(candidate.weight, ANCHORS[candidate.anchor](batch), other) * batch.advantages


def live_beside_surrogate(candidate: Candidate, batch: Batch) -> Array:
    """sum of S_t w_t, PPO's surrogate times a weight of pi / mu with its history kept."""
    update, beside = (theory.weight(candidate.weight.options[name]) for name in ("update", "behaviour"))
    if update.name != "ppo_clip":
        return np.full_like(batch.logp, np.nan)
    (low, high), dual = update.options["clip"], update.options["dual"]
    ratio, a = np.exp(batch.logp - batch.old_logp), batch.advantages
    surrogate = np.where(a > 0.0, np.minimum(ratio, high), np.minimum(np.maximum(ratio, low), dual or np.inf)) * a
    of_mu = Candidate(beside, "rollout_logp")
    through = _autograd(of_mu, batch, lambda w, logp, advantages: (w * surrogate_of(w, surrogate)).sum())
    held = coefficients(beside, ANCHORS["rollout_logp"](batch), batch)
    return through + held * coefficients(update, ANCHORS["old_logp"](batch), batch) * a


def surrogate_of(like: Any, surrogate: Array) -> Any:
    """A constant in the array library of another array."""
    return array_api_compat.array_namespace(like).asarray(surrogate)


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
    policies: str = "any"
    """Weights of how many policies it can happen to: "any", "two" or "three"."""

    def can_happen(self, weight: theory.Weight) -> bool:
        """Whether it changes this weight."""
        if self.gradient is max_for_min and not weight.uses_advantage:
            return False
        three = "old_log_ratio" in weight.needs
        # Of the many products of two weights those that begin with what is in use.
        if three and theory.weight(weight.options["update"]).name not in ("ppo_clip", "token"):
            return False
        return self.policies == "any" or three == (self.policies == "three")


MISTAKES = (
    Mistake("swapped_ratio", "the ratio is upside down, mu / pi instead of pi / mu", swapped),
    Mistake("swapped_ratio", "the ratio between engines is upside down, mu / pi_old instead of pi_old / mu",
            swapped_engines, policies="three"),
    Mistake("swapped_ratio", "the ratio of the update is upside down, pi_old / pi instead of pi / pi_old",
            swapped_update, policies="three"),
    Mistake("max_for_min", "the larger surrogate is taken where the smaller is meant", max_for_min),
    Mistake("off_by_one_prefix", "the prefix misses the last token before each one", shorter_prefix, policies="two"),
    Mistake("off_by_one_prefix", "the prefix counts the token itself among the earlier ones", own_token_in_prefix,
            policies="two"),
    Mistake("off_by_one_prefix", "each token has the weight of the token before", weight_of_token_before,
            policies="two"),
    Mistake("missing_stop_gradient", "the weight that multiplies log pi has no stop-gradient", live_weight,
            True),
    Mistake("missing_stop_gradient", "gradient flows into earlier tokens through the weights of later ones",
            live_surrogate, policies="two"),
    Mistake("missing_stop_gradient", "the weight beside PPO's surrogate is one of pi / mu, without stop-gradient",
            live_beside_surrogate, policies="three"),
)  # fmt: skip


def _of(candidate: Candidate, batch: Batch, old: Array, rollout: Array) -> Array:
    """The gradient with other log-probabilities in the weight."""
    moved = batch._replace(
        old_logp=np.where(batch.counted, old, 0.0), rollout_logp=np.where(batch.counted, rollout, 0.0)
    )
    return coefficients(candidate.weight, ANCHORS[candidate.anchor](moved), moved) * batch.advantages


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
