"""Policy losses as people write them: right ones, and the same with one mistake each."""

import torch


def _ratio(logp, old_logp):
    return torch.exp(logp - old_logp)


def reinforce(logp, advantages, mask):
    return -(advantages * logp * mask).sum()


def token_ratio(logp, rollout_logp, advantages, mask):
    return -(_ratio(logp, rollout_logp) * advantages * mask).sum() / len(mask)


def grpo_dual(logp, old_logp, advantages, mask, clip=0.2, dual=3.0):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    term = torch.where(advantages < 0, torch.maximum(term, dual * advantages), term)
    return -((term * mask).sum(1) / mask.sum(1)).mean()


def dapo(logp, old_logp, advantages, mask):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -(term * mask).sum() / mask.sum()


def dr_grpo(logp, old_logp, advantages, mask, longest=16):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    return -((term * mask).sum(1) / longest).mean()


def truncated(logp, rollout_logp, advantages, mask, cap=5.0):
    weight = _ratio(logp, rollout_logp).clamp(max=cap).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def truncated_old(logp, old_logp, advantages, mask):
    return truncated(logp, old_logp, advantages, mask, cap=1.1)


def icepop(logp, rollout_logp, advantages, mask, low=0.5, high=2.0):
    weight = _ratio(logp, rollout_logp).detach()
    weight = weight * ((weight >= low) & (weight <= high))
    return -(weight * advantages * logp * mask).sum()


def prefix(logp, old_logp, advantages, mask):
    weight = torch.exp(torch.cumsum((logp - old_logp) * mask, 1)).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def sequence(logp, old_logp, advantages, mask):
    weight = torch.exp(((logp - old_logp) * mask).sum(1, keepdim=True)).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def minpro(logp, old_logp, advantages, mask, clip=(0.8, 1.28)):
    log_ratio = torch.where(mask > 0, logp - old_logp, float("inf")).detach()
    weights, smallest = [], torch.full_like(logp[:, 0], float("inf"))
    for t in range(logp.shape[1]):
        own = torch.where(mask[:, t] > 0, log_ratio[:, t], 0.0)
        weights.append(torch.exp(own + torch.where(smallest.isinf(), 0.0, smallest)).clamp(*clip))
        smallest = torch.minimum(smallest, log_ratio[:, t])
    return -(torch.stack(weights, 1) * advantages * logp * mask).sum() / mask.sum()


def gspo(logp, old_logp, advantages, mask):
    ratio = torch.exp(((logp - old_logp) * mask).sum(1) / mask.sum(1).clamp(min=1))
    advantage = (advantages * mask).sum(1) / mask.sum(1).clamp(min=1)
    return -torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage).mean()


def decoupled(logp, old_logp, rollout_logp, advantages, mask, clip=0.2, cap=2.0):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -(_ratio(old_logp, rollout_logp).clamp(max=cap) * term * mask).sum(1).mean()


def self_normalised(logp, old_logp, advantages, mask):
    weight = torch.exp(((logp - old_logp) * mask).sum(1, keepdim=True)).detach()
    return -((weight / weight.sum()) * (advantages * logp * mask).sum(1, keepdim=True)).sum()


def whitened(logp, advantages, mask):
    """Advantages less the batch's mean."""
    mean = (advantages * mask).sum() / mask.sum()
    return -((advantages - mean) * logp * mask).sum(1).mean()


# Mistakes


def live_prefix_minimum(logp, old_logp, advantages, mask):
    """The running minimum keeps its gradient."""
    log_ratio = torch.where(mask > 0, logp - old_logp, float("inf"))
    first = torch.zeros_like(logp[:, :1])
    earlier = torch.cat([first, torch.cummin(log_ratio, 1).values[:, :-1]], 1)
    earlier = torch.where(earlier.isinf(), 0.0, earlier)
    weight = torch.exp(earlier + torch.where(mask > 0, log_ratio, 0.0))
    return -(weight * advantages * mask).sum(1).mean()


def live_prefix_weight(logp, old_logp, advantages, mask):
    weight = torch.exp(torch.cumsum((logp - old_logp) * mask, 1))
    return -(weight * advantages * logp * mask).sum(1).mean()


def mask_in_the_denominator_only(logp, old_logp, advantages, mask):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -term.sum() / mask.sum()


def no_mask(logp, old_logp, advantages):
    ratio = _ratio(logp, old_logp)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages).sum()


def padding_in_the_mean(logp, old_logp, advantages, mask):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -(term * mask).mean()


