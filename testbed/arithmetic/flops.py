"""How much arithmetic a training step is: the floor under its time."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.arithmetic.model import ModelConfig


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

    Each prompt is computed once, its last layer only where it is read; answers are decoded to their full length. The
    backward pass is twice the forward pass: one product for the inputs and one for the weights.

    Args:
        config: sizes of the network.
        batch: N, answers.
        prompt: L, tokens of a prompt.
        answer: T, tokens of an answer.
        per_prompt: G, answers to each prompt; divides N.
    """
    prompts, w = batch // per_prompt, config.width
    head = 2 * w * config.outputs
    read = _block(config, prompts * prompt, prompts * prompt, prompt) * (config.layers - 1)
    read += _block(config, prompts * prompt, prompts, prompt) + prompts * head
    fed = batch * (answer - 1)
    decoded = sum(_block(config, batch, batch, prompt + t) for t in range(1, answer)) * config.layers + fed * head
    forward = read + _block(config, fed, fed, prompt + answer - 1) * config.layers + fed * head
    return FlopCount(read + decoded, forward, 2 * forward)


def _block(config: ModelConfig, rows: int, wanted: int, seen: int) -> int:
    """Of one layer: keys and values of all rows, the rest of the wanted ones, each of which attends to `seen` rows."""
    w = config.width
    return rows * 4 * w * w + wanted * (4 * w * w + 4 * config.expansion * w * w + 4 * w * seen)
