"""The results in docs/staleness are what their runs say: tables are made again from the runs, and prose from tables."""

import csv
import re

import numpy as np
import pytest

from testbed.arithmetic.experiment import packaged_experiment, summarise_runs
from testbed.arithmetic.experiment.choosing import chosen_configurations
from testbed.arithmetic.experiment.columns import run_columns
from testbed.arithmetic.experiment.markdown import write_markdown
from testbed.sweep.table import write_sheet
from tests.testbed.arithmetic.experiment.committed import (
    BASE,
    FOLDER,
    PLACES,
    ageing,
    best,
    read_runs,
    said,
    with_interval,
)

PAGE = FOLDER / "README.md"


@pytest.fixture(scope="module")
def runs():
    return read_runs(FOLDER)


@pytest.fixture(scope="module")
def bounded():
    return read_runs(PLACES["floor"])


@pytest.mark.parametrize("name", PLACES)
def test_the_tables_are_those_of_the_runs(name, tmp_path):
    experiment, runs = packaged_experiment(name), read_runs(PLACES[name])
    made = write_markdown(tmp_path, experiment, summarise_runs(experiment, runs)).read_text()
    assert made == (PLACES[name] / "tables.md").read_text()
    # Negative control: one other run is another table.
    runs = [{**runs[0], "final_accuracy": 0.0}, *runs[1:]]
    assert write_markdown(tmp_path, experiment, summarise_runs(experiment, runs)).read_text() != made


def test_every_run_of_the_settings_is_there(runs, bounded):
    experiment = packaged_experiment("staleness")
    cells = len(experiment.methods) * len(experiment.staleness)
    stages = [row["stage"] for row in runs]
    tuned = {len(m.configurations) * len(experiment.tuning_seeds_of(m)) for m in experiment.methods}
    assert tuned == {56}
    assert stages.count("tuning") == cells * 56
    assert stages.count("final") == cells * len(experiment.final_seeds)
    assert stages.count("length") == len(experiment.length.tasks) * len(experiment.length.seeds)
    assert len(experiment.final_seeds) >= 8
    page = PAGE.read_text()
    assert f"{len(runs):,} training runs" in page
    assert f"{len(bounded)} runs" in page


def test_the_final_runs_are_of_the_best_configuration(runs):
    chosen = chosen_configurations([r for r in runs if r["stage"] == "tuning"])
    found = {
        (r["name"], r["staleness"], r["weight"], r["learning_rate"]) for r in runs if r["stage"] == "final"
    }  # fmt: skip
    assert found == {(*cell, *configuration) for cell, configuration in chosen.items()}
    # What the page says of them.
    rates = {cell: rate for cell, (_, rate) in chosen.items()}
    assert {rate for (_, k), rate in rates.items() if k == 0} == {4e-4}
    others = {cell: rate for cell, rate in rates.items() if cell[1] and cell[0] not in ("no correction", "MinPRO")}
    assert [cell for cell, rate in others.items() if rate != 2e-4] == [("GSPO", 128)]
    assert rates["GSPO", 128] == 4e-4
    assert [cell for cell, rate in rates.items() if rate in (1e-5, 8e-4)] == [("no correction", 128)]
    assert {chosen["MinPRO", k][0] for k in (8, 32, 128)} == {"minpro(clip=(0.5, 2.0))"}


NAMES = {
    "MinPRO without a clip": "MinPRO unclipped",
    "GRPO (PPO's clip)": "GRPO",
    "MinPRO clipped": "MinPRO",
}


def page_rows(columns):
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines()]
    return [row for row in rows if len(row) == columns and re.match(r"\d+\.\d", row[1])]


def test_the_accuracies_of_the_page_are_those_of_the_runs(runs):
    rows = page_rows(6)
    assert len(rows) == 10
    for name, *accuracies, collapsed in rows:
        method = NAMES.get(name, name)
        for k, told in zip((0, 8, 32, 128), accuracies, strict=True):
            final = [
                r["final_accuracy"] for r in runs if (r["stage"], r["name"], r["staleness"]) == ("final", method, k)
            ]
            assert told == with_interval(final)
        tuned = [r["collapsed"] for r in runs if (r["stage"], r["name"]) == ("tuning", method) and r["staleness"]]
        assert collapsed == f"{sum(tuned)} of {len(tuned)}"


def test_the_high_learning_rates_of_the_page_are_those_of_the_runs(runs):
    weights = {f"`{w}`" for m in packaged_experiment("staleness").methods for w in m.weights}
    rows = {name: told for name, *told in page_rows(7) if name in weights}
    assert rows.keys() == weights
    for name, told in rows.items():
        cells = [(rate, k) for rate in (4e-4, 8e-4) for k in (8, 32, 128)]
        for (rate, k), text in zip(cells, told, strict=True):
            mine = [
                r for r in runs
                if (r["stage"], f"`{r['weight']}`", r["staleness"], r["learning_rate"]) == ("tuning", name, k, rate)
            ]  # fmt: skip
            assert len(mine) in (4, 8)
            hits = sum(r["collapsed"] for r in mine)
            mean = f"{100 * np.mean([r['final_accuracy'] for r in mine]):.1f}"
            assert text == (f"{mean} ({hits}/{len(mine)})" if hits else mean)


