"""Running a sweep: any executor gives the same bytes, failures stay where they are, finished work is not lost."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest

import theory
from testbed import drift, environment
from testbed.sweep import read_table, run_sweep
from testbed.sweep.journal import FILE, Journal
from tests.testbed.sweep import small
from tests.testbed.sweep.small import CELLS_OF_TINY, TINY, Inline
from theory.divergence import kl_behaviour_target

TABLES = ("table.csv", "table.parquet", "columns.csv", "sweep.toml")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run, computed where it stands."""
    folder = tmp_path_factory.mktemp("reference")
    assert run_sweep(TINY, folder, executor=Inline()).failures == ()
    return folder


def test_any_executor_gives_the_same_bytes(reference, tmp_path):
    run_sweep(TINY, tmp_path / "processes", workers=2)
    with ThreadPoolExecutor(3) as threads:
        run_sweep(TINY, tmp_path / "threads", executor=threads)
    assert contents(tmp_path / "processes") == contents(reference)
    assert contents(tmp_path / "threads") == contents(reference)


def test_other_settings_give_other_bytes(reference, tmp_path):
    run_sweep(replace(TINY, seeds=(0, 2)), tmp_path, executor=Inline())
    assert contents(tmp_path)["table.csv"] != contents(reference)["table.csv"]


def test_rows_are_the_moments_of_their_settings(reference):
    table = read_table(reference)
    assert len(table["weight"]) == CELLS_OF_TINY
    made = environment("parity", horizon=3)
    drifted = drift.at("noise", made.process, made.target, kl=0.2, seed=1)
    m = theory.moments(
        made.process, drifted.target, drifted.behaviour, theory.Estimator(weight="token", signal="outcome")
    )
    [row] = np.flatnonzero(
        (table["environment"] == "parity") & (table["kl_target"] == 0.2) & (table["seed"] == 1)
        & (table["weight"] == "token") & (table["signal"] == "outcome")
    )  # fmt: skip
    expected = {
        "relative_bias": m.relative_bias,
        "cosine": m.cosine,
        "variance": m.variance,
        "relative_standard_deviation": m.variance**0.5 / np.linalg.norm(m.gradient),
        "effective_step": np.linalg.norm(m.mean) / np.linalg.norm(m.gradient),
        "relative_mse_at_100": m.mean_squared_error(trajectories=100) / np.linalg.norm(m.gradient) ** 2,
        "kl_token": 0.2,
        "kl_sequence": 0.6,
    }
    assert {name: table[name][row] for name in expected} == pytest.approx(expected, rel=1e-8)


def test_columns_say_what_they_hold(reference):
    schema = pyarrow.parquet.read_schema(reference / "table.parquet")
    for field in schema:
        assert field.metadata[b"description"], field.name
        assert field.metadata[b"unit"] or field.type == "string", field.name
    names = [line.split(",")[0] for line in (reference / "columns.csv").read_text().splitlines()[1:]]
    assert names == schema.names


def test_manifest_names_versions_and_not_the_machine(reference):
    manifest = json.loads((reference / "manifest.json").read_text())
    assert manifest["tasks"] == CELLS_OF_TINY
    assert manifest["numpy"] == np.__version__
    assert str(reference) not in (reference / "manifest.json").read_text()


def test_an_environments_own_policies_have_no_divergence_asked_for(reference):
    table = read_table(reference)
    given = table["drift"] == "given"
    assert set(table["environment"][given]) == {"two_token_counterexample"}
    assert np.isnan(table["kl_target"][given]).all()
    # 2 eps log((1/2 + eps) / (1/2 - eps)) at the default eps = 0.1.
    assert table["kl_sequence"][given] == pytest.approx(0.2 * np.log(1.5), rel=1e-12)


def test_divergence_out_of_reach_is_a_row_without_numbers(tmp_path):
    sweep = replace(TINY, drifts=("mixture",), environments=("two_token_counterexample",), kl=(0.001, 5.0))
    assert run_sweep(sweep, tmp_path, executor=Inline()).failures == ()
    table = read_table(tmp_path)
    far = table["kl_target"] == 5.0
    assert set(table["status"][far]) == {"unreachable"}
    assert set(table["status"][~far]) == {"ok"}
    assert np.isnan(table["relative_bias"][far]).all()
    # What it can give is told: a uniform policy, at strength 1.
    made = environment("two_token_counterexample")
    uniform = drift.apply("mixture", made.process, made.target, 1.0)
    assert table["kl_maximum"][far] == pytest.approx(kl_behaviour_target(made.process, *uniform), rel=1e-6)
    assert np.isnan(table["kl_maximum"][~far]).all()


def test_a_finished_run_computes_nothing_again(reference, tmp_path):
    class Idle(Inline):
        def submit(self, function, /, *arguments, **options):
            raise AssertionError("there is nothing to do")

    run_sweep(TINY, tmp_path, executor=Inline())
    result = run_sweep(TINY, tmp_path, executor=Idle())
    assert result.reused == result.tasks == CELLS_OF_TINY
    assert contents(tmp_path) == contents(reference)


def test_a_sweep_that_grows_computes_what_is_new(tmp_path):
    run_sweep(replace(TINY, weights=TINY.weights[:2]), tmp_path, executor=Inline())
    result = run_sweep(TINY, tmp_path, executor=Inline())
    assert result.reused == CELLS_OF_TINY * 2 // 3


