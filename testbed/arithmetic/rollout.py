"""Answers sampled from a network, with the log-probabilities of what was really sampled from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from testbed.arithmetic.model import ModelConfig, decode_step, prefill
from testbed.arithmetic.sampling import Sampler, behaviour_parameters, checked_sampler, drawn_tokens, sampler_log_probs
from testbed.arithmetic.vocabulary import END, checked_prompts
from theory import checks

_NETWORK_ITSELF = Sampler()


@dataclass(frozen=True, eq=False)
class Rollout:
    """G answers to each of M prompts: N = M G rows, those of one prompt adjacent, of up to T tokens."""

    answers: Tensor
    """(N, T) int64 tokens, filled up with end tokens."""
    mask: Tensor
    """(N, T) bool, true up to and including the end token."""
    behaviour_log_probs: Tensor
    """(N, T) float64, log mu(a_t|s_t) in the distribution that was sampled from; 0 where masked."""
    policy_log_probs: Tensor | None
    """(N, T) float64, log pi(a_t|s_t) of the network itself, neither tempered nor truncated nor rounded; 0 where
    masked. None where the sampler rounds the weights: the network itself was not computed then."""


def roll_out(
    config: ModelConfig,
    theta: Tensor,
    prompts: Tensor,
    length: int,
    *,
    per_prompt: int = 1,
    sampler: Sampler = _NETWORK_ITSELF,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Sample answers as `testbed.arithmetic.sample_answers` does, also from a policy that is not a number.

    The log-probabilities are NaN then, and the answers mean nothing: see `testbed.arithmetic.doors`.

    Raises:
        ValueError: what the other one raises, but for parameters and logits.
    """
    length = checks.whole_number("length", length, 1, "tokens")
    per_prompt = checks.whole_number("per_prompt", per_prompt, 1, "answers to each prompt")
    prompts = checked_prompts(prompts, config.vocabulary)
    greedy = checked_sampler(sampler).temperature == 0.0
    if not isinstance(generator, torch.Generator) and not (greedy and generator is None):
        raise ValueError(f"generator is {generator!r}; expected a torch.Generator, or none and temperature=0")
    N, device = len(prompts) * per_prompt, theta.device
    own = sampler != _NETWORK_ITSELF and sampler.weights is None
    tokens: list[Tensor] = []
    behaviour: list[Tensor] = []
    policy: list[Tensor] = []
    with torch.inference_mode():
        uniform = torch.zeros((N, length), dtype=torch.float64, device=device)
        if not greedy:
            uniform = torch.rand((N, length), dtype=torch.float64, device=device, generator=generator)
        running = torch.ones(N, dtype=torch.bool, device=device)
        logits, state = prefill(config, behaviour_parameters(sampler, theta), prompts, length - 1, per_prompt)
        for t in range(length):
            log_probs = sampler_log_probs(sampler, logits)
            token = torch.where(running, drawn_tokens(log_probs, uniform[:, t]), END)
            tokens.append(token[:, None])
            behaviour.append(log_probs.gather(1, token[:, None]))
            if own:
                policy.append(logits.double().log_softmax(-1).gather(1, token[:, None]))
            running = token != END
            if t == length - 1 or not bool(running.any()):
                break
            logits, state = decode_step(config, state, token)
    # Outside of inference mode, because what is made in it cannot enter a graph.
    answers = _filled(tokens, length, END)
    ends = answers == END
    mask = ends.cumsum(1) - ends.long() == 0
    sampled_from = torch.where(mask, _filled(behaviour, length, 0.0), 0.0)
    if sampler.weights is not None:
        return Rollout(answers, mask, sampled_from, None)
    network = torch.where(mask, _filled(policy, length, 0.0), 0.0) if own else sampled_from.clone()
    return Rollout(answers, mask, sampled_from, network)


def _filled(columns: list[Tensor], length: int, value: float) -> Tensor:
    """(N, length) of columns (N, 1), the missing ones at the end filled up."""
    return functional.pad(torch.cat(columns, 1), (0, length - len(columns)), value=value)
