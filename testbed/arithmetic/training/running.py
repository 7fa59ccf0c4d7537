"""Training under staleness: sample with an older policy, correct, ascend; measured exactly on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from testbed.arithmetic.caching import base_model
from testbed.arithmetic.rollout import roll_out
from testbed.arithmetic.splitting import split
from testbed.arithmetic.training.folder import claimed, read_settings, read_summary, write_summary
from testbed.arithmetic.training.gradient import Behaviour, batch_gradient
from testbed.arithmetic.training.measuring import Monitor, Row, columns, of_update
from testbed.arithmetic.training.settings import Training
from testbed.arithmetic.training.state import State, read_checkpoint, start, write_checkpoint
from testbed.arithmetic.training.table import read_table, write_table
from theory.engines.problem import EngineRefusal

# A policy that earns more has no use for entropy.
SOLVED = 0.95
CHECKPOINT_SECONDS = 15.0

Progress = Callable[[int, int], None]
"""Called with (updates made, all): at the start, and after every tenth update and every exact number."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A run that has ended. A collapse is a finding, not an error: the log goes on after it as long as numbers do."""

    settings: Training
    log: dict[str, NDArray[np.float64]]
    """Column -> one number per row. Row n is of the policy after n updates, and of update n that is made of it; what
    was not measured there is NaN. The last row is of the final policy."""
    updates: int
    """That were made: all of them, unless the run could not go on."""
    collapsed_at: int | None
    """The row in which it was first seen to have collapsed; None where it has not."""
    collapse: str | None
    """Why it counts as collapsed."""
    stopped: str | None
    """Why no further update could be made; None where all were."""
    refused: str | None
    """Why the exact moments that were asked for are NaN; None where they are not."""
    theta: Tensor
    """(P,) the final policy, on the CPU."""


def train(
    settings: Training,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint_every: int = 100,
) -> TrainingRun:
    """Train, and say exactly what came of it.

    With a folder a run that was killed goes on from its last checkpoint, and comes out as if it had not been: the
    same numbers to the last digit, on one machine with one thread. A run that has ended is read.

    Args:
        settings: all that decides the numbers.
        folder: for checkpoints, and for log.parquet, log.csv, columns.csv, run.json and theta.npy at the end. One run
            at a time may hold it.
        device: of PyTorch, such as "cuda". Numbers differ between devices, as sums are rounded in another order.
        progress: called now and then.
        checkpoint_every: updates between checkpoints; there is one every 15 seconds too.

    Raises:
        ValueError: the folder holds a run of other settings, another device or other code, or another run is writing to
            it; or the warm-up fails.
    """
    with nullcontext() if folder is None else claimed(folder, settings, device):
        theta = base_model(settings.task, settings.config, settings.warm_up).theta.to(device)
        state = None if folder is None else read_checkpoint(folder, settings, theta)
        state = start(settings, theta) if state is None else state
        if not state.ended:
            _go_on(settings, state, folder, progress, checkpoint_every)
        names = columns(settings)
        log = {name: np.array([row.get(name, math.nan) for row in state.rows], dtype=np.float64) for name in names}
        run = TrainingRun(
            settings, log, state.step, state.collapsed_at, state.collapse, state.stopped, state.refused,
            state.leaf.detach().cpu(),
        )  # fmt: skip
        if folder is not None:
            write_table(folder, log, names)
            said = ("updates", "collapsed_at", "collapse", "stopped", "refused")
            write_summary(folder, {name: getattr(run, name) for name in said}, run.theta.numpy())
    return run


def read_run(folder: Path) -> TrainingRun:
    """A run that has ended, as `train` wrote it.

    Raises:
        ValueError: there is none.
    """
    said, theta = read_summary(folder)
    settings = Training.from_plain(read_settings(folder)["settings"])
    return TrainingRun(settings=settings, log=read_table(folder), theta=torch.from_numpy(theta), **said)


