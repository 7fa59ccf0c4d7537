"""Supervised warm-up: the base model that reinforcement learning starts from, right sometimes but not always."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from testbed.arithmetic.model import ModelConfig, answer_logits, finite, initial_parameters
from testbed.arithmetic.splitting import split
from testbed.arithmetic.task import ArithmeticTask, right_answers
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, END, checked_prompts
from theory import checks

LEARNT_BY_HEART = 1000
"""Prompts below which a task is learnt by heart."""
MOST_MEASURED = 20_000
"""Prompts of a side that the accuracy of a base model is measured on: a million take over a minute."""


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
        if not isinstance(self.accuracy, Real) or not 0.0 < self.accuracy < 1.0:
            raise ValueError(f"accuracy is {self.accuracy!r}; expected a number strictly between 0 and 1")
        checks.known_name("measured_on", self.measured_on, ("held_out", "training"))
        for name in ("steps", "batch", "warmup_steps", "check_every", "check_prompts", "seed"):
            least = 0 if name == "seed" else 1
            object.__setattr__(self, name, checks.whole_number(name, getattr(self, name), least, name))
        if not checks.non_negative("learning_rate", self.learning_rate):
            raise ValueError(f"learning_rate is {self.learning_rate!r}; expected a positive number")


def warm_up_for(task: ArithmeticTask) -> WarmUp:
    """Settings that bring a task's base model to 20 to 60 per cent of right answers, where a minute can.

    `WarmUp()` where the held-out prompts are reached. Of few prompts the held-out ones are not, and accuracy on the
    training prompts rises within a few updates. Products of two digits are learnt slowly: to 30 per cent of the
    training prompts, 20 of the held-out ones. Those of three digits end at half a per cent.

    >>> warm_up_for(ArithmeticTask()) == WarmUp()
    True
    >>> warm_up_for(ArithmeticTask(digits=1)).measured_on
    'training'
    """
    if task.operands**2 < LEARNT_BY_HEART:
        return WarmUp(measured_on="training", check_every=1)
    if task.operation == "multiplication":
        return WarmUp(0.3, "training", steps=4000) if task.digits == 2 else WarmUp(0.005)
    return WarmUp()


class Accuracy(NamedTuple):
    """Share of prompts answered right."""

    sampled: float
    """Expected at temperature 1: the mean probability of the right answer, exact."""
    greedy: float
    """With the likeliest token each time."""
    prompts: int
    """How many prompts."""


@dataclass(frozen=True, eq=False)
class BaseModel:
    """Where training starts."""

    config: ModelConfig
    theta: Tensor
    """(P,) float32."""
    held_out: Accuracy
    """On all held-out prompts, or 20,000 of them where there are more."""
    training: Accuracy
    """On all training prompts, or 20,000 of them."""
    steps: int
    """Updates that were made."""


def right_answer_log_probs(config: ModelConfig, theta: Tensor, prompts: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) log-probability of the right answers (M, T) to prompts (M, L), and whether each is the greedy one.

    NaN, and some truth value, where the policy is not a number.

    Raises:
        ValueError: what `answer_logits` raises.

    >>> from testbed.arithmetic import encode, initial_parameters, right_answers
    >>> config, prompts = ModelConfig(context=9), encode("07+35=")[None]
    >>> right = right_answers(ArithmeticTask(), prompts)
    >>> log_prob, greedy = right_answer_log_probs(config, initial_parameters(config, 0), prompts, right)
    >>> bool(log_prob < -3.0), greedy.tolist()
    (True, [False])
    """
    logits = answer_logits(config, theta, prompts, right)
    after = (right == END).cumsum(1) > 1
    token = logits.log_softmax(-1).gather(2, right[..., None])[..., 0]
    return token.masked_fill(after, 0.0).sum(1), ((logits.argmax(-1) == right) | after).all(1)


def accuracy(
    task: ArithmeticTask, config: ModelConfig, theta: Tensor, prompts: Tensor, *, chunk: int = 1024
) -> Accuracy:
    """Exact accuracy on prompts (M, L), `chunk` of them at a time.

    Raises:
        ValueError: no prompt, prompts of another task, a network that writes others than the 11 tokens of an answer, or
            one that is not a number.

    >>> from testbed.arithmetic import all_prompts, initial_parameters
    >>> config, task = ModelConfig(context=9), ArithmeticTask()
    >>> found = accuracy(task, config, initial_parameters(config, 0), all_prompts(task)[::100])
    >>> found.sampled < 0.01, found.prompts
    (True, 100)
    """
    _check_outputs(config)
    prompts = checked_prompts(prompts, config.vocabulary)
    chunk = checks.whole_number("chunk", chunk, 1, "prompts")
    found = _accuracy(task, config, finite("theta", theta), prompts, chunk)
    if math.isnan(found.sampled):
        raise ValueError("the policy is not a number at some right answer; expected finite logits")
    return found


def _check_outputs(config: ModelConfig) -> None:
    if config.outputs != ANSWER_TOKENS:
        raise ValueError(f"outputs is {config.outputs}; expected {ANSWER_TOKENS}, the digits and the end token")


def _accuracy(task: ArithmeticTask, config: ModelConfig, theta: Tensor, prompts: Tensor, chunk: int = 1024) -> Accuracy:
    sampled = greedy = 0.0
    with torch.no_grad():
        for some in prompts.split(chunk):
            right = right_answers(task, some)
            log_prob, best = right_answer_log_probs(config, theta, some, right)
            sampled += float(log_prob.double().exp().sum())
            greedy += float(best.sum())
    return Accuracy(sampled / len(prompts), greedy / len(prompts), len(prompts))


def warm_up(task: ArithmeticTask, config: ModelConfig, settings: WarmUp = WarmUp()) -> BaseModel:
    """Train a network from random parameters; deterministic from the seed, on one machine with one thread.

    Raises:
        ValueError: the accuracy is not reached, the network ceases to be a number, or it does not fit the task.

    >>> task = ArithmeticTask("modular_addition", digits=1, modulus=3)
    >>> config = ModelConfig(context=5, layers=1, width=16)
    >>> base = warm_up(task, config, WarmUp(accuracy=0.3, measured_on="training", check_every=1))
    >>> 0.3 <= base.training.sampled < 0.6
    True
    """
    _check_outputs(config)
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
            reached = _accuracy(task, config, theta, looked_at).sampled
            if math.isnan(reached):
                raise ValueError(
                    f"the network is not a number after {step} steps of warm-up with learning_rate="
                    f"{settings.learning_rate:g}; expected a smaller one"
                )
            if reached >= settings.accuracy:
                found = theta.detach().clone()
                held_out, training = (_accuracy(task, config, found, _some(p)) for p in (sides.held_out, prompts))
                return BaseModel(config, found, held_out, training, step)
    raise ValueError(
        f"accuracy of {task} on {settings.measured_on} prompts is {reached:.3g} after {settings.steps} steps of "
        f"warm-up; expected to reach {settings.accuracy:g}: more steps, or a lower accuracy, or measured_on='training'"
    )


def _some(prompts: Tensor) -> Tensor:
    """All prompts where they are few, else the same random ones each time."""
    if len(prompts) <= MOST_MEASURED:
        return prompts
    return prompts[torch.randperm(len(prompts), generator=torch.Generator().manual_seed(0))[:MOST_MEASURED]]
