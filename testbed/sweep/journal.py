"""Finished tasks on disk: appended JSON lines, written by one process that may be killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from testbed.sweep.choices import canonical

FILE = "journal.jsonl"


class Journal:
    """The finished tasks of one folder: key -> values. Use it in a `with` statement; it locks the folder.

    A line counts only if it is whole, so what a kill tore off is left out. A line is on disk (fsync) before `add`
    returns. Lines written by other code (`code` differs) do not count and are dropped at the next start.
    """

    def __init__(self, folder: Path, code: str) -> None:
        """`code` identifies the code whose results count."""
        self.finished: dict[str, Mapping[str, Any]] = {}
        self._folder, self._code = folder, code
        self._lock: AbstractContextManager[None] | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        """Lock the folder and read what is finished.

        Raises:
            ValueError: another process is writing to the same folder.
        """
        self._lock = locked(self._folder, "journal.lock")
        self._lock.__enter__()
        path = self._folder / FILE
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        good = [line for line in lines if self._take(line)]
        if len(good) < len(lines):
            write_whole(path, b"".join(good))
        self._file = path.open("ab")
        return self

    def _take(self, line: bytes) -> bool:
        try:
            entry = json.loads(line)
            key, code, values = entry["key"], entry["code"], entry["values"]
        except (ValueError, KeyError, TypeError):
            return False
        if code != self._code or not line.endswith(b"\n"):
            return False
        self.finished[key] = values
        return True

    def add(self, results: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append finished tasks; they are on disk when this returns."""
        assert self._file is not None, "the journal is used in a with statement"
        results = list(results)
        lines = [canonical({"key": key, "code": self._code, "values": values}) + "\n" for key, values in results]
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        # Back from the text, so that a resumed run and an uninterrupted one build the table from the very same numbers.
        self.finished.update({key: json.loads(canonical(values)) for key, values in results})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; the lock goes with the file."""
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
        self._file = self._lock = None


@contextmanager
def locked(folder: Path, name: str = "run.lock") -> Iterator[None]:
    """Hold a folder, which is made where it does not exist; the lock goes with the process, however that ends.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A file of its own: a lock on a file that is replaced would be lost.
    with (folder / name).open("wb") as file:
        try:
            _lock(file)
        except OSError:
            raise ValueError(f"another run is writing to {str(folder)!r}; expected a folder of its own") from None
        yield


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old one or the new one and nothing between."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _lock(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # no such lock on this system; two writers are then the user's to avoid
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
