"""Supervised warm-up: the base model that reinforcement learning starts from, right sometimes but not always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from testbed.arithmetic.model import ModelConfig, answer_logits, initial_parameters
from testbed.arithmetic.splitting import split
from testbed.arithmetic.task import ArithmeticTask, right_answers
from testbed.arithmetic.vocabulary import END
from theory import checks


@dataclass(frozen=True)
class WarmUp:
    """Settings of the warm-up: AdamW on the log-likelihood of right answers until an accuracy is reached.

    Raises:
        ValueError: a setting without meaning.
    """

    accuracy: float = 0.4
    """Expected share of right answers sampled at temperature 1 at which it stops."""
    measured_on: str = "held_out"
    """"held_out" or "training" prompts. Tasks of one digit are learnt by heart and do not reach the held-out ones."""
    steps: int = 2000
    """The most updates; not to reach the accuracy by then is an error."""
    batch: int = 128
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    """Updates over which the learning rate grows linearly."""
    check_every: int = 5
    """Updates between two looks at the accuracy, which rises steeply once carries are understood."""
    check_prompts: int = 256
    """Prompts that a look takes, the same ones each time."""
    seed: int = 0
    """Of the initial parameters and of the batches."""

    def __post_init__(self) -> None:
        """Check every setting."""
        if not 0.0 < self.accuracy < 1.0:
            raise ValueError(f"accuracy is {self.accuracy!r}; expected a number strictly between 0 and 1")
        checks.known_name("measured_on", self.measured_on, ("held_out", "training"))
        for name in ("steps", "batch", "warmup_steps", "check_every", "check_prompts"):
            checks.whole_number(name, getattr(self, name), 1, name)
        checks.non_negative("learning_rate", self.learning_rate)


class Accuracy(NamedTuple):
    """Share of prompts answered right."""

    sampled: float
    """Expected at temperature 1: the mean probability of the right answer, exact."""
    greedy: float
    """With the likeliest token each time."""


@dataclass(frozen=True, eq=False)
class BaseModel:
    """Where training starts."""

    config: ModelConfig
    theta: Tensor
    """(P,) float32."""
    held_out: Accuracy
    """On all held-out prompts."""
    training: Accuracy
    """On all training prompts."""
    steps: int
    """Updates that were made."""


def right_answer_log_probs(config: ModelConfig, theta: Tensor, prompts: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) log-probability of the right answers (M, T) to prompts (M, L), and whether each is the greedy one."""
    logits = answer_logits(config, theta, prompts, right)
    after = (right == END).cumsum(1) > 1
    token = logits.log_softmax(-1).gather(2, right[..., None])[..., 0]
    return token.masked_fill(after, 0.0).sum(1), ((logits.argmax(-1) == right) | after).all(1)


def accuracy(
    task: ArithmeticTask, config: ModelConfig, theta: Tensor, prompts: Tensor, *, chunk: int = 1024
) -> Accuracy:
    """Exact accuracy on prompts (M, L), `chunk` of them at a time."""
    sampled = greedy = 0.0
    with torch.no_grad():
        for some in prompts.split(chunk):
            right = right_answers(task, some)
            log_prob, best = right_answer_log_probs(config, theta, some, right)
            sampled += float(log_prob.double().exp().sum())
            greedy += float(best.sum())
    return Accuracy(sampled / len(prompts), greedy / len(prompts))


def warm_up(task: ArithmeticTask, config: ModelConfig, settings: WarmUp = WarmUp()) -> BaseModel:
    """Train a network from random parameters; deterministic from the seed, on one machine with one thread.

    Raises:
        ValueError: the accuracy is not reached, or the context does not fit the task.
    """
    sides = split(task)
    prompts, right = sides.training, right_answers(task, sides.training)
    generator = torch.Generator().manual_seed(settings.seed)
    measured = getattr(sides, settings.measured_on)
    looked_at = measured[torch.randperm(len(measured), generator=generator)[: settings.check_prompts]]
    theta = initial_parameters(config, settings.seed).requires_grad_()
    optimiser = torch.optim.AdamW([theta], lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    reached = 0.0
    for step in range(1, settings.steps + 1):
        optimiser.param_groups[0]["lr"] = settings.learning_rate * min(1.0, step / settings.warmup_steps)
        rows = torch.randint(len(prompts), (settings.batch,), generator=generator)
        loss = -right_answer_log_probs(config, theta, prompts[rows], right[rows])[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % settings.check_every == 0:
            reached = accuracy(task, config, theta, looked_at).sampled
            if reached >= settings.accuracy:
                found = theta.detach().clone()
                held_out, training = (accuracy(task, config, found, p) for p in (sides.held_out, prompts))
                return BaseModel(config, found, held_out, training, step)
    raise ValueError(
        f"accuracy of {task} on {settings.measured_on} prompts is {reached:.3g} after {settings.steps} steps of "
        f"warm-up; expected to reach {settings.accuracy:g}: more steps, or a lower accuracy, or measured_on='training'"
    )