def sequence_with_padding(logp, old_logp, advantages, mask):
    weight = torch.exp((logp - old_logp).sum(1, keepdim=True)).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def averaged_sequence(logp, old_logp, advantages, mask):
    mean = ((logp - old_logp) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    return -(torch.exp(mean).detach() * advantages * logp * mask).sum(1).mean()


def swapped_ppo(logp, old_logp, advantages, mask):
    ratio = _ratio(old_logp, logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -(term * mask).sum() / mask.sum()


def swapped_truncated(logp, rollout_logp, advantages, mask, cap=5.0):
    weight = _ratio(rollout_logp, logp).clamp(max=cap).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def prefix_one_short(logp, old_logp, advantages, mask):
    """The product over j < t - 1 and the token's own ratio."""
    log_ratio = (logp - old_logp) * mask
    shifted = torch.cat([torch.zeros_like(logp[:, :2]), torch.cumsum(log_ratio, 1)[:, :-2]], 1)
    weight = torch.exp(shifted + log_ratio).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def prefix_own_token_twice(logp, old_logp, advantages, mask):
    log_ratio = (logp - old_logp) * mask
    weight = torch.exp(torch.cumsum(log_ratio, 1) + log_ratio).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def prefix_of_the_token_before(logp, old_logp, advantages, mask):
    log_ratio = (logp - old_logp) * mask
    weight = torch.exp(torch.cumsum(log_ratio, 1) - log_ratio).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def inclusive_minimum(logp, old_logp, advantages, mask):
    log_ratio = torch.where(mask > 0, logp - old_logp, float("inf")).detach()
    smallest = torch.cummin(log_ratio, 1).values
    weight = torch.exp(torch.where(mask > 0, smallest + log_ratio, 0.0))
    return -(weight * advantages * logp * mask).sum(1).mean()


def gradient_descent(logp, old_logp, advantages, mask):
    return -dapo(logp, old_logp, advantages, mask)


def detached(logp, old_logp, advantages, mask):
    return dapo(logp.detach(), old_logp, advantages, mask)


def root_of_the_length(logp, old_logp, advantages, mask):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -((term * mask).sum(1) / mask.sum(1).sqrt()).mean()


# No losses


def two_numbers(logp, advantages):
    return (logp * advantages).sum(1)


def a_float(logp, advantages):
    return float((logp.detach() * advantages).sum())


def needs_reference(logp, ref_logp):
    return (logp - ref_logp).sum()


def fails(logp):
    raise RuntimeError("no such thing")


def leaves(logp):
    raise SystemExit(0)


# What is not quite the same for every batch


def early_stop(logp, old_logp, advantages, mask):
    """Nothing where an estimate of the batch's KL is large."""
    kl = ((old_logp - logp) * mask).sum() / mask.sum()
    loss = dapo(logp, old_logp, advantages, mask)
    return loss if kl < 0.3 else 0 * loss


def largest_advantage_one(logp, advantages, mask):
    scaled = advantages / (advantages * mask).abs().max().clamp(min=1e-8)
    return -(scaled * logp * mask).sum(1).mean()


def without_the_largest_ratio(logp, old_logp, advantages, mask):
    weight = ((logp - old_logp) * mask).sum(1).detach()
    keep = torch.ones_like(weight)
    if len(weight) > 1:
        keep[weight.argmax()] = 0
    return -(keep[:, None] * _ratio(logp, old_logp) * advantages * mask).sum() / mask.sum()


def dropping(logp, old_logp, advantages, mask):
    return -(torch.nn.functional.dropout(_ratio(logp, old_logp), 0.1) * advantages * mask).sum(1).mean()


def talks(logp, advantages, mask):
    print("step loss")
    return reinforce(logp, advantages, mask)


class _Settings:
    clip = 0.17


def configured(logp, old_logp, advantages, mask, settings=_Settings):
    ratio = _ratio(logp, old_logp)
    low, high = 1 - settings.clip, 1 + settings.clip
    return -(torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages) * mask).sum() / mask.sum()


def configured_and_swapped(logp, old_logp, advantages, mask):
    return configured(-logp, -old_logp, advantages, mask)


# More mistakes


def mask_without_effect(logp, old_logp, advantages, mask):
    return no_mask(logp, old_logp, advantages)


def inverted_mask(logp, old_logp, advantages, mask):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -(term * (1 - mask)).sum() / (1 - mask).sum().clamp(min=1)


def mask_one_early(logp, old_logp, advantages, mask):
    return dapo(logp, old_logp, advantages, torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1) * mask)


def mask_after_the_sum(logp, old_logp, advantages, mask):
    weight = torch.exp(torch.cumsum(logp - old_logp, 1)).detach()
    return -(weight * advantages * logp * mask).sum(1).mean()


def max_for_min(logp, old_logp, advantages, mask):
    ratio = _ratio(logp, old_logp)
    term = torch.maximum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -(term * mask).sum() / mask.sum()


def without_sign(logp, old_logp, advantages, mask):
    return dapo(logp, old_logp, advantages.abs(), mask)


def without_advantages(logp, old_logp, advantages, mask):
    return dapo(logp, old_logp, torch.ones_like(advantages), mask)


def late_advantages(logp, old_logp, advantages, mask):
    late = torch.cat([torch.zeros_like(advantages[:, :1]), advantages[:, :-1]], 1)
    return -(_ratio(logp, old_logp) * late * mask).sum() / mask.sum()


def swapped_engines(logp, old_logp, rollout_logp, advantages, mask):
    return decoupled(logp, old_logp, 2 * old_logp - rollout_logp, advantages, mask)


def swapped_update(logp, old_logp, rollout_logp, advantages, mask):
    ratio = _ratio(old_logp, logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    return -(_ratio(old_logp, rollout_logp).clamp(max=2.0) * term * mask).sum(1).mean()


def live_engines(logp, old_logp, rollout_logp, advantages, mask):
    ratio = _ratio(logp, old_logp)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    return -(_ratio(logp, rollout_logp).clamp(max=2.0) * term * mask).sum() / mask.sum()


def squared_length(logp, old_logp, advantages, mask):
    ratio, length = _ratio(logp, old_logp), mask.sum(1)
    term = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    return -((term * mask).sum(1) / length / length).mean()


def value_not_finite(logp, advantages, mask):
    return reinforce(logp, advantages, mask) + float("nan")
