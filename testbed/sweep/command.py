"""`testbed sweep`: run, show progress, print the summary, name the files, draw the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from testbed.sweep.journal import FILE
from testbed.sweep.printing import as_data, print_summary
from testbed.sweep.running import Progress, SweepResult, run_sweep
from testbed.sweep.settings import Sweep, default_sweep
from testbed.sweep.summary import summarise
from testbed.sweep.table import read_table

SHOWN_FAILURES = 5


def sweep_command(
    file: Path | None, out: Path | None, workers: int | None, seeds: str | None, *, quick: bool, as_json: bool
) -> int:
    """Run a sweep as the command line asks for it. Returns the exit status."""
    settings = _settings(file, seeds, quick)
    folder = out or Path("results") / settings.name
    try:
        with _progress() as progress:
            result = run_sweep(settings, folder, workers=workers, progress=progress)
    except KeyboardInterrupt:
        _say(f"interrupted; what is finished is in {folder / FILE}, and the same command goes on from there")
        return 130
    summary = summarise(read_table(folder), per=settings.per)
    if not as_json:
        print_summary(summary)
        sys.stdout.flush()
    # The numbers are said before anything is drawn, so that no figure stands between a user and them.
    _report(result)
    figures = drawn(folder, folder / "figures")
    _report_figures(figures)
    if as_json:
        print(json.dumps(_data(result, figures) | {"summary": as_data(summary)}, indent=2))
    return 1 if result.failures else 0


def _settings(file: Path | None, seeds: str | None, quick: bool) -> Sweep:
    settings = default_sweep() if file is None else Sweep.from_toml(file)
    settings = settings.quick() if quick else settings
    return settings if seeds is None else replace(settings, seeds=_numbers(seeds))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--seeds is {text!r}; expected whole numbers with commas between, such as 0,1,2") from None


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
