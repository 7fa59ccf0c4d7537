"""From the log of a run to its row: what collapses is counted, never dropped."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from testbed.arithmetic.experiment.choosing import chosen_configurations
from testbed.arithmetic.experiment.columns import curve_columns, run_columns
from testbed.arithmetic.experiment.measuring import curve, run_numbers
from testbed.arithmetic.training import Training
from testbed.arithmetic.training.measuring import columns as logged
from tests.testbed.arithmetic.experiment.fake import FakeRun, broken, train

OPTIONS = {
    "weight": "minpro(clip=(0.8, 1.28))", "steps": 20, "learning_rate": 3e-4, "staleness": 4, "seed": 0,
    "evaluate_every": 5, "exact_every": 10,
}  # fmt: skip


def made(**columns):
    log = {name: np.array(values, dtype=float) for name, values in columns.items()}
    return FakeRun(SimpleNamespace(steps=len(log["accuracy"]) - 1), log, None, None)


def test_numbers_by_a_loop():
    run = train(OPTIONS)
    row = run_numbers(run, 4)
    accuracies = [a for a in run.log["accuracy"].tolist() if not math.isnan(a)]
    assert row["final_accuracy"] == row["recorded_accuracy"] == run.log["accuracy"][-1] == accuracies[-1]
    assert row["peak_accuracy"] == max(accuracies)
    assert row["final_pass_at_8"] == pytest.approx(1 - (1 - accuracies[-1]) ** 8)
    # From step K on: before, the policies are nearer than K updates.
    cosines = [c for step, c in enumerate(run.log["cosine"].tolist()) if not math.isnan(c) and step >= 4]
    assert len(cosines) == 2
    assert row["mean_cosine"] == pytest.approx(sum(cosines) / 2)
    assert row["mean_cosine"] != pytest.approx(np.nanmean(run.log["cosine"]), abs=1e-4)
    # From step K on: before, rollouts are younger than K, and the floor of this run is empty.
    assert row["floor_2"] == pytest.approx(0.19)
    assert row["mean_floor_fraction"] == pytest.approx(np.mean(run.log["floor_fraction"][4:20]))
    assert row["mean_floor_fraction"] > np.mean(run.log["floor_fraction"][:20]) + 0.02
    assert math.isnan(row["floor_7"])
    assert (row["collapsed"], row["collapsed_at"], row["collapse"], row["steps"]) == (0, None, "", 20)


def test_a_run_that_broke_off_ends_at_zero():
    run = train(OPTIONS)
    row = run_numbers(broken(run, 12), 4)
    assert row["final_accuracy"] == row["final_pass_at_8"] == row["final_greedy_accuracy"] == 0.0
    assert math.isnan(row["recorded_accuracy"])
    assert (row["collapsed"], row["collapsed_at"], row["steps"]) == (1, 12, 12)
    # Its peak came before.
    assert row["peak_accuracy"] == np.nanmax(run.log["accuracy"][:12])
    # Where it broke off at a step that was evaluated, too.
    evaluated = run_numbers(broken(run, 10, value=0.6), 4)
    assert (evaluated["final_accuracy"], evaluated["recorded_accuracy"]) == (0.0, 0.6)
    # And where the last policy is not a number although every update was made.
    last = made(step=[0, 1, 2], accuracy=[0.4, 0.5, math.nan])
    assert run_numbers(last, 0)["final_accuracy"] == 0.0
    assert run_numbers(last, 0)["collapsed"] == 1
    # The control: a run that reached its end counts as it ended.
    assert run_numbers(run, 4)["final_accuracy"] > 0.4


def test_a_staleness_beyond_the_run_leaves_its_last_update():
    run = made(step=[0, 1, 2], accuracy=[0.4, 0.5, 0.6], floor_fraction=[0.1, 0.3, math.nan])
    assert run_numbers(run, 64)["mean_floor_fraction"] == 0.3
    assert run_numbers(run, 0)["mean_floor_fraction"] == pytest.approx(0.2)


def test_curves_keep_the_steps_that_were_measured():
    run = train(OPTIONS)
    found = curve(run)
    assert found["step"] == [0, 5, 10, 15, 20]
    assert found["accuracy"] == run.log["accuracy"][::5].tolist()
    assert np.isfinite(found["cosine"]).tolist() == [True, False, True, False, True]
    assert curve(broken(run, 12))["step"] == [0, 5, 10, 12]


def test_columns_are_those_of_the_training_log():
    log = logged(Training())
    kept = {c.name for c in curve_columns()} - {"stage", "name", "weight", "staleness", "learning_rate", "seed"}
    assert kept <= {*log}
    row = run_numbers(train(OPTIONS), 4)
    assert {*row} == {c.name for c in run_columns()} - {
        "stage", "name", "weight", "staleness", "learning_rate", "seed"
    }  # fmt: skip
    assert {*(f"floor_{t}" for t in range(1, 5)), "floor_fraction", "clip_fraction", "length"} <= {*log}


def rows(*runs):
    names = ("weight", "learning_rate", "final_accuracy", "collapsed")
    return [{"name": "m", "staleness": 4, **dict(zip(names, run, strict=True))} for run in runs]


def test_the_best_mean_is_chosen_and_ties_are_told_apart():
    def chosen(*runs):
        return chosen_configurations(rows(*runs))["m", 4]

    assert chosen(("a", 1e-4, 0.5, 0), ("a", 1e-4, 0.7, 0), ("b", 1e-4, 0.9, 0), ("b", 1e-4, 0.2, 1)) == ("a", 1e-4)
    # The control: the best single run is the other's.
    assert chosen(("a", 1e-4, 0.5, 0), ("b", 1e-4, 0.9, 0)) == ("b", 1e-4)
    assert chosen(("a", 1e-4, 0.5, 1), ("b", 3e-4, 0.5, 0)) == ("b", 3e-4)
    assert chosen(("a", 3e-4, 0.5, 0), ("b", 1e-4, 0.5, 0)) == ("b", 1e-4)
    assert chosen(("b", 1e-4, 0.5, 0), ("a", 1e-4, 0.5, 0)) == ("b", 1e-4)
