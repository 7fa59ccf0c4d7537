"""`testbed experiment`: run, show progress, print the tables, name the files, draw the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from testbed.arithmetic.experiment.computing import Train, trained
from testbed.arithmetic.experiment.markdown import as_data, write_markdown
from testbed.arithmetic.experiment.printing import print_experiment
from testbed.arithmetic.experiment.running import ExperimentResult, Progress, run_experiment
from testbed.arithmetic.experiment.settings import PACKAGED, Experiment, packaged_experiment
from testbed.arithmetic.experiment.summary import runs_of, summarise_runs
from testbed.sweep.journal import FILE

SHOWN_FAILURES = 5


def experiment_command(
    name: str, out: Path | None, workers: int | None, *, quick: bool, as_json: bool, train: Train = trained
) -> int:
    """Run an experiment as the command line asks for it. Returns the exit status: 1 where runs failed, else 0.

    Args:
        name: of an experiment that comes with the package, or a TOML file.
        out: folder of results, results/NAME by default.
        workers: local processes, one per core by default.
        quick: the small cut.
        as_json: print JSON instead of tables.
        train: a training run from its options.
    """
    settings = _named(name)
    settings = settings.quick() if quick else settings
    folder = out or Path("results") / settings.name
    command = f"testbed experiment {Path(name).name}{' --quick' if quick else ''}"
    try:
        with _progress() as progress:
            result = run_experiment(settings, folder, train=train, workers=workers, progress=progress, command=command)
    except KeyboardInterrupt:
        _say(f"interrupted; what is finished is in {folder / FILE}, and the same command goes on from there")
        return 130
    summary = summarise_runs(settings, runs_of(folder))
    files = [*result.files, write_markdown(folder, settings, summary)]
    if not as_json:
        print_experiment(settings, summary)
        sys.stdout.flush()
    _report(result, files)
    figures = _drawn(folder)
    if as_json:
        data = {
            "folder": str(folder),
            "files": [str(path) for path in (*files, *figures)],
            "tasks": result.tasks,
            "reused": result.reused,
            "seconds": round(result.seconds, 3),
            "failures": [asdict(failure) for failure in result.failures],
            "summary": as_data(summary),
        }
        print(json.dumps(data, indent=2))
    return 1 if result.failures else 0


def _named(name: str) -> Experiment:
    """One that comes with the package, or that of a file."""
    bare = name == Path(name).stem and not Path(name).exists()
    return packaged_experiment(name) if name in PACKAGED or bare else Experiment.from_toml(name)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("experiment", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _drawn(folder: Path) -> list[Path]:
    # Imported here: the figures are built on testbed, and only this last step of a command turns to them.
    from figures.runs import draw_experiment

    paths = draw_experiment(folder, folder / "figures")
    if paths:
        names = dict.fromkeys(path.stem for path in paths if path.suffix == ".png")
        _say(f"drew {', '.join(names)} (images and their data, {len(paths)} files) in {paths[0].parent}")
    return paths


def _report(result: ExperimentResult, files: list[Path]) -> None:
    again = f", {result.reused} of them from earlier starts" if result.reused else ""
    finished = "" if not result.failures else f", {len(result.failures)} failed"
    _say(f"{result.tasks} training runs in {result.seconds:.1f} s{again}{finished}")
    _say(f"wrote {', '.join(path.name for path in files)} in {result.folder}")
    for failure in result.failures[:SHOWN_FAILURES]:
        _say(f"failed: {failure.label}: {failure.error}")
    if result.failures:
        _say(f"see {result.folder / 'failures.csv'}; the same command tries them again")


def _say(message: str) -> None:
    print(message, file=sys.stderr)
