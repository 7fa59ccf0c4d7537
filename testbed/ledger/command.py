"""`testbed verify`: settle the claims, print them, write the ledger, and say what departs from the record."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.ledger.printing import in_full, overview
from testbed.ledger.registry import claim
from testbed.ledger.running import Progress, Settled, verify
from testbed.ledger.writing import as_data, write_ledger


def verify_command(name: str, out: Path | None, workers: int | None, *, as_json: bool) -> int:
    """Settle one claim, or all of them where `name` is empty. Returns the exit status."""
    names = [claim(name).name] if name else None
    start = time.perf_counter()
    with _progress() as progress:
        ledger = verify(names, workers=workers, progress=progress)
    seconds = time.perf_counter() - start
    if as_json:
        code = {"code": inspect.getsource(ledger[0].claim.settle)} if name else {}
        print(json.dumps(as_data(ledger) | code, indent=2))
    else:
        print("\n".join(in_full(ledger[0]) if name else overview(ledger)))
    sys.stdout.flush()
    # One claim alone must not take the place of the whole ledger, unless a folder is named for it.
    if out is not None or not name:
        folder = out or Path("results") / "ledger"
        _say(f"wrote {', '.join(path.name for path in write_ledger(ledger, folder))} in {folder}")
    return _status(ledger, seconds)


def _status(ledger: list[Settled], seconds: float) -> int:
    departed = [settled for settled in ledger if settled.deviations]
    for settled in departed:
        for sentence in settled.deviations:
            _say(f"departs from the record: {settled.name}: {sentence}")
    count = f"{len(ledger)} claim{'' if len(ledger) == 1 else 's'}"
    _say(f"{count} in {seconds:.1f} s, {f'{len(departed)} not' if departed else 'all'} as recorded")
    return 1 if departed else 0


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("verify"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say(message: str) -> None:
    print(message, file=sys.stderr)
