"""The results in docs/staleness are what their runs say: tables are made again from the runs, and prose from tables."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from testbed.arithmetic.experiment import packaged_experiment, summarise_runs
from testbed.arithmetic.experiment.columns import run_columns
from testbed.arithmetic.experiment.markdown import write_markdown
from testbed.sweep.table import write_sheet

FOLDER = Path(__file__).parents[4] / "docs" / "staleness"
KINDS = {column.name: column.type for column in run_columns()}


def value(name, text):
    if KINDS[name] == "string":
        return text
    if text in ("", "nan"):
        return None if KINDS[name] == "int64" else float("nan")
    return int(text) if KINDS[name] == "int64" else float(text)


PLACES = {"staleness": FOLDER, "floor": FOLDER / "floor"}


def read_runs(folder):
    with (folder / "runs.csv").open(newline="") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def runs():
    return read_runs(FOLDER)


def with_interval(values):
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{100 * np.mean(values):.1f} ± {100 * half:.1f}"


@pytest.mark.parametrize("name", PLACES)
def test_the_tables_are_those_of_the_runs(name, tmp_path):
    experiment, runs = packaged_experiment(name), read_runs(PLACES[name])
    made = write_markdown(tmp_path, experiment, summarise_runs(experiment, runs)).read_text()
    assert made == (PLACES[name] / "tables.md").read_text()
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
    "MinPRO clipped": "MinPRO",
}
SHARED = (6e-5, 2e-4, 6e-4)
BASE = 0.405


def page_rows(columns):
    rows = [line.strip("| ").split(" | ") for line in (FOLDER / "README.md").read_text().splitlines()]
    return [row for row in rows if len(row) == columns and re.match(r"\d+\.\d", row[1])]


def test_the_accuracies_of_the_page_are_those_of_the_runs(runs):
    rows = page_rows(7)
    assert len(rows) == 10
    for name, *accuracies, below, collapsed in rows:
        method = NAMES.get(name, name)
        for k, said in zip((0, 8, 32, 128), accuracies, strict=True):
            final = [
                r["final_accuracy"] for r in runs if (r["stage"], r["name"], r["staleness"]) == ("final", method, k)
            ]
            assert said == with_interval(final)
        shared = [
            r
            for r in runs
            if (r["stage"], r["name"]) == ("tuning", method) and r["staleness"] and r["learning_rate"] in SHARED
        ]
        assert below == f"{sum(r['final_accuracy'] < BASE for r in shared)} of {len(shared)}"
        assert collapsed == f"{sum(r['collapsed'] for r in shared)} of {len(shared)}"


HIGH_RATE = {
    "GSPO (0.8, 1.2)": "gspo(clip=(0.8, 1.2))",
    "M2PO (0.04)": "m2po(budget=0.04)",
    "GRPO (0.8, 1.2)": "ppo_clip(clip=(0.8, 1.2))",
    "CISPO, cap 5": "cispo(clip=(0.0, 5.0))",
    "prefix ratio": "prefix",
    "token ratio": "token",
    "MinPRO without a clip": "minpro",
    "MinPRO clipped (0.5, 2)": "minpro(clip=(0.5, 2.0))",
    "no correction": "none",
}


def test_the_high_learning_rate_of_the_page_is_that_of_the_runs(runs):
    rows = {name: said for name, *said in page_rows(4) if name in HIGH_RATE}
    assert rows.keys() == HIGH_RATE.keys()
    for name, said in rows.items():
        for k, number in zip((8, 32, 128), said, strict=True):
            mine = [
                r["final_accuracy"]
                for r in runs
                if (r["stage"], r["weight"], r["staleness"], r["learning_rate"]) == ("tuning", HIGH_RATE[name], k, 6e-4)
            ]
            assert len(mine) == 2
            assert number == f"{100 * np.mean(mine):.1f}"


BOUNDS = {
    "unbounded": "minpro",
    "at most 1.28": "minpro(clip=(0.0, 1.28))",
    "at most 2": "minpro(clip=(0.0, 2.0))",
    "at least 0.8": "minpro(clip=(0.8, inf))",
    "at least 0.5": "minpro(clip=(0.5, inf))",
    "0.8 to 1.28": "minpro(clip=(0.8, 1.28))",
    "0.5 to 2": "minpro(clip=(0.5, 2.0))",
}


def test_each_bound_alone_is_that_of_its_runs(runs):
    bounded = read_runs(PLACES["floor"])
    rows = {name: said for name, *said in page_rows(4) if name in BOUNDS}
    assert rows.keys() == BOUNDS.keys()
    for name, said in rows.items():
        for k, number in zip((8, 32, 128), said, strict=True):
            mine = [
                r["final_accuracy"]
                for r in bounded
                if (r["stage"], r["weight"], r["staleness"]) == ("final", BOUNDS[name], k)
            ]
            assert len(mine) == 8
            assert number == with_interval(mine)
    # Where both experiments trained the same thing they have the same runs: made by other code, to the last digits.
    for k in (8, 32, 128):
        one, other = (
            {r["seed"]: r["final_accuracy"] for r in table
             if (r["stage"], r["weight"], r["staleness"], r["learning_rate"]) == ("final", "minpro", k, 2e-4)}
            for table in (runs, bounded)
        )  # fmt: skip
        assert one.keys() == other.keys()
        assert len(one) == 8
        np.testing.assert_allclose([*one.values()], [*other.values()], atol=1e-9)


def test_the_base_model_is_what_every_run_began_with():
    with (FOLDER / "learning_curves.csv").open(newline="") as file:
        first = [float(row["mean"]) for row in csv.DictReader(file) if int(row["step"]) == 0]
    assert first
    np.testing.assert_allclose(first, BASE, atol=5e-4)


def test_the_columns_are_explained(tmp_path):
    assert (FOLDER / "runs_columns.csv").read_bytes() == write_sheet(tmp_path, "c", run_columns()).read_bytes()
    assert (FOLDER / "runs.csv").read_text().splitlines()[0] == ",".join(f'"{c.name}"' for c in run_columns())
