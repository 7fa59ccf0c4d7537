"""The syllabus of the course names what is there: lessons in order, the installation of README.md, solutions."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from testbed.lessons import exercise_names

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
SYLLABUS = (FOLDER / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
STALENESS = ROOT / "docs" / "staleness"


def rows():
    """(number, notebook, seconds) of the table of lessons."""
    return re.findall(r"^\| (\d+) \| \[[^]]+\]\((\w+\.ipynb)\) \|.*\| (\d+) \|$", SYLLABUS, re.MULTILINE)


def test_every_lesson_has_a_row_in_order():
    assert [name for _, name, _ in rows()] == NOTEBOOKS
    assert [int(number) for number, _, _ in rows()] == [int(name[:2]) for name in NOTEBOOKS]


def test_the_times_add_up():
    total = sum(int(seconds) for _, _, seconds in rows())
    assert abs(total - int(re.search(r"(\d+) for all ten", SYLLABUS).group(1))) <= 5


def test_the_installation_is_that_of_the_readme():
    (line,) = re.findall(r"^pip install .*$", SYLLABUS, re.MULTILINE)
    assert line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_lessons_of_the_meetings_are_all_of_them():
    meetings = re.findall(r"^\| \d+ \| (\d+), (\d+) \| ", SYLLABUS, re.MULTILINE)
    assert [int(lesson) for pair in meetings for lesson in pair] == list(range(1, len(NOTEBOOKS) + 1))


def test_other_lessons_than_it_says_need_no_pytorch():
    assert "Lessons 8 and 9 use PyTorch, the others do not." in SYLLABUS
    using = [name for name in NOTEBOOKS if '"import torch' in (FOLDER / name).read_text(encoding="utf-8")]
    assert [int(name[:2]) for name in using] == [8, 9]


def test_the_code_for_teachers_prints_every_solution():
    (code,) = re.findall(r"```python\n(.*?)```", SYLLABUS, re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    starts = [line.split()[0] for line in printed.getvalue().splitlines() if re.match(r"\d+\.\d ", line)]
    assert starts == exercise_names()
    assert "def " in printed.getvalue()


QUOTED = {
    "no correction": "51.8 ± 0.8",
    "MinPRO clipped": "60.1 ± 0.6",
    "token ratio": "66.4 ± 1.0",
    "MinPRO without a clip": "66.3 ± 1.1",
}


@pytest.mark.parametrize(("method", "number"), QUOTED.items())
def test_lesson_8_quotes_the_experiment_as_it_is(method, number):
    lesson = (FOLDER / "08_transformer_under_staleness.ipynb").read_text(encoding="utf-8")
    page = (STALENESS / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {method} \|(.*)$", page, re.MULTILINE)[:1]
    assert row.split("|")[2].strip() == number  # K = 0, 8, 32, 128
    assert number in lesson
    assert "39.9 % right" in page
    assert "39.9 % right" in lesson


@pytest.mark.parametrize("weight", ["token", "minpro"])
def test_lesson_8_quotes_the_runs_that_collapse(weight):
    page = (STALENESS / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{weight}` \|((?:[^|]*\|){{6}})$", page, re.MULTILINE)
    assert row.split("|")[4].strip().endswith("(8/8)")  # 4e-4 at K = 8, 32, 128, then 8e-4
    (row,) = re.findall(r"^\| `gspo\(clip=\(0.8, 1.2\)\)` \|((?:[^|]*\|){6})$", page, re.MULTILINE)
    assert row.split("|")[4].strip() == "58.1"
    assert "58.1 %" in (FOLDER / "08_transformer_under_staleness.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("method", "rate"),
    [("no correction", "3e-5"), ("MinPRO", "6e-5"), ("token ratio", "2e-4"), ("MinPRO unclipped", "2e-4")],
)
def test_lesson_8_quotes_the_chosen_rates(method, rate):
    lesson = (FOLDER / "08_transformer_under_staleness.ipynb").read_text(encoding="utf-8")
    tables = (STALENESS / "tables.md").read_text(encoding="utf-8")
    at_32 = tables.split("## K = 32\n")[1].split("\n## ")[0]
    (row,) = re.findall(rf"^\| {method} \| `([^`]+)` \| (\S+) \|", at_32, re.MULTILINE)
    assert row[1].rstrip("*") == rate
    assert rate in lesson
    assert (row[0] == "minpro(clip=(0.5, 2.0))") == (method == "MinPRO")
