"""The gradient that an estimator gives on sampled answers: its weight, signal, score and reduction, as tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import theory
from testbed.arithmetic.model import ModelConfig, answer_logits
from testbed.arithmetic.rollout import Rollout
from testbed.arithmetic.sampling import Sampler, behaviour_parameters, sampler_log_probs
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.training.signals import token_signals
from testbed.arithmetic.trees import tree_log_probs
from testbed.arithmetic.verifier import rewards

_NETWORK_ITSELF = Sampler()


class Behaviour(NamedTuple):
    """What sampled the answers, and the policy "old" between it and the one that is trained."""

    theta: Tensor
    """(P,)"""
    sampler: Sampler = _NETWORK_ITSELF
    lag: int = 0
    """Updates between it and the policy that is trained."""
    old_theta: Tensor | None = None
    """(P,); None where it is the policy that is trained."""


class BatchGradient(NamedTuple):
    """The estimator's gradient, averaged over the draws of a batch, and what its tokens were given."""

    gradient: Tensor
    """(P,) in the dtype of theta; AdamW ascends it."""
    outcome: Tensor
    """(N,) float64 rewards."""
    log_ratio: Tensor
    """(N, T) float64, log pi - log mu; 0 where masked."""
    coefficients: Tensor
    """(N, T) float64, c_t."""
    signal: Tensor
    """(N, T) float64, psi_t."""


def batch_gradient(
    config: ModelConfig,
    theta: Tensor,
    task: ArithmeticTask,
    estimator: theory.Estimator,
    prompts: Tensor,
    rollout: Rollout,
    behaviour: Behaviour,
    *,
    coupled: str = "draw",
) -> BatchGradient:
    """Average over the draws of a batch of sum over tokens of c_t psi_t score_t, reduced as the estimator says.

    NaN throughout where the policy is not a number at some sampled token. A draw is one answer, one group of answers to
    one prompt, or `reduction.batch` answers in a row.

    Args:
        config: sizes of the network.
        theta: (P,) of the policy that is trained.
        task: what is computed.
        estimator: weight x signal x score x reduction.
        prompts: (M, L) tokens.
        rollout: answers to the prompts, with the log-probabilities of what was sampled from.
        behaviour: what sampled them.
        coupled: whether a weight that couples a batch looks at each "draw" by itself, or at the whole "update".
    """
    leaf, mask = theta.detach().requires_grad_(), rollout.mask
    logits = answer_logits(config, leaf, prompts, rollout.answers).double()
    log_probs = logits.log_softmax(-1)
    log_prob = log_probs.gather(2, rollout.answers[..., None])[..., 0]
    with torch.no_grad():
        outcome = rewards(task, prompts.repeat_interleave(len(mask) // len(prompts), 0), rollout.answers)
        log_ratio = torch.where(mask, log_prob - rollout.behaviour_log_probs, 0.0)
        if not bool(torch.isfinite(log_ratio).all()):
            nothing = torch.full_like(log_ratio, torch.nan)
            return BatchGradient(torch.full_like(theta, torch.nan), outcome, nothing, nothing, nothing)
        psi = token_signals(
            estimator.signal, task, prompts, rollout.answers, mask, outcome,
            lambda: tree_log_probs(config, theta, task, prompts),
            lambda: tree_log_probs(config, behaviour.theta, task, prompts, behaviour.sampler),
        )  # fmt: skip
        given = {
            need: _needed(need, config, prompts, rollout, behaviour, log_probs, log_ratio)
            for need in estimator.weight.needs
        }
        per_draw = estimator.trajectories_per_draw
        together = len(mask) if coupled == "update" else per_draw
        c = estimator.weight.coefficients(log_ratio, mask, psi, batch=together, **given)
        # Where the signal is zero, a coefficient beyond float64 weighs nothing.
        weights = torch.where(psi == 0.0, 0.0, c * psi)
        if estimator.score == "cumulative":
            weights = weights.flip(1).cumsum(1).flip(1)
        weights = weights * _shares(mask, estimator.reduction.name, per_draw) * (per_draw / len(mask))
    (gradient,) = torch.autograd.grad((log_prob * torch.where(mask, weights, 0.0)).sum(), leaf)
    return BatchGradient(gradient, outcome, log_ratio, c, psi)


def _shares(mask: Tensor, reduction: str, per_draw: int) -> Tensor:
    """(N, 1) what the reduction multiplies each answer's sum over its tokens with, within a draw."""
    length = mask.sum(1, keepdim=True).double()
    if reduction == "token_mean":
        tokens = length.reshape(-1, per_draw).sum(1).clamp(min=1.0)
        return (1.0 / tokens).repeat_interleave(per_draw)[:, None]
    share = torch.full_like(length, 1.0 / per_draw)
    if reduction == "sum":
        return share
    return share / (length.clamp(min=1.0) if reduction == "length_mean" else mask.shape[1])


def _needed(
    need: str,
    config: ModelConfig,
    prompts: Tensor,
    rollout: Rollout,
    behaviour: Behaviour,
    log_probs: Tensor,
    log_ratio: Tensor,
) -> Tensor:
    """One of `theory.NEEDS` at every token, (N, T)."""
    chosen = rollout.answers[..., None]
    if need == "log_probability":
        return log_probs.gather(2, chosen)[..., 0]
    if need == "lag":
        return torch.full_like(log_ratio, float(behaviour.lag))
    if need == "state_ratio":
        # A prefix is reached by one way alone, so that the ratio of the state is that of the prefix.
        return (log_ratio.cumsum(1) - log_ratio).exp()
    if need == "old_log_ratio":
        if behaviour.old_theta is None:
            return log_ratio
        old = answer_logits(config, behaviour.old_theta, prompts, rollout.answers).double().log_softmax(-1)
        return torch.where(rollout.mask, old.gather(2, chosen)[..., 0] - rollout.behaviour_log_probs, 0.0)
    raw = answer_logits(config, behaviour_parameters(behaviour.sampler, behaviour.theta), prompts, rollout.answers)
    sampled = sampler_log_probs(behaviour.sampler, raw)
    if need == "total_variation":
        return 0.5 * (sampled.exp() - log_probs.exp()).abs().sum(-1)
    assert need == "kl"
    return torch.where(sampled == -torch.inf, 0.0, sampled.exp() * (sampled - log_probs)).sum(-1)
