"""Batches on which the bounds of every recipe bind, and the comparison of a preset with a library's own gradient."""

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """(N, T) each."""

    logp: torch.Tensor
    old_logp: torch.Tensor
    rollout_logp: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor


def batch_of(seed, spread=0.8):
    """Ragged sequences whose ratios reach from about 0.1 to 10, one of them without a token."""
    rng = torch.Generator().manual_seed(seed)
    shape = (6, 9)

    def normal(scale):
        return scale * torch.randn(shape, generator=rng, dtype=torch.float64)

    logp = -torch.rand(shape, generator=rng, dtype=torch.float64) * 3 - 0.05
    old_logp = (logp - normal(spread)).clamp(max=-0.01)
    rollout_logp = (old_logp - normal(spread)).clamp(max=-0.01)
    length = torch.tensor([9, 4, 1, 7, 0, 5])
    mask = (torch.arange(shape[1])[None] < length[:, None]).to(torch.float64)
    advantages = torch.randn((shape[0], 1), generator=rng, dtype=torch.float64).expand(shape).contiguous()
    return Batch(logp, old_logp, rollout_logp, advantages, mask)


def live_gradient(loss, batch):
    """d loss / d logp of a library's own code."""
    logp = batch.logp.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logp), logp)
    return gradient


def distance(preset, batch, theirs):
    """Largest difference of the gradients, relative to the library's largest entry."""
    ours = preset.loss_gradient(
        batch.logp, batch.advantages, batch.mask, old_logp=batch.old_logp, rollout_logp=batch.rollout_logp
    )
    return float((ours - theirs).abs().max() / theirs.abs().max())
