"""The folder of a run: who may write to it, what run it holds, and how that ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from testbed.arithmetic.training.provenance import training_code
from testbed.arithmetic.training.settings import Training
from testbed.sweep.journal import locked, write_whole

SETTINGS, RUN, THETA = "settings.json", "run.json", "theta.npy"


@contextmanager
def claimed(folder: Path, settings: Training, device: str) -> Iterator[None]:
    """Hold the folder for this run.

    Raises:
        ValueError: another run holds it, or it is of other settings, another device or other code.
    """
    with locked(folder):
        # Through text, so that what was a tuple is compared as what was read.
        wanted = json.loads(json.dumps({"device": device, "code": training_code(), "settings": settings.plain}))
        if (folder / SETTINGS).exists():
            _compare(folder, read_settings(folder), wanted)
        else:
            write_whole(folder / SETTINGS, json.dumps(wanted, indent=2).encode())
        yield


def read_settings(folder: Path) -> dict[str, Any]:
    """Device, code and settings of the run that a folder holds.

    Raises:
        ValueError: there are none.
    """
    return _table(folder / SETTINGS, ("device", "code", "settings"))


def write_summary(folder: Path, said: Mapping[str, Any], theta: np.ndarray) -> None:
    """Write how a run ended, and its policy."""
    np.save(folder / THETA, theta)
    write_whole(folder / RUN, json.dumps(said, indent=2).encode())


def read_summary(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """How a run ended, and its policy.

    Raises:
        ValueError: it has not, or there is none.
    """
    said = _table(folder / RUN, ("updates", "collapsed_at", "collapse", "stopped", "refused"))
    return said, np.load(folder / THETA, allow_pickle=False)


def _compare(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    where = f"{str(folder)!r} holds a run"
    for name, value in wanted["settings"].items():
        before = found["settings"].get(name)
        if before != value:
            raise ValueError(f"{where} with {name}={before!r}; got {name}={value!r}, expected another folder")
    if found["device"] != wanted["device"]:
        raise ValueError(f"{where} on device {found['device']!r}; got {wanted['device']!r}, expected another folder")
    if found["code"] != wanted["code"]:
        raise ValueError(f"{where} that other code, or another PyTorch, has begun; expected another folder")


def _table(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{str(path.parent)!r} has no {path.name}; expected the folder of a run that has ended")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in names}
    except (ValueError, KeyError, TypeError) as why:
        raise ValueError(f"{str(path)!r} is damaged; expected it as `testbed train` wrote it, or no such file") from why
