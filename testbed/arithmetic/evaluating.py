"""What a policy earns and how far it is from another one, exactly, on many prompts: a few trees at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from testbed.arithmetic.model import ModelConfig, finite
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.trees import (
    DIGITS,
    TreeDivergences,
    TreeValues,
    first_states,
    tree_divergences,
    tree_entropy,
    tree_log_probs,
    tree_rewards,
    tree_values,
)
from testbed.arithmetic.vocabulary import END, checked_prompts

Array = NDArray[np.float64]

# Prefixes that are evaluated together.
_PREFIXES = 5_000

_Found = TypeVar("_Found", TreeDivergences, TreeValues, "PromptEvaluations")


@dataclass(frozen=True, eq=False)
class PromptEvaluations:
    """What a policy earns on each prompt, exactly: (M,) float64 each, in the order of the prompts."""

    expected_reward: Array
    accuracy: Array
    """Probability of the right answer when one is sampled."""
    greedy_accuracy: Array
    """1 where the likeliest token at each step gives the right answer, else 0."""
    answer_entropy: Array
    """Nats of the whole answer; divided by `length`, per token."""
    length: Array
    """Expected number of tokens."""

    def pass_at(self, k: int) -> Array:
        """(M,) probability that one of k sampled answers is right, 1 - (1 - p)^k."""
        # A sum of probabilities may be one and a rounding.
        return np.asarray(-np.expm1(k * np.log1p(-np.minimum(self.accuracy, 1 - 1e-16))))


@dataclass(frozen=True)
class Evaluation:
    """What a policy earns, exactly, on average over prompts."""

    expected_reward: float
    accuracy: float
    """Probability of the right answer when one is sampled: pass@1."""
    greedy_accuracy: float
    """Share of prompts whose likeliest token at each step gives the right answer."""
    pass_at: dict[int, float]
    """k = 1..128 -> probability that one of k sampled answers is right, 1 - (1 - p)^k averaged over prompts."""
    entropy: float
    """Nats per token, under the policy itself."""
    length: float
    """Expected number of tokens, the end token included."""
    per_prompt: PromptEvaluations = field(repr=False, compare=False)
    """The same of each prompt by itself."""


def evaluate(
    config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompts: Tensor, sampler: Sampler | None = None
) -> Evaluation:
    """Exact expected reward, accuracy, pass@k for k = 1..128 and entropy on prompts (M, L).

    Sums over all answers in float64, of log-probabilities computed in the dtype of theta. A few prompts at a time, so
    that memory does not grow with their number.

    Raises:
        ValueError: no prompt, prompts of another task, a policy that is not a number, or answers so long that their
            tree has over 20,000 prefixes.

    >>> from testbed.arithmetic import encode, initial_parameters
    >>> config, task = ModelConfig(context=9), ArithmeticTask()
    >>> prompts = torch.stack([encode("07+35="), encode("50+50=")])
    >>> found = evaluate(config, initial_parameters(config, 0), task, prompts)
    >>> 0.0 < found.accuracy < found.pass_at[128] < 0.05  # of a network that has learnt nothing
    True
    >>> found.per_prompt.accuracy.shape
    (2,)
    """
    finite("theta", theta)
    p = _by_chunks(task, prompts, config, lambda some: _statistics(config, theta, task, some, sampler))
    return Evaluation(
        expected_reward=float(p.expected_reward.mean()),
        accuracy=float(p.accuracy.mean()),
        greedy_accuracy=float(p.greedy_accuracy.mean()),
        pass_at={k: float(np.mean(p.pass_at(k))) for k in range(1, 129)},
        entropy=float(p.answer_entropy.sum() / p.length.sum()),
        length=float(p.length.mean()),
        per_prompt=p,
    )


def network_values(
    config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompts: Tensor, *, sampler: Sampler | None = None
) -> TreeValues:
    """V, Q and A of a network's policy on the trees of prompts (M, L), as `tree_values` gives them; without gradients.

    Args:
        config: sizes of the network.
        theta: (P,); log-probabilities are computed in its dtype.
        task: which answers there are and what they earn.
        prompts: (M, L) tokens.
        sampler: what is made of the network's logits; by default nothing.

    Raises:
        ValueError: what `evaluate` raises.

    >>> from testbed.arithmetic import encode, initial_parameters
    >>> config, task = ModelConfig(context=9), ArithmeticTask()
    >>> found = network_values(config, initial_parameters(config, 0), task, encode("07+35="))
    >>> float(found.action[0, 11 + 42, 10]), found.state.shape  # the end token after 42
    (1.0, torch.Size([1, 1111]))
    """
    finite("theta", theta)

    def values(some: Tensor) -> TreeValues:
        return tree_values(task, tree_rewards(task, some), _log_probs(config, theta, task, some, sampler))

    return _by_chunks(task, prompts, config, values)


def network_divergences(
    config: ModelConfig,
    theta: Tensor,
    task: ArithmeticTask,
    prompts: Tensor,
    *,
    behaviour_theta: Tensor | None = None,
    sampler: Sampler | None = None,
) -> TreeDivergences:
    """How far a network is from what answers are sampled from: exact KL, ESS and lost mass of each prompt.

    As `tree_divergences` gives them, a few prompts at a time and without gradients.

    Args:
        config: sizes of the network.
        theta: (P,) of the policy; log-probabilities are computed in its dtype.
        task: which answers there are.
        prompts: (M, L) tokens.
        behaviour_theta: (P,) of the policy that is sampled from, computed in its own dtype; by default theta.
        sampler: what is made of its logits; by default nothing.

    Raises:
        ValueError: what `evaluate` raises.

    >>> from testbed.arithmetic import encode, initial_parameters
    >>> config, task = ModelConfig(context=9), ArithmeticTask()
    >>> theta = initial_parameters(config, 0)
    >>> apart = network_divergences(config, theta, task, encode("07+35="), sampler=Sampler(temperature=2.0))
    >>> bool(apart.kl_behaviour_policy > 0.01), bool(apart.lost_mass < 1e-12)
    (True, True)
    """
    finite("theta", theta)
    other = theta if behaviour_theta is None else finite("behaviour_theta", behaviour_theta)

    def divergences(some: Tensor) -> TreeDivergences:
        pi = _log_probs(config, theta, task, some, None)
        return tree_divergences(task, pi, _log_probs(config, other, task, some, sampler))

    return _by_chunks(task, prompts, config, divergences)


def _by_chunks(task: ArithmeticTask, prompts: Tensor, config: ModelConfig, found: Callable[[Tensor], _Found]) -> _Found:
    """What is found of some prompts at a time, put together along the axis of the prompts."""
    prompts = checked_prompts(prompts, config.vocabulary)
    with torch.no_grad():
        each = [found(some) for some in prompts.split(max(1, _PREFIXES // first_states(task)[-1]))]
    join = np.concatenate if isinstance(each[0], PromptEvaluations) else torch.cat
    return type(each[0])(*(join([getattr(part, f.name) for part in each]) for f in fields(each[0])))


def _log_probs(
    config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompts: Tensor, sampler: Sampler | None
) -> Tensor:
    """`tree_log_probs`, seen to be numbers."""
    found = tree_log_probs(config, theta, task, prompts, sampler)
    if not bool((found == found).all()):
        made = "" if sampler is None else f" as {sampler} has it"
        raise ValueError(f"the policy{made} is not a number after some prefix; expected finite logits")
    return found


def _statistics(
    config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompts: Tensor, sampler: Sampler | None
) -> PromptEvaluations:
    paid, log_probs = tree_rewards(task, prompts), _log_probs(config, theta, task, prompts, sampler)
    right = (paid == 1.0).double()
    state = torch.zeros_like(prompts[:, 0])
    row, greedy, going = torch.arange(len(prompts), device=state.device), right[:, 0, 0] * 0.0, state == 0
    for _ in range(task.maximum_length):
        token = log_probs[row, state].argmax(-1)
        greedy = greedy + going * right[row, state, token]
        going = going & (token != END)
        state = torch.where(going, DIGITS * state + 1 + token, 0).clamp(max=paid.shape[1] - 1)
    entropy, tokens = tree_entropy(task, log_probs)
    earned = tree_values(task, paid, log_probs).expected_reward
    known = tree_values(task, right, log_probs).expected_reward
    return PromptEvaluations(*(x.cpu().numpy() for x in (earned, known, greedy, entropy, tokens)))
