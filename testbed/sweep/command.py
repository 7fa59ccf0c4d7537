"""`testbed sweep`: run, show progress, print the summary, name the files, draw the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from testbed.sweep.building import GIVEN, said_strength, takes_seed
from testbed.sweep.choices import Choice
from testbed.sweep.journal import FILE
from testbed.sweep.layouts import print_cells, rows_as_data
from testbed.sweep.printing import as_data, print_summary
from testbed.sweep.running import Progress, SweepResult, run_sweep
from testbed.sweep.settings import PACKAGED, Sweep, default_sweep, packaged_sweep
from testbed.sweep.summary import summarise
from testbed.sweep.table import read_table

SHOWN_FAILURES = 5


def sweep_command(
    file: Path | None,
    out: Path | None,
    workers: int | None,
    seeds: str | None,
    *,
    quick: bool,
    as_json: bool,
    length: str | None = None,
    kl: str | None = None,
) -> int:
    """Run a sweep as the command line asks for it. Returns the exit status."""
    settings = _settings(file, seeds, quick, length, kl)
    folder = out or Path("results") / settings.name
    try:
        with _progress() as progress:
            result = run_sweep(settings, folder, workers=workers, progress=progress)
    except KeyboardInterrupt:
        _say(f"interrupted; what is finished is in {folder / FILE}, and the same command goes on from there")
        return 130
    table = read_table(folder)
    cell_by_cell = settings.layout != "divergences"
    summary = summarise(table, per=settings.per)
    if not as_json:
        if cell_by_cell and len(table["status"]):
            print_cells(table, settings.layout, settings.per)
        else:
            print_summary(summary)
        sys.stdout.flush()
    # The numbers are said before anything is drawn, so that no figure stands between a user and them.
    _report(result)
    # The figures are of weights against divergences.
    figures = [] if cell_by_cell else drawn(folder, folder / "figures")
    _report_figures(figures)
    if as_json:
        rows = {"rows": rows_as_data(table)} if cell_by_cell else {}
        print(json.dumps(_data(result, figures) | {"summary": as_data(summary)} | rows, indent=2))
    return 1 if result.failures else 0


def _settings(file: Path | None, seeds: str | None, quick: bool, length: str | None, kl: str | None) -> Sweep:
    settings = _named(file)
    settings = settings.quick() if quick else settings
    if length is not None:
        lengths = _numbers("--length", length, int, "whole numbers", "8,1000")
        settings = replace(settings, environments=_of_lengths(settings.environments, lengths))
    if kl is not None:
        if all(drift.name == GIVEN or said_strength(drift) for drift in settings.drifts):
            raise ValueError(
                f"--kl is {kl!r}, but no drift of sweep {settings.name!r} is solved for a divergence: "
                f"{', '.join(drift.label for drift in settings.drifts)}"
            )
        drifts = tuple(dict.fromkeys(drift.without("kl") for drift in settings.drifts))
        settings = replace(settings, drifts=drifts, kl=_numbers("--kl", kl, float, "numbers", "0.01,0.1"))
    if seeds is None:
        return settings
    if not any(takes_seed(drift.name) and "seed" not in drift.options for drift in settings.drifts):
        raise ValueError(
            f"--seeds is {seeds!r}, but no drift of sweep {settings.name!r} draws one: "
            f"{', '.join(drift.label for drift in settings.drifts)}"
        )
    return replace(settings, seeds=_numbers("--seeds", seeds, int, "whole numbers", "0,1,2"))


def _named(file: Path | None) -> Sweep:
    """The default sweep, one that comes with the package, or that of a file."""
    if file is None:
        return default_sweep()
    # A bare word that is no file is meant to be one of the package's names.
    bare = str(file) == file.stem and not file.exists()
    return packaged_sweep(str(file)) if str(file) in PACKAGED or bare else Sweep.from_toml(file)


def _of_lengths(environments: tuple[Choice, ...], lengths: tuple[int, ...]) -> tuple[Choice, ...]:
    """Each environment at each horizon, whatever horizons the settings gave it."""
    from testbed.environments import environment_cards

    result = []
    for one in dict.fromkeys(environment.without("horizon") for environment in environments):
        if "horizon" not in environment_cards()[one.name].options:
            raise ValueError(f"environment {one.label} has no option 'horizon', which --length would set")
        result += [one.with_options(horizon=length) for length in lengths]
    return tuple(result)


def _numbers(option: str, text: str, kind: Callable[[str], Any], expected: str, example: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} is {text!r}; expected {expected} with commas between, such as {example}") from None


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("sweep"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sweep", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def drawn(results: Path, out: Path) -> list[Path]:
    """Draw every figure of a folder of results."""
    # Imported here: the figures are built on testbed, and only this last step of a command turns to them.
    from figures import draw_all

    return draw_all(results, out)


def _data(result: SweepResult, figures: list[Path]) -> dict[str, object]:
    return {
        "folder": str(result.folder),
        "files": [str(path) for path in (*result.files, *figures)],
        "tasks": result.tasks,
        "reused": result.reused,
        "seconds": round(result.seconds, 3),
        "failures": [asdict(failure) for failure in result.failures],
    }


def _report(result: SweepResult) -> None:
    again = f", {result.reused} of them from earlier runs" if result.reused else ""
    _say(f"{_count(result.tasks)} in {result.seconds:.1f} s{again}")
    _say(f"wrote {', '.join(path.name for path in result.files)} in {result.folder}")
    for failure in result.failures[:SHOWN_FAILURES]:
        _say(f"failed: {failure.label}: {failure.error}")
    if result.failures:
        _say(
            f"{_count(len(result.failures))} failed, see {result.folder / 'failures.csv'}; the same command tries again"
        )


def _report_figures(figures: list[Path]) -> None:
    if figures:
        names = dict.fromkeys(path.stem for path in figures if path.suffix == ".png")
        _say(f"drew {', '.join(names)} (images and their data, {len(figures)} files) in {figures[0].parent}")


def _count(tasks: int) -> str:
    return f"{tasks} task{'' if tasks == 1 else 's'}"


def _say(message: str) -> None:
    print(message, file=sys.stderr)
