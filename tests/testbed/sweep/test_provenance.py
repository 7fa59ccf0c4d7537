"""Which code makes results stale: all that decides a cell's numbers, and nothing that only prints them."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import testbed
import theory
from testbed.sweep import provenance

TESTBED, THEORY = Path(testbed.__path__[0]), Path(theory.__path__[0])

# What a cell imports from these decides which cells there are and how columns are called, not what a cell computes; a
# change of what is stored raises `tasks.SCHEMA`.
OF_THE_GRID = {"sweep/tasks.py", "sweep/settings.py", "sweep/expanding.py", "sweep/toml.py", "sweep/columns.py"}


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The fingerprint of a copy of the code, which may be changed."""
    for root in (TESTBED, THEORY):
        shutil.copytree(root, tmp_path / root.name, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(provenance, root.name, SimpleNamespace(__path__=[str(tmp_path / root.name)]))
    return tmp_path, provenance.code_fingerprint.__wrapped__


def imported(path: Path) -> set[Path]:
    """The files of testbed that a file imports, packages by their __init__.py."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("testbed."):
                file = TESTBED.joinpath(*name.split(".")[1:])
                found |= {f for f in (file.with_suffix(".py"), file / "__init__.py") if f.is_file()}
    return found


def test_all_that_a_cell_is_computed_with_is_fingerprinted():
    # The package's own names are those of the user's side.
    aside = {TESTBED / name for name in (*OF_THE_GRID, "sweep/__init__.py")}
    todo, seen = [TESTBED / "sweep" / "computing.py"], set()
    while todo:
        path = todo.pop()
        if path not in seen | aside:
            seen.add(path)
            todo += imported(path)
    used = {path.relative_to(TESTBED).as_posix() for path in seen}
    assert {"drifting/samplers.py", "drifting/solving.py", "environments/parity.py", "sweep/token_weights.py"} <= used
    counted = {
        path.relative_to(TESTBED).as_posix()
        for part in provenance._SOURCES
        for path in provenance._python_files(TESTBED / part)
    }
    assert used <= counted, used - counted


@pytest.mark.parametrize(
    "file",
    ["testbed/drift.py", "testbed/drifting/samplers.py", "testbed/environments/parity.py", "testbed/sweep/computing.py",
     "testbed/sweep/token_weights.py", "theory/weights/minpro.py", "theory/engines/enumeration.py",
     "theory/signals.py", "theory/policy.py"],
)  # fmt: skip
def test_a_change_in_what_computes_makes_results_stale(file, copies):
    root, fingerprint = copies
    before = fingerprint()
    path = root / file
    path.write_bytes(path.read_bytes() + b"\n# one line more\n")
    assert fingerprint() != before


@pytest.mark.parametrize("file", ["testbed/sweep/printing.py", "testbed/sweep/layouts.py", "testbed/cli.py"])
def test_a_change_in_what_prints_does_not(file, copies):
    root, fingerprint = copies
    before = fingerprint()
    path = root / file
    path.write_bytes(path.read_bytes() + b"\n# one line more\n")
    assert fingerprint() == before
