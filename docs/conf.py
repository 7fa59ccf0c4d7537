"""How the documentation is built: `make docs`."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import typer.main  # noqa: E402
from docutils import nodes  # noqa: E402
from docutils.utils.math import MathError  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402
from sphinx.ext.napoleon import Config, GoogleDocstring  # noqa: E402
from sphinx.util import logging  # noqa: E402
from subjects import SUBJECTS  # noqa: E402

import testbed.versions  # noqa: E402, F401 - of the package itself
from testbed.cli import app as command_line  # noqa: E402

project = "offpolicy-testbed"
author = "The offpolicy-testbed authors"
project_copyright = "2026, " + author
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "staleness/floor"]
html_theme = "furo"
html_title = project
html_static_path, html_css_files = ["assets"], ["page.css"]
# Formulas become MathML while the pages are built: browsers show them without asking another host for a script.
html_math_renderer = "mathml"
html_show_sphinx = html_copy_source = False
default_role = "code"
highlight_language = "none"
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# Files of the repository that pages link to are no pages of their own.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Reference|Example|Examples|Note):\s*$")


def names_on(page: str) -> list[tuple[str, str]]:
    """(module, name) of everything on a page of the reference."""
    found = []
    for module, names in SUBJECTS[page][1].items():
        every = importlib.import_module(module).__all__ if names == ["*"] else names
        found += [(module, name) for name in every]
    return found


def write_pages(out: Path) -> None:
    """The pages of the reference, the command line and the course, which are made and not kept."""
    reference, course = out / "reference", out / "course"
    for folder in (reference, course):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for page, (title, _) in SUBJECTS.items():
        parts = [title, "=" * len(title), ""]
        for module, name in names_on(page):
            value = getattr(importlib.import_module(module), name)
            if callable(value):
                parts += [f".. {'autoclass' if inspect.isclass(value) else 'autofunction'}:: {module}.{name}", ""]
            else:
                parts += [f".. py:data:: {module}.{name}", "", *_data(value), ""]
        (reference / f"{page}.rst").write_text("\n".join(parts), encoding="utf-8")
    (reference / "commands.rst").write_text(_commands(), encoding="utf-8")
    for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        # Links lead out of notebooks/ in the repository, and out of docs/course/ here.
        text = notebook.read_text(encoding="utf-8").replace("](../docs/", "](../")
        (course / notebook.name).write_text(text, encoding="utf-8")


def _data(value: Any) -> list[str]:
    """What a public constant holds."""
    if isinstance(value, Mapping):
        return [line for key, text in value.items() for line in (f"   ``{key}``", f"       {plain(str(text))}", "")]
    return [f"   ``{value!r}``"]


def _commands() -> str:
    """Every command with its help, as the program prints it."""
    from click.testing import CliRunner

    group: Any = typer.main.get_command(command_line)
    parts = ["Command line", "============", ""]
    for name in group.commands:
        printed = (
            CliRunner()
            .invoke(
                group, [name, "--help"], prog_name="testbed", env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
            )
            .output
        )
        lines = [f"   {line.rstrip()}".rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()]
        parts += [f"testbed {name}", "-" * len(f"testbed {name}"), "", ".. code-block:: text", "", *lines, ""]
    return "\n".join(parts)


def readable(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: bars, stars and indented formulas mean themselves."""
    found: list[str] = []
    in_example = in_formula = in_section = False
    for i, line in enumerate(lines):
        bare, indent = line.strip(), len(line) - len(line.lstrip())
        if not bare:
            in_example = False
            found.append(line)
            continue
        if indent == 0:
            in_formula, in_section = False, bool(SECTION.match(bare))
        if bare.startswith(">>>"):
            in_example = True
        starts = indent >= 4 and not in_section and not in_formula and not in_example and i and not lines[i - 1].strip()
        if starts:
            in_formula = True
            found += ["::", ""]
        found.append(line if in_example or in_formula or SECTION.match(bare) else plain(line))
    if what not in ("attribute", "data", "property"):
        found = GoogleDocstring(found, Config(napoleon_use_rtype=False), app, what, name, value, options).lines()
    lines[:] = found


def anchors(app: Any, page: str, source: list[str]) -> None:
    """Anchors that plain Markdown writes as HTML become targets, so that links to them lead there."""
    source[0] = re.sub(r'<a id="([^"]+)"></a>', r"(\1)=", source[0])


def plain(line: str) -> str:
    """Marks of reStructuredText taken for themselves, outside of code between backticks."""
    parts = re.split(r"(`[^`]*`)", line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([|*\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", parts[i])
    return "".join(parts)


def mathml(visitor: Any, node: Any) -> None:
    """A formula as MathML; one that cannot be converted is a warning."""
    formula = re.sub(r"\\[bB]igg?[lrm]?(?![a-zA-Z])", "", node.astext())
    formula = re.sub(r"\\dots(?![a-zA-Z])", r"\\ldots", formula)
    formula = re.sub(r"\\(t?frac)(\d)(\d)", r"\\\1{\2}{\3}", formula)
    block = node.tagname == "math_block"
    try:
        shown = tex2mathml(formula, as_block=block)
    except MathError as why:
        logging.getLogger(__name__).warning("formula %r: %s", formula, why, location=node)
        shown = visitor.encode(formula)
    visitor.body.append(f'<div class="math">{shown}</div>' if block else str(shown))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Write the made pages before anything is read, and read docstrings and anchors as they are meant."""
    app.connect("autodoc-process-docstring", readable)
    app.connect("source-read", anchors)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir)))
