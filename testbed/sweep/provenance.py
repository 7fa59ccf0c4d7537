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
def code_fingerprint(sources: tuple[str, ...] = _SOURCES, libraries: tuple[str, ...] = ()) -> str:
    """A hash of the source code and library versions that decide what a task computes; by default a sweep's cell.

    Args:
        sources: files and folders of testbed; all of theory counts always.
        libraries: packages beside NumPy and SciPy whose versions count.
    """
    versions = [f"numpy {np.__version__} scipy {scipy.__version__}", *(f"{name} {version(name)}" for name in libraries)]
    digest = hashlib.sha256(" ".join(versions).encode())
    theory_root, testbed_root = Path(theory.__path__[0]), Path(testbed.__path__[0])
    for root, parts in ((theory_root, (".",)), (testbed_root, sources)):
        for path in sorted(p for part in parts for p in _python_files(root / part)):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def provenance(code: str | None = None) -> dict[str, Any]:
    """Versions, the commit where it is known, and the machine's size; nothing that names the machine or its user.

    Args:
        code: fingerprint of the code that counts; by default that of a sweep's cells.
    """
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", Path(__file__).name) is not None else None
    return {
        "package": version("offpolicy-testbed"),
        "code": code_fingerprint() if code is None else code,
        "git_commit": commit,
        "git_dirty": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pyarrow": version("pyarrow"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def cpu_model() -> str:
    """The processor's name as its maker gives it; what Python knows of it where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _python_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return list(path.rglob("*.py"))


def version(package: str) -> str | None:
    """Of an installed package; None where it is not installed."""
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
