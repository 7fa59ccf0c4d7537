"""TRL's GRPOTrainer on the work of one training step: a GPT-2 of the same size on the same prompts."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks.timing import Seconds, seconds_of

INSTALL = "make .venv-trl/.peer && .venv-trl/bin/python -m benchmarks training"


class TrainerTimes(NamedTuple):
    """Of one optimiser step."""

    step: Seconds
    rollout: Seconds
    """Generation and rewards, within the step."""


def installed() -> bool:
    """Whether TRL is importable here."""
    return find_spec("trl") is not None


def grpo_trainer(
    prompts: list[str], symbols: str, end: str, *, width: int, layers: int, heads: int, answer: int, per_prompt: int,
    batch: int, steps: int, folder: str,
) -> Any:  # fmt: skip
    """A GRPOTrainer on the processor that takes one optimiser step per rollout of `batch` answers.

    Args:
        prompts: texts of equal length.
        symbols: the vocabulary, one character each.
        end: the symbol that ends an answer.
        width: of the network.
        layers: of the network.
        heads: of the network.
        answer: the most tokens of an answer.
        per_prompt: answers to each prompt.
        batch: answers of a step.
        steps: optimiser steps.
        folder: where the trainer may write.
    """
    from datasets import Dataset
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=end))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=end, pad_token=end, bos_token=end, padding_side="left"
    )
    config = GPT2Config(
        vocab_size=len(symbols), n_positions=len(prompts[0]) + answer, n_embd=width, n_layer=layers, n_head=heads,
        n_inner=4 * width, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=vocabulary[end],
        eos_token_id=vocabulary[end], pad_token_id=vocabulary[end],
    )  # fmt: skip
    settings = GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], disable_tqdm=True,
        logging_strategy="no", save_strategy="no", max_steps=steps, per_device_train_batch_size=batch,
        gradient_accumulation_steps=1, steps_per_generation=1, num_generations=per_prompt, max_completion_length=answer,
        learning_rate=0.0,
    )  # fmt: skip
    return GRPOTrainer(
        model=GPT2LMHeadModel(config),
        reward_funcs=lambda completions, **_: [float(text.startswith("1")) for text in completions],
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )


def time_trainer(steps: int, **given: Any) -> TrainerTimes:
    """Time optimiser steps after three that are not counted; `given` is what `grpo_trainer` takes."""
    from transformers import TrainerCallback

    ended: list[tuple[float, float]] = []
    rollouts: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append((time.process_time(), time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        trainer = grpo_trainer(steps=steps + 4, folder=folder, **given)
        generate = trainer._generate_and_score_completions

        def timed(inputs: Any) -> Any:
            start, wall = time.process_time(), time.perf_counter()
            found = generate(inputs)
            rollouts.append((time.process_time() - start, time.perf_counter() - wall))
            return found

        trainer._generate_and_score_completions = timed
        trainer.add_callback(Clock())
        with redirect_stdout(sys.stderr):  # where its own report does not mix with ours
            trainer.train()
    between = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ended[3:])]
    return TrainerTimes(seconds_of(between), seconds_of(rollouts[4:]))