def _go_on(
    settings: Training, state: State, folder: Path | None, progress: Progress | None, checkpoint_every: int
) -> None:
    monitor = Monitor(settings, state.leaf.device)
    training = split(settings.task).training
    report = progress if progress is not None else lambda done, total: None
    report(state.step, settings.steps)
    written = time.monotonic()
    while not state.ended:
        behaviour, last = _behaviour(settings, state), state.step == settings.steps
        row: Row = {"step": float(state.step)}
        state.rows.append(row)
        exactly = settings.exact_every > 0 and state.refused is None and state.step % settings.exact_every == 0
        if last or exactly or state.step % settings.evaluate_every == 0:
            row |= monitor.policy(state.leaf.detach(), behaviour)
            _look(settings, state, row)
        if not state.ended and (exactly or (last and settings.exact_every and state.refused is None)):
            _measure(monitor, state, behaviour, row)
            report(state.step, settings.steps)
        if last:
            state.ended = True
        if not state.ended:
            rows = torch.randint(len(training), (settings.prompts,), generator=state.prompt_generator)
            _update(settings, state, monitor, training[rows].to(state.leaf.device), behaviour, row)
        late = time.monotonic() - written > CHECKPOINT_SECONDS
        if folder is not None and (state.ended or late or state.step % checkpoint_every == 0):
            write_checkpoint(folder, state)
            written = time.monotonic()
        if state.ended or state.step % 10 == 0:
            report(state.step, settings.steps)


def _behaviour(settings: Training, state: State) -> Behaviour:
    theta, lag = state.ago(settings.staleness)
    old = state.ago(settings.old_staleness)[0] if settings.old_staleness else None
    return Behaviour(theta, settings.sampler, lag, old)


def _measure(monitor: Monitor, state: State, behaviour: Behaviour, row: Row) -> None:
    try:
        row |= monitor.estimator(state.leaf.detach(), behaviour)
    except EngineRefusal as why:
        # The run is worth its time all the same.
        state.refused = str(why)


def _update(
    settings: Training, state: State, monitor: Monitor, prompts: Tensor, behaviour: Behaviour, row: Row
) -> None:
    """One update of the policy, from fresh answers of the behaviour policy; or none, and the run has ended."""
    rollout = roll_out(
        settings.config, behaviour.theta, prompts, settings.task.maximum_length, per_prompt=settings.answers,
        sampler=settings.sampler, generator=state.answer_generator,
    )  # fmt: skip
    made = batch_gradient(
        settings.config, state.leaf, settings.task, settings.estimator, prompts, rollout, behaviour,
        coupled=settings.coupled,
    )  # fmt: skip
    row |= of_update(settings.estimator, made, rollout.mask)
    norm = row["gradient_norm"]
    if not math.isfinite(norm):
        if "accuracy" not in row:  # the last row is of the final policy
            row |= monitor.policy(state.leaf.detach(), behaviour)
        _end(state, "the gradient is not finite")
        return
    limit = settings.max_gradient_norm
    state.leaf.grad = made.gradient if limit is None or norm <= limit else made.gradient * (limit / norm)
    part = min(1.0, (state.step + 1) / max(settings.learning_rate_warmup, 1))
    state.optimiser.param_groups[0]["lr"] = settings.learning_rate * part
    state.optimiser.step()
    state.keep()


def _look(settings: Training, state: State, row: Row) -> None:
    """See whether the policy has collapsed."""
    name = "expected_reward" if "expected_reward" in row else "accuracy"
    if not all(math.isfinite(row.get(n, 0.0)) for n in (name, "accuracy", "entropy")):
        _end(state, "the policy is not a number")
        return
    now, least = row[name], settings.collapse_reward * state.rows[0][name]
    if now < least:
        _collapse(state, f"{name.replace('_', ' ')} {now:.3g} is below {least:.3g}")
    elif row.get("entropy", math.inf) < settings.collapse_entropy and now < SOLVED:
        _collapse(state, f"entropy {row['entropy']:.3g} nats per token is below {settings.collapse_entropy:g}")
    elif row.get("entropy", 0.0) > settings.explosion_entropy:
        _collapse(state, f"entropy {row['entropy']:.3g} nats per token is above {settings.explosion_entropy:g}")


def _end(state: State, why: str) -> None:
    state.ended, state.stopped = True, f"{why}, and no further update could be made"
    _collapse(state, why)


def _collapse(state: State, why: str) -> None:
    if state.collapsed_at is None:
        state.collapsed_at, state.collapse = state.step, why
