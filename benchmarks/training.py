"""A training step of the tiny transformer, its parts, and TRL's GRPOTrainer on the same work. Needs PyTorch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import peer
from benchmarks.report import Row
from benchmarks.timing import Seconds, clock, matmul_rate, seconds_of
from testbed.arithmetic import (
    END,
    SYMBOLS,
    ArithmeticTask,
    FlopCount,
    Rollout,
    Training,
    WarmUp,
    decode,
    flop_count,
    initial_parameters,
    sample_answers,
    split,
    train,
)
from testbed.arithmetic.training import batch_gradient
from testbed.arithmetic.training.gradient import Behaviour
from testbed.arithmetic.training.measuring import of_update
from testbed.arithmetic.training.state import State, start

TASK = ArithmeticTask(slack=4)
"""Two digits: prompts of 6 tokens, answers of up to 8."""
STEP, RUNS, UPDATES = 0.020, 3.0, 1000
PARTS = ("rollout", "loss and its gradient", "log and AdamW")
_NAN = float("nan")


class Steps(NamedTuple):
    """Times of whole steps and of their parts."""

    whole: Seconds
    parts: tuple[Seconds, Seconds, Seconds]
    tokens: float
    """Sampled per step, end tokens included."""


def run(quick: bool) -> list[Row]:
    """The step, its parts, and whole runs with their exact evaluations."""
    with one_thread():
        settings = Training(TASK, learning_rate=0.0, tree_prompts=0)
        found = steps(settings, 3 if quick else 200)
        theirs = trainer_times(settings, 3 if quick else 60) if peer.installed() else None
        note = "TRL's GRPOTrainer" if theirs else f"TRL's GRPOTrainer, not timed: not installed here ({peer.INSTALL})"
        counted = flop_count(settings.config, 64, TASK.prompt_length, TASK.maximum_length, settings.answers)
        floors = floor(settings, counted)
        runs = [whole_runs(quick)]
    best, answers = found.whole.best, settings.prompts * settings.answers
    work = (
        f"{settings.prompts} prompts x {settings.answers} answers of up to {TASK.maximum_length} tokens, "
        f"{settings.layers} layers of width {settings.width}: {1 / best:,.0f} steps, {answers / best:,.0f} "
        f"completions and {found.tokens / best:,.0f} tokens per second"
    )
    rows = [
        Row(
            "training step", work, best, "s", STEP, seconds=found.whole,
            twin=theirs.step.best if theirs else _NAN, twin_note=note,
            floor=sum(floors), operations=float(counted.total),
        )
    ]  # fmt: skip
    twins = (theirs.rollout.best if theirs else _NAN, _NAN, _NAN)
    for name, part, twin, least in zip(PARTS, found.parts, twins, (*floors, _NAN), strict=True):
        rows.append(
            Row(f"its {name}", work, part.best, "s", _NAN, seconds=part, twin=twin, twin_note=note, floor=least)
        )
    return rows + runs


def steps(settings: Training, runs: int) -> Steps:
    """Time steps from random parameters, after three that are not counted.

    With a learning rate of zero they stay what they are, so that all steps are the same work: most answers are long.
    """
    state, clocks, tokens = start(settings, initial_parameters(settings.config, 0)), [], 0
    for _ in range(runs + 3):
        found, rollout = step(settings, state)
        clocks.append(found)
        tokens += int(rollout.mask.sum())

    def between(first: int, last: int) -> Seconds:
        return seconds_of([(c[last][0] - c[first][0], c[last][1] - c[first][1]) for c in clocks[3:]])

    return Steps(between(0, 3), (between(0, 1), between(1, 2), between(2, 3)), tokens / len(clocks))


def step(settings: Training, state: State) -> tuple[list[tuple[float, float]], Rollout]:
    """Sample, correct and ascend once: (processor time, wall clock) before and after each part; and the answers."""
    task, training, behaviour = settings.task, split(settings.task).training, Behaviour(state.leaf.detach())
    clocks = [_now()]
    prompts = training[torch.randint(len(training), (settings.prompts,), generator=state.prompt_generator)]
    rollout = sample_answers(
        settings.config, behaviour.theta, prompts, task.maximum_length, per_prompt=settings.answers,
        generator=state.answer_generator,
    )  # fmt: skip
    clocks.append(_now())
    made = batch_gradient(settings.config, state.leaf, task, settings.estimator, prompts, rollout, behaviour)
    clocks.append(_now())
    of_update(settings.estimator, made, rollout.mask)
    state.leaf.grad = made.gradient
    state.optimiser.step()
    clocks.append(_now())
    return clocks, rollout


def whole_runs(quick: bool) -> Row:
    """Runs of 1,000 updates per minute of one core, exact evaluations every 10 updates included."""
    updates = 5 if quick else 200
    warm_up = WarmUp(accuracy=1e-9, steps=1, check_every=1) if quick else WarmUp()
    settings = Training(TASK, steps=updates, warm_up=warm_up, tree_prompts=0)
    train(replace(settings, steps=1))  # makes the base model where it is not cached yet
    seconds = clock(lambda: train(settings), 1 if quick else 3)
    return Row(
        f"runs of {UPDATES:,} updates per core-minute",
        f"testbed train, answers of up to {TASK.maximum_length} tokens, accuracy every 10 updates, timed on {updates}",
        60.0 * updates / UPDATES / seconds.best, "", RUNS, higher_is_better=True, seconds=seconds,
    )  # fmt: skip


def floor(settings: Training, counted: FlopCount) -> tuple[float, float]:
    """Seconds of the matrix products of the rollout, and of the forward and backward pass, in float32.

    The rate is that of (rows, width) times (width, 4 width): a row for each answer in the rollout, and for each token
    in the loss.
    """
    answers, w = settings.prompts * settings.answers, settings.width
    slow, fast = (
        matmul_rate((rows, w), (w, 4 * w), dtype=np.float32) for rows in (answers, answers * TASK.maximum_length)
    )
    return counted.rollout / slow, (counted.forward + counted.backward) / fast


def trainer_times(settings: Training, runs: int) -> peer.TrainerTimes:
    """TRL on the same prompts, with as many answers of as many tokens."""
    return peer.time_trainer(
        runs, prompts=[decode(prompt) for prompt in split(settings.task).training[:512]], symbols=SYMBOLS,
        end=SYMBOLS[END], width=settings.width, layers=settings.layers, heads=settings.config.heads,
        answer=settings.task.maximum_length, per_prompt=settings.answers, batch=settings.prompts * settings.answers,
    )  # fmt: skip


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, which is faster on small matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()