def test_results_of_other_code_do_not_count(tmp_path, monkeypatch):
    run_sweep(TINY, tmp_path, executor=Inline())
    monkeypatch.setattr("testbed.sweep.running.code_fingerprint", lambda: "changed")
    assert run_sweep(TINY, tmp_path, executor=Inline()).reused == 0


def test_a_failed_task_is_reported_and_tried_again(reference, tmp_path, monkeypatch):
    right = theory.moments

    def wrong(process, target, behaviour, estimator, **options):
        if estimator.weight.name == "sequence" and estimator.signal.name == "outcome":
            raise FloatingPointError("on\npurpose")
        return right(process, target, behaviour, estimator, **options)

    monkeypatch.setattr(theory, "moments", wrong)
    result = run_sweep(TINY, tmp_path, executor=Inline())
    assert len(result.failures) == CELLS_OF_TINY // 6
    assert {f.error for f in result.failures} == {"FloatingPointError: on purpose"}
    assert all(f.settings["weight"]["name"] == "sequence" for f in result.failures)
    assert len((tmp_path / "failures.csv").read_text().splitlines()) == 1 + len(result.failures)
    assert len(read_table(tmp_path)["weight"]) == CELLS_OF_TINY - len(result.failures)
    monkeypatch.undo()
    again = run_sweep(TINY, tmp_path, executor=Inline())
    assert again.reused == CELLS_OF_TINY - len(result.failures)
    assert contents(tmp_path) == contents(reference)
    assert not (tmp_path / "failures.csv").exists()


def test_a_worker_that_dies_takes_only_its_own_task(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed.sweep.dispatch.compute", small.deadly)
    result = run_sweep(TINY, tmp_path, workers=2)
    deadly = [cell for cell in small.cells(TINY) if small.is_deadly(cell)]
    assert len(result.failures) == len(deadly) == 2
    assert all("died" in failure.error for failure in result.failures)
    assert len(read_table(tmp_path)["weight"]) == CELLS_OF_TINY - 2


SCRIPT = """
import sys, testbed
sweep = testbed.Sweep(environments=["two_token_counterexample"], drifts=["noise"], kl=[0.05, 0.1], weights=["token"],
                      signals=["outcome"])
testbed.run_sweep(sweep, sys.argv[1], workers=int(sys.argv[2]))
"""


def test_a_script_without_a_guard_runs_with_one_worker_and_is_told_with_more(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(workers):
        command = [sys.executable, str(script), str(tmp_path / "out"), str(workers)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    many = run(2)
    assert many.returncode == 1
    assert 'if __name__ == "__main__":' in many.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").glob("*.csv"))
    assert run(1).returncode == 0
    assert len(read_table(tmp_path / "out")["weight"]) == 2


def test_one_worker_is_this_process(reference, tmp_path, monkeypatch):
    def none(workers):
        raise AssertionError("there is no need of processes")

    monkeypatch.setattr("testbed.sweep.dispatch.local_executor", none)
    assert run_sweep(TINY, tmp_path, workers=1).failures == ()
    assert contents(tmp_path) == contents(reference)


def test_an_executor_that_breaks_keeps_what_was_done(reference, tmp_path):
    from concurrent.futures import BrokenExecutor

    class Breaking(Inline):
        left = 3

        def submit(self, function, /, *arguments, **options):
            if self.left == 0:
                raise BrokenExecutor
            self.left -= 1
            return super().submit(function, *arguments, **options)

    with pytest.raises(RuntimeError, match="start again"):
        run_sweep(TINY, tmp_path, executor=Breaking())
    assert run_sweep(TINY, tmp_path, executor=Inline()).reused > 0
    assert contents(tmp_path) == contents(reference)


def test_a_torn_line_is_left_out(reference, tmp_path):
    run_sweep(TINY, tmp_path, executor=Inline())
    journal = tmp_path / FILE
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(whole) * 2 // 3])
    result = run_sweep(TINY, tmp_path, executor=Inline())
    assert 0 < result.reused < CELLS_OF_TINY
    assert contents(tmp_path) == contents(reference)


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    with Journal(tmp_path, "code"), pytest.raises(ValueError, match="another run is writing"):
        run_sweep(TINY, tmp_path, executor=Inline())


def test_not_a_number_and_infinity_survive_the_journal(tmp_path):
    values = {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 0.1 + 0.2, "e": None}
    with Journal(tmp_path, "code") as journal:
        journal.add([("key", values)])
    with Journal(tmp_path, "code") as journal:
        assert repr(journal.finished["key"]) == repr(values)


def test_progress_counts_finished_tasks(tmp_path):
    seen = []
    run_sweep(TINY, tmp_path, executor=Inline(), progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, CELLS_OF_TINY)
    assert seen[-1] == (CELLS_OF_TINY, CELLS_OF_TINY)
    assert seen == sorted(seen)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_are_a_whole_number(workers, tmp_path):
    with pytest.raises(ValueError, match="workers is"):
        run_sweep(TINY, tmp_path, workers=workers)


def test_a_missing_table_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no table"):
        read_table(tmp_path)
    (tmp_path / "table.parquet").write_text("no")
    with pytest.raises(ValueError, match="not a Parquet file"):
        read_table(tmp_path)
