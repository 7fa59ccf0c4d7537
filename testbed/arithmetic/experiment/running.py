"""Run an experiment: tuning runs, the choice of configurations, final runs, the length study; then its tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from testbed.arithmetic.experiment.choosing import chosen_configurations
from testbed.arithmetic.experiment.columns import curve_columns, run_columns
from testbed.arithmetic.experiment.computing import Train, compute, trained
from testbed.arithmetic.experiment.settings import Experiment
from testbed.arithmetic.experiment.tasks import Task, final_tasks, length_tasks, task_count, tuning_tasks
from testbed.arithmetic.training.provenance import LIBRARIES
from testbed.arithmetic.training.provenance import SOURCES as TRAINING
from testbed.sweep.computing import Outcome
from testbed.sweep.dispatch import dispatch_batches
from testbed.sweep.journal import Journal, write_whole
from testbed.sweep.pool import local_workers
from testbed.sweep.provenance import code_fingerprint, cpu_model, provenance, version
from testbed.sweep.table import csv_text, write_rows, write_sheet
from theory import checks

SOURCES = (*TRAINING, "arithmetic/experiment/columns.py", "arithmetic/experiment/measuring.py")
"""The code of testbed that decides what a run's row holds. Choices, statistics and printing may change without making
finished runs stale."""

Progress = Callable[[int, int], None]
"""Called with (finished or failed, all) runs: once at the start, then after every run."""


@dataclass(frozen=True)
class Failure:
    """A run that raised, which a collapsed one does not."""

    label: str
    error: str


@dataclass(frozen=True)
class ExperimentResult:
    """What was left on disk."""

    folder: Path
    files: tuple[Path, ...]
    tasks: int
    """Training runs of the experiment."""
    reused: int
    """Runs that earlier starts had finished."""
    failures: tuple[Failure, ...]
    """The next start tries them again. Where they are tuning runs, nothing was chosen and no final run was made."""
    seconds: float


def run_experiment(
    experiment: Experiment,
    folder: str | Path,
    *,
    train: Train = trained,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> ExperimentResult:
    """Run an experiment and write its tables, or finish one that was interrupted, at any moment.

    A finished run is in the folder's journal, on disk, before it is counted, so that a kill loses those in flight only.
    The tables are built from finished runs in the order of the settings: the same bytes however often it was cut.

    Args:
        experiment: the settings.
        folder: where results are written.
        train: a training run from its options.
        executor: any `concurrent.futures.Executor`; local processes of one thread each by default.
        workers: number of local processes; by default one per core. One is this process itself.
        progress: called as runs finish.
        command: what the manifest says was called.

    Raises:
        ValueError: options that are no settings of a run, a number of workers below 1, or another run is writing to the
            folder.
        RuntimeError: the given executor broke, and what was finished is kept; or local processes cannot start.
    """
    wanted = local_workers() if workers is None else checks.whole_number("workers", workers, 1, "processes")
    start = time.perf_counter()
    folder = Path(folder)
    total = task_count(experiment)
    code = code_fingerprint(SOURCES, LIBRARIES)
    failed: dict[str, str] = {}
    seconds, done, reused = 0.0, 0, 0
    if train is trained:
        some = {(m.name, k): m.configurations[0] for m in experiment.methods for k in experiment.staleness}
        _prepare([*tuning_tasks(experiment), *final_tasks(experiment, some), *length_tasks(experiment)])
    with Journal(folder, code) as journal:

        def report() -> None:
            if progress is not None:
                progress(done, total)

        def take(outcomes: Sequence[Outcome]) -> None:
            nonlocal seconds, done
            journal.add((o.key, o.values) for o in outcomes if o.values is not None)
            failed.update((o.key, o.error or "") for o in outcomes if o.values is None)
            seconds += sum(o.seconds for o in outcomes)
            done += len(outcomes)
            report()

        def stage(tasks: list[Task]) -> None:
            nonlocal done, reused
            todo = [task for task in tasks if task.key not in journal.finished]
            reused += len(tasks) - len(todo)
            done += len(tasks) - len(todo)
            report()
            dispatch_batches([[task] for task in todo], partial(compute, train=train), take, executor, wanted)

        tuning, length = tuning_tasks(experiment), length_tasks(experiment)
        stage([*tuning, *length])
        final: list[Task] = []
        chosen = {}
        # A choice from part of the runs would not be fair, and a resumed experiment would make another.
        if not any(task.key in failed for task in tuning):
            chosen = chosen_configurations(journal.finished[task.key]["run"] for task in tuning)
            final = final_tasks(experiment, chosen)
            stage(final)
        everything = [*tuning, *final, *length]
        failures = tuple(Failure(task.label, failed[task.key]) for task in everything if task.key in failed)
        files = _write_tables(folder, everything, journal.finished)
        files += _write_failures(folder, failures)
        wall = time.perf_counter() - start
        manifest = {
            "experiment": experiment.name, "command": command, "tasks": total, "reused": reused,
            "failed": len(failures), "wall_seconds": round(wall, 3), "task_seconds": round(seconds, 3),
            "finished": datetime.now(UTC).isoformat(timespec="minutes"),
            "executor": "local processes" if executor is None else type(executor).__name__,
            "workers": wanted if executor is None else None, "threads_per_worker": 1,
            "cpu": cpu_model(), "torch": version("torch"), **provenance(code), "settings": experiment.plain,
            "chosen": [
                {"method": name, "staleness": k, "weight": weight, "learning_rate": rate}
                for (name, k), (weight, rate) in chosen.items()
            ],
        }  # fmt: skip
        write_whole(folder / "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())
    return ExperimentResult(folder, (*files, folder / "manifest.json"), total, reused, failures, wall)


def _prepare(tasks: Sequence[Task]) -> None:
    """Check every run before the first one starts, and make the base models, which workers then find on disk."""
    from testbed.arithmetic.caching import base_model
    from testbed.arithmetic.training import Training

    runs = [Training.from_plain(task.training) for task in tasks]
    for task, config, settings in dict.fromkeys((run.task, run.config, run.warm_up) for run in runs):
        base_model(task, config, settings)


def _write_tables(folder: Path, tasks: Sequence[Task], finished: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    values = [finished[task.key] for task in tasks if task.key in finished]
    curves = [
        {**{c.name: found["run"][c.name] for c in curve_columns() if c.name in found["run"]}, **row}
        for found in values
        if "curve" in found
        for row in _rows(found["curve"])
    ]
    return [
        *write_rows(folder, "runs", [found["run"] for found in values], run_columns()),
        *write_rows(folder, "curves", curves, curve_columns()),
        write_sheet(folder, "runs_columns", run_columns()),
        write_sheet(folder, "curves_columns", curve_columns()),
    ]


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _write_failures(folder: Path, failures: Sequence[Failure]) -> list[Path]:
    path = folder / "failures.csv"
    if not failures:
        path.unlink(missing_ok=True)
        return []
    write_whole(path, csv_text([("run", "error"), *((f.label, f.error) for f in failures)]))
    return [path]
