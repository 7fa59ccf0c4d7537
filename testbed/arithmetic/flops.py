"""How much arithmetic a training step is: the floor under its time."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.arithmetic.model import ModelConfig, together
from theory import checks


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations of all matrix products of a step; a multiplication and an addition count as two.

    Elementwise work, the softmax and the optimiser (a few operations per parameter) are left out.
    """

    rollout: int
    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Of the whole step."""
        return self.rollout + self.forward + self.backward


def flop_count(config: ModelConfig, batch: int, prompt: int, answer: int, per_prompt: int = 1) -> FlopCount:
    """Operations of one step: sampling, log-probabilities of what was sampled, and their gradient.

    As `answer_logits` and `decode_step` do it: up to 8 answers to a prompt share a sequence, in which scores of rows
    that do not see each other are computed too; answers are decoded to their full length. The backward pass is twice
    the forward pass: one product for the inputs and one for the weights.

    Args:
        config: sizes of the network.
        batch: N, answers.
        prompt: L, tokens of a prompt.
        answer: T, tokens of an answer.
        per_prompt: G, answers to each prompt; divides N.

    Raises:
        ValueError: a count below 1, or answers that `per_prompt` does not divide.

    >>> from testbed.arithmetic.model import ModelConfig
    >>> flop_count(ModelConfig(context=9), batch=64, prompt=6, answer=4, per_prompt=8).total
    190459904
    """
    for name, value in {"batch": batch, "prompt": prompt, "answer": answer, "per_prompt": per_prompt}.items():
        checks.whole_number(name, value, 1, name)
    if batch % per_prompt:
        raise ValueError(f"batch is {batch} with per_prompt={per_prompt}; expected a multiple of it")
    g, head = together(per_prompt), 2 * config.width * config.outputs
    prompts, sequences, answered = batch // per_prompt, batch // g, g * (answer - 1)
    read = prompts * (_layers(config, prompt, 1) + head)
    decoded = sum(_block(config, g, g, prompt + g * t) for t in range(1, answer)) * config.layers + answered * head
    forward = sequences * (_layers(config, prompt + answered, 1 + answered) + (1 + answered) * head)
    return FlopCount(read + sequences * decoded, forward, 2 * forward)


def _layers(config: ModelConfig, rows: int, wanted: int) -> int:
    """All layers of one sequence; after the last one's keys and values only the wanted rows go on."""
    return (config.layers - 1) * _block(config, rows, rows, rows) + _block(config, rows, wanted, rows)


def _block(config: ModelConfig, rows: int, wanted: int, seen: int) -> int:
    """One layer: queries, keys and values of all rows, the rest of the wanted ones with `seen` rows to attend to."""
    w = config.width
    return rows * 6 * w * w + wanted * (2 * w * w + 4 * config.expansion * w * w + 4 * w * seen)
