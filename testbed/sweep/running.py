"""Run a sweep: compute what is not finished yet, then build the table from all that is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from testbed.sweep.computing import Outcome
from testbed.sweep.dispatch import dispatch
from testbed.sweep.journal import Journal, write_whole
from testbed.sweep.pool import local_workers
from testbed.sweep.provenance import code_fingerprint, provenance
from testbed.sweep.settings import Sweep
from testbed.sweep.table import csv_text, write_table
from testbed.sweep.tasks import cells

Progress = Callable[[int, int], None]
"""Called with (finished or failed, all) tasks: once at the start, then after every batch."""


@dataclass(frozen=True)
class Failure:
    """A task that raised."""

    settings: Mapping[str, Any]
    label: str
    error: str


@dataclass(frozen=True)
class SweepResult:
    """What a run left on disk."""

    folder: Path
    files: tuple[Path, ...]
    tasks: int
    """Cells of the sweep."""
    reused: int
    """Cells that earlier runs had finished."""
    failures: tuple[Failure, ...]
    """Cells that are missing in the table; the next run tries them again."""
    seconds: float


def run_sweep(
    sweep: Sweep,
    folder: str | Path,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Run a sweep and write its table, or finish one that was interrupted: at any moment, by whatever it was.

    A finished task is in the folder's journal, on disk, before it is counted. The table is built from finished tasks in
    the order of the settings, so it has the same bytes however often the run was cut. Tasks of other settings that the
    journal holds are kept: a sweep that grows by one weight computes that weight only.

    Args:
        sweep: the settings.
        folder: where results are written. It is made where it does not exist.
        executor: any `concurrent.futures.Executor`; local processes by default. A script that uses the default needs
            the usual `if __name__ == "__main__":`, because each process imports it.
        workers: number of local processes; by default one per core. One is this process itself, which a task that runs
            out of memory then takes with it.
        progress: called as tasks finish.

    Raises:
        ValueError: a number of workers below 1, or another run is writing to the folder.
        RuntimeError: the given executor broke, and what was finished is kept; or local processes cannot start.
    """
    if workers is not None and (isinstance(workers, bool) or int(workers) != workers or workers < 1):
        raise ValueError(f"workers is {workers!r}; expected a whole number of processes >= 1")
    start = time.perf_counter()
    folder = Path(folder)
    everything = cells(sweep)
    failed: dict[str, str] = {}
    seconds = 0.0
    with Journal(folder, code_fingerprint()) as journal:
        todo = [cell for cell in everything if cell.key not in journal.finished]
        reused = len(everything) - len(todo)

        def take(outcomes: Sequence[Outcome]) -> None:
            nonlocal seconds
            journal.add((o.key, o.values) for o in outcomes if o.values is not None)
            failed.update((o.key, o.error or "") for o in outcomes if o.values is None)
            seconds += sum(o.seconds for o in outcomes)
            left.difference_update(o.key for o in outcomes)
            if progress is not None:
                progress(len(everything) - len(left), len(everything))

        left = {cell.key for cell in todo}
        take([])
        with threadpool_limits(limits=1):
            dispatch(todo, take, executor, local_workers() if workers is None else int(workers))
        failures = tuple(Failure(c.settings, c.label, failed[c.key]) for c in everything if c.key in failed)
        rows = [journal.finished[cell.key] for cell in everything if cell.key in journal.finished]
        files = write_table(folder, rows, sweep.trajectories)
        files += _write_failures(folder, failures)
        wall = time.perf_counter() - start
        files += _write_settings(folder, sweep, {
            "tasks": len(everything), "reused": reused, "failed": len(failures),
            "wall_seconds": round(wall, 3), "task_seconds": round(seconds, 3),
            "executor": "local processes" if executor is None else type(executor).__name__,
            "workers": None if executor is not None else workers or local_workers(),
        })  # fmt: skip
    return SweepResult(folder, tuple(files), len(everything), reused, failures, wall)


def _write_failures(folder: Path, failures: Sequence[Failure]) -> list[Path]:
    path = folder / "failures.csv"
    if not failures:
        path.unlink(missing_ok=True)
        return []
    rows = [(f.label, f.error, json.dumps(f.settings)) for f in failures]
    write_whole(path, csv_text([("task", "error", "settings"), *rows]))
    return [path]


def _write_settings(folder: Path, sweep: Sweep, numbers: Mapping[str, Any]) -> list[Path]:
    write_whole(folder / "sweep.toml", sweep.to_toml().encode())
    manifest = {"sweep": sweep.name, **numbers, **provenance()}
    write_whole(folder / "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())
    return [folder / "sweep.toml", folder / "manifest.json"]
