"""Sampling as users call it: a policy that is not a number is refused.

Behind these doors NaN passes on as NaN, because to a training run it is a finding: the run ends there, and says so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from testbed.arithmetic import rollout, sampling
from testbed.arithmetic.model import ModelConfig, finite
from testbed.arithmetic.rollout import Rollout
from testbed.arithmetic.sampling import Sampler

_NETWORK_ITSELF = Sampler()


def behaviour_log_probs(sampler: Sampler, logits: Tensor) -> Tensor:
    """(..., V) float64 log-probabilities of the distribution that is sampled from, given the logits (..., V).

    Tokens that cannot be sampled have -inf. Differentiable in the logits where temperature > 0 and nothing is rounded.
    The logits are those of `behaviour_parameters`.

    Raises:
        ValueError: logits that are NaN or +inf, or become so when the sampler rounds or tempers them; a row of -inf.

    >>> behaviour_log_probs(Sampler(top_k=2), torch.tensor([0.0, 2.0, 2.0])).exp()
    tensor([0.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    found = sampling.sampler_log_probs(sampling.checked_sampler(sampler), logits)
    if bool((found == found).all()):
        return found
    row = logits[found.isnan().any(-1)].reshape(-1, logits.shape[-1])[0]
    after = "" if bool(row.isnan().any() | row.isposinf().any()) else f" and not numbers as {sampler} has them"
    raise ValueError(f"logits are {row.tolist()}{after}; expected finite ones, or -inf for tokens that cannot be")


def chosen(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """(...) the token at which the cumulative probability (..., V) passes a uniform number (...) in [0, 1).

    Inverse transform sampling: one number per token, so that what is drawn for a row depends on that row alone. A token
    of probability zero is never chosen.

    Raises:
        ValueError: log-probabilities or numbers that are NaN, or numbers outside of [0, 1).

    >>> chosen(torch.tensor([0.2, 0.0, 0.8]).log().expand(2, 3), torch.tensor([0.1, 0.2])).tolist()
    [0, 2]
    """
    if bool(log_probs.isnan().any()):
        raise ValueError("log_probs contain NaN; expected log-probabilities, -inf for tokens that cannot be")
    if not bool(((uniform >= 0.0) & (uniform < 1.0)).all()):
        raise ValueError("uniform has a number outside of [0, 1); expected what torch.rand draws")
    return sampling.drawn_tokens(log_probs, uniform)


def sample_answers(
    config: ModelConfig,
    theta: Tensor,
    prompts: Tensor,
    length: int,
    *,
    per_prompt: int = 1,
    sampler: Sampler = _NETWORK_ITSELF,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Sample answers with a key-value cache.

    The random numbers are drawn first, row by row, so that an answer depends on the seed, its row and its prompt, and
    not on what the other prompts are.

    Args:
        config: sizes of the network.
        theta: (P,), not differentiated.
        prompts: (M, L) int64 tokens; (L,) for a single one.
        length: T, the most tokens of an answer, its end token included.
        per_prompt: G, answers to each prompt.
        sampler: how tokens are sampled.
        generator: on the device of theta; not needed at temperature 0.

    Raises:
        ValueError: no generator where one is needed, a length or `per_prompt` below 1, a length beyond the network's
            context, prompts that are no rows of its tokens, or a policy that is not a number: theta, or logits as the
            sampler has them.

    >>> from testbed.arithmetic import decode, encode, initial_parameters
    >>> config = ModelConfig(context=9)
    >>> drawn = sample_answers(
    ...     config, initial_parameters(config, 0), encode("07+35="), 4, per_prompt=3,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> [decode(answer) for answer in drawn.answers], drawn.mask.sum(1).tolist()  # the first has ended at once
    (['$$$$', '7714', '6152'], [1, 4, 4])
    """
    drawn = rollout.roll_out(
        config, finite("theta", theta), prompts, length, per_prompt=per_prompt, sampler=sampler, generator=generator
    )
    wrong = drawn.behaviour_log_probs.isnan().any(1)
    if not bool((~wrong).all()):
        row = int(wrong.nonzero()[0][0])
        raise ValueError(
            f"the policy is not a number where answer {row} is sampled with {sampler}; expected parameters, and a "
            "sampler, with finite logits"
        )
    return drawn
