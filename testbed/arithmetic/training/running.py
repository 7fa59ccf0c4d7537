"""Training under staleness: sample with an older policy, correct, ascend; measured exactly on the way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from testbed.arithmetic.caching import base_model
from testbed.arithmetic.rollout import sample_answers
from testbed.arithmetic.splitting import split
from testbed.arithmetic.training.gradient import Behaviour, batch_gradient
from testbed.arithmetic.training.measuring import Monitor, Row, columns, of_update
from testbed.arithmetic.training.settings import Training
from testbed.arithmetic.training.state import State, read_checkpoint, start, write_checkpoint
from testbed.arithmetic.training.table import read_table, write_table
from testbed.sweep.journal import write_whole
from theory.engines.problem import EngineRefusal

SETTINGS, RUN, THETA = "settings.json", "run.json", "theta.npy"
# A policy that earns more has no use for entropy.
_SOLVED = 0.95


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A run that has ended. A collapse is a finding, not an error: the log goes on after it as long as numbers do."""

    settings: Training
    log: dict[str, NDArray[np.float64]]
    """Column -> one number per row. Row n is of the policy after n updates, and of update n that is made of it; what
    was not measured there is NaN. The last row is of the final policy alone."""
    collapsed_at: int | None
    """The row in which it was first seen to have collapsed; None where it has not."""
    collapse: str | None
    """Why it counts as collapsed."""
    refused: str | None
    """Why the exact moments that were asked for are NaN; None where they are not."""
    theta: Tensor
    """(P,) the final policy, on the CPU."""


def train(
    settings: Training,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    checkpoint_every: int = 100,
) -> TrainingRun:
    """Train, and say exactly what came of it.

    With a folder a run that was killed goes on from its last checkpoint, and comes out as if it had not been: the
    same numbers to the last digit, on one machine with one thread. A run that has ended is read.

    Args:
        settings: all that decides the numbers.
        folder: for checkpoints, and for log.parquet, log.csv, columns.csv, run.json and theta.npy at the end.
        device: of PyTorch, such as "cuda". Numbers differ between devices, as sums are rounded in another order.
        progress: called with (updates made, all) now and then.
        checkpoint_every: updates between checkpoints.

    Raises:
        ValueError: the folder holds a run of other settings, the warm-up fails, or answers are too long for the trees
            that are asked for.
    """
    theta = base_model(settings.task, settings.config, settings.warm_up).theta.to(device)
    if folder is not None:
        _claim(folder, settings)
    state = None if folder is None else read_checkpoint(folder, settings, theta)
    state = start(settings, theta) if state is None else state
    if not state.ended:
        _go_on(settings, state, folder, progress, checkpoint_every)
    names = columns(settings)
    log = {name: np.array([row.get(name, math.nan) for row in state.rows], dtype=np.float64) for name in names}
    run = TrainingRun(settings, log, state.collapsed_at, state.collapse, state.refused, state.leaf.detach().cpu())
    if folder is not None:
        write_table(folder, log, names)
        np.save(folder / THETA, run.theta.numpy())
        done = {
            "collapsed_at": run.collapsed_at, "collapse": run.collapse, "refused": run.refused, "updates": state.step,
        }  # fmt: skip
        write_whole(folder / RUN, json.dumps(done, indent=2).encode())
    return run