BOUNDS = {
    "without a clip": "minpro",
    "at most 1.28": "minpro(clip=(0.0, 1.28))",
    "at most 2": "minpro(clip=(0.0, 2.0))",
    "at least 0.8": "minpro(clip=(0.8, inf))",
    "at least 0.5": "minpro(clip=(0.5, inf))",
    "0.8 to 1.28": "minpro(clip=(0.8, 1.28))",
    "0.5 to 2": "minpro(clip=(0.5, 2.0))",
}


def test_each_bound_alone_is_that_of_its_runs(runs, bounded):
    rows = {name: told for name, *told in page_rows(4) if name in BOUNDS}
    assert rows.keys() == BOUNDS.keys()
    for name, told in rows.items():
        for k, text in zip((8, 32, 128), told, strict=True):
            mine = [
                r["final_accuracy"]
                for r in bounded
                if (r["stage"], r["weight"], r["staleness"]) == ("final", BOUNDS[name], k)
            ]
            assert len(mine) == 8
            assert text == with_interval(mine)
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


DIFFERENT = {
    8: {"MinPRO", "no correction"},
    32: {"MinPRO", "no correction", "GSPO"},
    128: {"MinPRO", "no correction", "GSPO", "truncated sequence", "GRPO"},
}


@pytest.mark.parametrize("k", DIFFERENT)
def test_the_page_names_every_method_that_differs_from_minpro_without_a_clip(runs, k):
    found = {
        method
        for (method, lag), result in best(runs).items()
        for c in result.comparisons
        if lag == k and c.reference == "MinPRO unclipped" and c.t_p_adjusted < 0.05
    }
    assert found == DIFFERENT[k]


def test_what_older_rollouts_cost_is_that_of_the_runs(runs):
    weights = {f"`{w}`": w for m in packaged_experiment("staleness").methods for w in m.weights}
    rows = {name: told for name, *told in page_rows(5) if name in weights}
    assert rows.keys() == weights.keys()
    for name, told in rows.items():
        for rate, text in zip((1e-4, 2e-4, 4e-4, 8e-4), told, strict=True):
            assert text == ageing(runs, weights[name], rate, 128)


def prose():
    """Summary and results of the page, without tables, code and pictures, on one line."""
    page = PAGE.read_text()
    summary = page[page.index("\nIn short") : page.index("\n```")]
    lines = (summary + page.split("\n## What came out\n")[1]).splitlines()
    text = " ".join(line for line in lines if not line.startswith(("|", "!", "```")))
    return " ".join(text.replace("**", "").split())


def test_the_prose_is_that_of_the_runs(runs, bounded):
    text, told = prose(), said(runs, bounded)
    for sentence in told:
        assert sentence in text, sentence
    # Nothing else of it is a result: what is left of its decimals are settings.
    for sentence in sorted(told, key=len, reverse=True):
        text = text.replace(sentence, "")
    settings = {"0.8", "1.28", "0.5", "2.0", "0.01", "0.070"}
    assert {*re.findall(r"-?\d+\.\d+", text)} <= settings
    # Negative control: other runs have other sentences, each of them.
    rng = np.random.default_rng(0)
    others = said(*([changed(row, rng) for row in table] for table in (runs, bounded)))
    assert len(others) == len(told)
    assert not {*others} & {*told}


MEASURED = ("final_accuracy", "final_pass_at_8", "mean_cosine", "mean_kl_behaviour_policy", "mean_kl_sampled")


def changed(row, rng):
    """The same run with other results."""
    floors = [name for name in row if name.startswith("floor_") or name == "mean_floor_fraction"]
    other = {name: row[name] * rng.uniform(0.3, 0.8) for name in (*MEASURED, *floors)}
    return {**row, **other, "collapsed": int(rng.uniform() < 0.5)}


def test_the_base_model_is_what_every_run_began_with():
    with (FOLDER / "learning_curves.csv").open(newline="") as file:
        first = [float(row["mean"]) for row in csv.DictReader(file) if int(row["step"]) == 0]
    assert len(first) == 40
    assert np.ptp(first) < 1e-9
    page = " ".join(PAGE.read_text().split())
    assert f"({100 * first[0]:.1f} % right when sampled; {100 * BASE:.1f} % on the prompts of the tuning)" in page


def test_the_base_model_of_the_tuning_is_that_of_its_thresholds(runs):
    """A tuning run collapsed below half of what it began with, which the reason says to three digits."""
    reasons = [r["collapse"] for r in runs if r["stage"] == "tuning" and r["collapse"].startswith("expected reward")]
    halves = {float(reason.rsplit(" ", 1)[1]) for reason in reasons}
    assert len(reasons) > 100
    assert len(halves) == 1
    (half,) = halves
    low, high = 2 * half - 0.001, 2 * half + 0.001
    assert low <= BASE <= high + 1e-9
    # What is counted as below it does not hang on the digits that are not known.
    ends = [
        r["final_accuracy"] for r in runs
        if (r["stage"], r["learning_rate"]) == ("tuning", 8e-4) and r["staleness"] in (32, 128)
    ]  # fmt: skip
    assert len(ends) == 112 + 48
    assert not any(low <= end <= high + 0.001 for end in ends)


def test_the_columns_are_explained(tmp_path):
    assert (FOLDER / "runs_columns.csv").read_bytes() == write_sheet(tmp_path, "c", run_columns()).read_bytes()
    assert (FOLDER / "runs.csv").read_text().splitlines()[0] == ",".join(f'"{c.name}"' for c in run_columns())
