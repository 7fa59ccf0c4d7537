"""Losses to audit, written as plainly as in a training loop: `testbed audit testbed.auditing.examples:cispo`."""

from __future__ import annotations

import torch
from torch import Tensor


def ppo_clip_token_mean(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, clip_low: float = 0.2, clip_high: float = 0.28
) -> Tensor:
    """PPO's clipped surrogate, averaged over the tokens of the batch, as in DAPO."""
    ratio = torch.exp(logp - old_logp)
    clipped = torch.clamp(ratio, 1.0 - clip_low, 1.0 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    return -(surrogate * mask).sum() / mask.sum()


def cispo(logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, cap: float = 3.0) -> Tensor:
    """Truncated token ratios as constants, times log pi."""
    weight = torch.exp(logp - old_logp).clamp(max=cap).detach()
    return -(weight * advantages * logp * mask).sum() / mask.sum()


def minpro(logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The smallest earlier ratio times the token's own, as a constant; mean over sequences."""
    log_ratio = ((logp - old_logp) * mask).detach()
    infinite = torch.full_like(log_ratio, float("inf"))
    earlier = torch.cat([infinite[:, :1], torch.where(mask != 0, log_ratio, infinite)[:, :-1]], dim=1)
    smallest = torch.cummin(earlier, dim=1).values
    weight = torch.exp(log_ratio + torch.where(smallest.isinf(), 0.0, smallest))
    return -(weight * advantages * logp * mask).sum() / len(mask)


def gspo(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, clip_low: float = 3e-4, clip_high: float = 4e-4
) -> Tensor:
    """PPO's clip on the geometric mean of a sequence's ratios; mean over sequences."""
    length = mask.sum(dim=1).clamp(min=1.0)
    ratio = torch.exp(((logp - old_logp) * mask).sum(dim=1) / length)
    advantage = (advantages * mask).sum(dim=1) / length
    clipped = torch.clamp(ratio, 1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def cispo_without_stop_gradient(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, cap: float = 3.0
) -> Tensor:
    """CISPO with a mistake: the weight is not detached."""
    weight = torch.exp(logp - old_logp).clamp(max=cap)
    return -(weight * advantages * logp * mask).sum() / mask.sum()
