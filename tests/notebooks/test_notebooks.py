"""Every notebook runs from clean, and says what is stored in it: the same numbers, to the last digit printed."""

import ast
import importlib
import time
from pathlib import Path

import pytest

import testbed
import theory
from testbed.lessons import exercise_names

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TEXTS = ("text/plain", "text/markdown", "text/latex")
SECONDS = 120  # of a whole lesson
WHOLE = ("testbed.drift", "testbed.arithmetic", "testbed.lessons")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def said(cell):
    """What a cell's outputs say, picture by picture and line by line."""
    lines = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            # The kernel splits what a cell prints as its timing has it.
            before = lines.pop()[1] if lines and lines[-1][0] == output.name else ""
            lines.append((output.name, before + output.text))
        elif output.output_type == "error":
            lines.append(("error", output.evalue))
        else:
            kinds = sorted(output.data)
            texts = [output.data[kind] for kind in TEXTS if kind in output.data and "image/png" not in output.data]
            lines.append((output.output_type, kinds, texts))
    return lines


def executed(notebook, folder):
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbclient.NotebookClient(copy, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()


def code_of(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def internals(source):
    """What a notebook takes from theory and testbed that is not offered there."""
    offered = {"theory": set(theory.__all__), "testbed": {*testbed.__all__, "drift"}}
    offered |= {name: set(importlib.import_module(name).__all__) for name in WHOLE}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = offered.get(node.value.id) if isinstance(node.value, ast.Name) else None
            private = node.attr.startswith("_") and not node.attr.endswith("__")
            found += [node.attr] if private or (of and node.attr not in of) else []
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [name for name in modules if name.split(".")[0] in ("theory", "testbed") and name not in offered]
        if isinstance(node, ast.ImportFrom) and node.module in offered:
            found += [alias.name for alias in node.names if alias.name not in offered[node.module]]
    return found


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    # What IPython would keep of the session belongs to no notebook.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_a_notebook_says_again_what_is_stored_in_it(path, tmp_path):
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    start = time.monotonic()
    again = executed(stored, tmp_path)
    assert time.monotonic() - start < SECONDS
    for n, (before, after) in enumerate(zip(stored.cells, again.cells, strict=True)):
        assert said(before) == said(after), f"cell {n} of {path.name}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_a_lesson(path):
    """A question first, formulas, a picture, asserted identities, exercises that are checked; outputs are kept."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    source = "\n".join(cell.source for cell in code)
    assert cells[0].cell_type == "markdown"
    assert "?" in cells[0].source
    assert "$" in text
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert source.count("assert ") >= 3
    assert source.count("check(") >= 2
    assert all(cell.execution_count for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_asks_every_exercise_of_its_lesson_once_and_in_order(path):
    source = code_of(path)
    asked = [name for name in exercise_names() if name.split(".")[0] == str(int(path.stem[:2]))]
    assert len(asked) >= 3
    places = [source.find(f'check("{name}", answer)') for name in asked]
    assert -1 not in places
    assert places == sorted(places)
    assert source.count("check(") == source.count("answer = ...") == len(asked)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_uses_the_public_interface_alone(path):
    assert internals(code_of(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from theory.weights.registry import FAMILIES", "import theory.engines", "theory.weights.tokens", "m._table",
        "from testbed.sweep import run_sweep", "from theory import engines", "from testbed.lessons import checking",
        "from testbed.lessons.lesson_10 import score",
    ],
)  # fmt: skip
def test_an_internal_name_would_be_seen(line):
    assert internals(line)


def test_a_changed_number_would_be_seen(tmp_path):
    """Negative control: the comparison above tells a stored number from another one."""
    cell = nbformat.v4.new_code_cell("1 + 1")
    right = executed(nbformat.v4.new_notebook(cells=[cell]), tmp_path).cells[0]
    wrong = nbformat.from_dict(right)
    wrong.outputs[0].data["text/plain"] = "3"
    assert said(right) != said(wrong)
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        executed(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")]), tmp_path)
