"""The results in docs/staleness are what their runs say: tables are made again from the runs, and prose from tables."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from testbed.arithmetic.experiment import packaged_experiment, summarise_runs
from testbed.arithmetic.experiment.columns import run_columns
from testbed.arithmetic.experiment.markdown import write_markdown

FOLDER = Path(__file__).parents[4] / "docs" / "staleness"
KINDS = {column.name: column.type for column in run_columns()}


def value(name, text):
    if KINDS[name] == "string":
        return text
    if text in ("", "nan"):
        return None if KINDS[name] == "int64" else float("nan")
    return int(text) if KINDS[name] == "int64" else float(text)


@pytest.fixture(scope="module")
def runs():
    with (FOLDER / "runs.csv").open(newline="") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def test_the_tables_are_those_of_the_runs(runs, tmp_path):
    experiment = packaged_experiment("staleness")
    made = write_markdown(tmp_path, experiment, summarise_runs(experiment, runs)).read_text()
    assert made == (FOLDER / "tables.md").read_text()
    # Negative control: one other run is another table.
    runs = [{**runs[0], "final_accuracy": 0.0}, *runs[1:]]
    assert write_markdown(tmp_path, experiment, summarise_runs(experiment, runs)).read_text() != made


def test_every_run_of_the_settings_is_there(runs):
    experiment = packaged_experiment("staleness")
    cells = len(experiment.methods) * len(experiment.staleness)
    stages = [row["stage"] for row in runs]
    assert stages.count("tuning") == cells * 6 * len(experiment.tuning_seeds)
    assert stages.count("final") == cells * len(experiment.final_seeds)
    assert stages.count("length") == len(experiment.length.tasks) * len(experiment.length.seeds)
    assert len(experiment.final_seeds) >= 8


NAMES = {
    "MinPRO without a clip": "MinPRO unclipped",
    "GRPO (PPO's clip)": "GRPO",
    "MinPRO, clipped on both sides": "MinPRO",
}


def test_the_numbers_of_the_page_are_those_of_the_runs(runs):
    rows = [line.strip("| ").split(" | ") for line in (FOLDER / "README.md").read_text().splitlines()]
    rows = [row for row in rows if len(row) == 6 and re.fullmatch(r"\d\d\.\d", row[1])]
    assert len(rows) == 10
    for name, *accuracies, collapsed in rows:
        method = NAMES.get(name, name)
        for k, said in zip((0, 8, 32, 128), accuracies, strict=True):
            final = [
                r["final_accuracy"] for r in runs if (r["stage"], r["name"], r["staleness"]) == ("final", method, k)
            ]
            assert f"{100 * np.mean(final):.1f}" == said
        shared = [
            r["collapsed"]
            for r in runs
            if r["stage"] == "tuning"
            and r["name"] == method
            and r["staleness"]
            and r["learning_rate"] in (6e-5, 2e-4, 6e-4)
        ]
        assert f"{sum(shared)} of {len(shared)}" == collapsed
