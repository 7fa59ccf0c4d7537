"""The documentation is built without warnings, and everything public is on one of its pages."""

import doctest
import importlib
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import testbed
import theory

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MODULES = ("theory", "testbed", "testbed.environments", "testbed.drift", "testbed.lessons", "testbed.arithmetic")


def subjects():
    specification = importlib.util.spec_from_file_location("subjects", DOCS / "subjects.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.SUBJECTS


def placed():
    for _, modules in subjects().values():
        for module, names in modules.items():
            for name in importlib.import_module(module).__all__ if names == ["*"] else names:
                yield module, name


def public():
    seen = {}
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            # What a package passes on from another one is that one's.
            seen.setdefault(id(value) if callable(value) else (module, name), (module, name))
    return set(seen.values())


def test_everything_public_is_on_one_page():
    counts = Counter(placed())
    assert {name for name, n in counts.items() if n > 1} == set()
    assert set(counts) == public()
    # The control: a name that is taken off its page is missed.
    assert set(counts) - {("theory", "moments")} != public()


@pytest.mark.parametrize(("module", "name"), sorted(placed()), ids=lambda x: x)
def test_docstrings_say_what_can_be_raised(module, name):
    value = getattr(importlib.import_module(module), name)
    if not callable(value):
        return
    text = inspect.getdoc(value)
    assert text
    assert text.splitlines()[0].rstrip().endswith((".", ":", "?", "!")), "the first line is a sentence"
    if inspect.isfunction(value) and re.search(r"^    raise ValueError", inspect.getsource(value), re.MULTILINE):
        assert "Raises:" in text


def examples():
    for module, name in sorted(placed()):
        value = getattr(importlib.import_module(module), name)
        if callable(value):
            for test in doctest.DocTestFinder().find(value, name, globs={}):
                if test.examples:
                    yield module, test


@pytest.mark.parametrize(("module", "test"), [*examples()], ids=lambda x: getattr(x, "name", x))
def test_an_example_can_be_pasted(module, test):
    """It needs nothing but what the pages say it does: NumPy and the two packages, and all of testbed.arithmetic."""
    test.globs = {"np": np, "theory": theory, "testbed": testbed}
    if module == "testbed.arithmetic":
        exec("import torch\nfrom testbed.arithmetic import *", test.globs)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 0


def test_the_central_functions_have_examples_that_a_stub_would_fail():
    shown = {test.name: test for _, test in examples()}
    for name in ("moments", "decompose", "policy_gradient", "values", "divergences", "at", "MarkovProcess"):
        assert name in shown
    # The control: numbers that are all zero, or all one, would say nothing.
    for name in ("moments", "decompose"):
        printed = " ".join(example.want for example in shown[name].examples)
        assert len({float(x) for x in re.findall(r"\d+\.\d+", printed)} - {0.0, 1.0}) >= 2


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    # A copy, so that the pages which are made do not appear in the working tree under other tests.
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("_build", "reference", "course"))
    (root / "notebooks").symlink_to(ROOT / "notebooks")
    out = root / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(root / "docs"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def inventory(path):
    """Names of the Python objects in Sphinx's objects.inv, version 2: four lines of text, the rest compressed."""
    content = path.read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(content).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


def test_the_pages_hold_what_is_public(built):
    names = {f"{module}.{name}" for module, name in placed()}
    assert names <= inventory(built / "objects.inv")
    assert "theory.momentum" not in inventory(built / "objects.inv")


def test_formulas_and_examples_are_read_as_they_are_written(built):
    page = (built / "reference" / "moments.html").read_text(encoding="utf-8")
    assert "|bias| / |gradient|; NaN where the gradient is zero" in page
    processes = (built / "reference" / "processes.html").read_text(encoding="utf-8")
    assert re.search(r"<pre>[^<]*sum over t &lt; L of discount\^t", re.sub(r"</?span.*?>", "", processes))
    assert "problematic" not in page + processes


def test_pages_ask_no_other_host(built):
    """Formulas are MathML, and every script and style comes with the pages."""
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:[^\"]*)", text) == [], page
    lemma = (built / "course" / "03_baseline_invariance.html").read_text(encoding="utf-8")
    assert lemma.count("<math") > 10
    assert "\\frac" not in lemma


def test_wide_formulas_are_not_cut_off(built):
    assert "overflow-x: auto" in (built / "_static" / "page.css").read_text(encoding="utf-8")
    assert "_static/page.css" in (built / "course" / "03_baseline_invariance.html").read_text(encoding="utf-8")


def test_commands_cards_claims_and_lessons_have_pages(built):
    commands = (built / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "Usage: testbed explore" in commands
    assert "offpolicy-testbed[explore]" in commands
    cards = (built / "cards.html").read_text(encoding="utf-8")
    assert 'id="weight-minpro"' in cards
    assert 'href="#weight-minpro"' in cards
    claims = (built / "claims.html").read_text(encoding="utf-8")
    for path in (ROOT / "testbed" / "ledger" / "claims").glob("[a-z]*.py"):
        assert path.stem in claims
    assert len([*(built / "course").glob("*.html")]) == len([*(ROOT / "notebooks").glob("*.ipynb")])


def test_the_committed_claims_have_the_recorded_verdicts():
    from testbed.ledger.registry import claim, claim_names

    page = (DOCS / "claims.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| \[.*?\]\(#(\w+)\) \| (.*?) \|$", page, re.MULTILINE))
    assert said == {name: claim(name).recorded.verdict for name in claim_names()}
