"""Where results come from: the code, its version and its surroundings."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import testbed
import theory

# What decides a cell's numbers. Printing, tables and the command line may change without making results stale.
_SOURCES = (
    "environments",
    "drift.py",
    "drifting",
    "sweep/building.py",
    "sweep/choices.py",
    "sweep/computing.py",
    "sweep/token_weights.py",
)


@cache
def code_fingerprint() -> str:
    """A hash of the source code and library versions that decide what a cell computes."""
    digest = hashlib.sha256(f"numpy {np.__version__} scipy {scipy.__version__}".encode())
    theory_root, testbed_root = Path(theory.__path__[0]), Path(testbed.__path__[0])
    for root, parts in ((theory_root, (".",)), (testbed_root, _SOURCES)):
        for path in sorted(p for part in parts for p in _python_files(root / part)):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def provenance() -> dict[str, Any]:
    """Versions, the commit where it is known, and the machine's size; nothing that names the machine or its user."""
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", Path(__file__).name) is not None else None
    return {
        "package": _version("offpolicy-testbed"),
        "code": code_fingerprint(),
        "git_commit": commit,
        "git_dirty": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pyarrow": _version("pyarrow"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def _python_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return list(path.rglob("*.py"))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