def read_run(folder: Path) -> TrainingRun:
    """A run that has ended, as `train` wrote it.

    Raises:
        ValueError: there is none.
    """
    missing = [name for name in (SETTINGS, RUN, THETA) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{str(folder)!r} has no {missing[0]}; expected the folder of a run that has ended")
    settings = Training.from_plain(json.loads((folder / SETTINGS).read_text()))
    done = json.loads((folder / RUN).read_text())
    theta = torch.from_numpy(np.load(folder / THETA, allow_pickle=False))
    return TrainingRun(settings, read_table(folder), done["collapsed_at"], done["collapse"], done["refused"], theta)


def _claim(folder: Path, settings: Training) -> None:
    """Write the settings, or see that they are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path, content = folder / SETTINGS, json.dumps(settings.plain, indent=2)
    if path.exists():
        before, wanted = json.loads(path.read_text()), json.loads(content)
        changed = [name for name in wanted if before.get(name) != wanted[name]]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{str(folder)!r} holds a run with {name}={before.get(name)!r}; got {name}={wanted[name]!r}, expected "
                "the same settings or another folder"
            )
    else:
        write_whole(path, content.encode())


def _go_on(
    settings: Training,
    state: State,
    folder: Path | None,
    progress: Callable[[int, int], None] | None,
    checkpoint_every: int,
) -> None:
    monitor = Monitor(settings, state.leaf.device)
    training = split(settings.task).training
    while not state.ended:
        behaviour = _behaviour(settings, state)
        row: Row = {"step": float(state.step)}
        last = state.step == settings.steps
        if last or state.step % settings.evaluate_every == 0:
            row |= monitor.policy(state.leaf.detach(), behaviour)
        if settings.exact_every and state.refused is None and (last or state.step % settings.exact_every == 0):
            try:
                row |= monitor.estimator(state.leaf.detach(), behaviour)
            except EngineRefusal as why:
                # The run is worth its time all the same.
                state.refused = str(why)
        state.rows.append(row)
        _look(settings, state, row)
        if last:
            state.ended = True
        else:
            rows = torch.randint(len(training), (settings.prompts,), generator=state.prompt_generator)
            _update(settings, state, training[rows].to(state.leaf.device), behaviour, row)
            if not math.isfinite(row["gradient_norm"]):
                _collapse(state, "the gradient is not finite, and no update could be made of it")
                state.ended = True
        if folder is not None and (state.ended or state.step % checkpoint_every == 0):
            write_checkpoint(folder, state)
        if progress is not None and (state.ended or state.step % 10 == 0):
            progress(state.step, settings.steps)


def _behaviour(settings: Training, state: State) -> Behaviour:
    theta, lag = state.ago(settings.staleness)
    old = state.ago(settings.old_staleness)[0] if settings.old_staleness else None
    return Behaviour(theta, settings.sampler, lag, old)


def _update(settings: Training, state: State, prompts: Tensor, behaviour: Behaviour, row: Row) -> None:
    """One update of the policy, from fresh answers of the behaviour policy."""
    rollout = sample_answers(
        settings.config, behaviour.theta, prompts, settings.task.maximum_length, per_prompt=settings.answers,
        sampler=settings.sampler, generator=state.answer_generator,
    )  # fmt: skip
    made = batch_gradient(settings.config, state.leaf, settings.task, settings.estimator, prompts, rollout, behaviour)
    row |= of_update(settings.estimator, made, rollout.mask)
    norm = row["gradient_norm"]
    if not math.isfinite(norm):
        return
    limit = settings.max_gradient_norm
    state.leaf.grad = made.gradient if limit is None or norm <= limit else made.gradient * (limit / norm)
    part = min(1.0, (state.step + 1) / max(settings.learning_rate_warmup, 1))
    state.optimiser.param_groups[0]["lr"] = settings.learning_rate * part
    state.optimiser.step()
    state.keep()


def _look(settings: Training, state: State, row: Row) -> None:
    """See whether the policy has collapsed, where it was evaluated."""
    if state.collapsed_at is not None or "accuracy" not in row:
        return
    name = "expected_reward" if "expected_reward" in row else "accuracy"
    now, least = row[name], settings.collapse_reward * state.rows[0][name]
    if now < least:
        _collapse(state, f"{name.replace('_', ' ')} {now:.3g} is below {least:.3g}")
    elif row.get("entropy", math.inf) < settings.collapse_entropy and now < _SOLVED:
        _collapse(state, f"entropy {row['entropy']:.3g} nats per token is below {settings.collapse_entropy:g}")


def _collapse(state: State, why: str) -> None:
    if state.collapsed_at is None:
        state.collapsed_at, state.collapse = state.step, why
