"""Running an experiment: the same tables however it is cut, failures where they are, nothing chosen from a part."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import testbed
from testbed.arithmetic.experiment import run_experiment
from testbed.arithmetic.experiment.running import LIBRARIES, SOURCES
from testbed.arithmetic.experiment.summary import runs_of
from testbed.sweep import provenance
from testbed.sweep.journal import FILE
from testbed.sweep.table import read_table
from tests.testbed.arithmetic.experiment import fake
from tests.testbed.arithmetic.experiment.fake import RUNS, SMALL, contents

TESTBED = Path(testbed.__path__[0])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run, computed where it stands."""
    folder = tmp_path_factory.mktemp("reference")
    assert run_experiment(SMALL, folder, train=fake.train, workers=1).failures == ()
    return folder


def test_every_run_is_in_the_table(reference):
    runs = runs_of(reference)
    assert len(runs) == RUNS
    assert Counter(row["stage"] for row in runs) == {"tuning": 48, "final": 18, "length": 4}
    # Collapsed ones with what they ended with.
    collapsed = [row for row in runs if row["collapsed"]]
    assert len(collapsed) == 4
    assert all(0.0 <= row["final_accuracy"] < 0.1 for row in collapsed)
    assert all(row["collapsed_at"] == 10 for row in collapsed)


def test_rows_are_those_of_their_settings(reference):
    [row] = [
        r for r in runs_of(reference) if (r["stage"], r["name"], r["staleness"], r["seed"]) == ("final", "GRPO", 8, 1)
    ]
    options = {**SMALL.training, **SMALL.final_training, "weight": row["weight"], "staleness": 8, "seed": 1}
    run = fake.train({**options, "learning_rate": row["learning_rate"]})
    assert row["final_accuracy"] == run.log["accuracy"][-1]
    assert row["mean_cosine"] == pytest.approx(np.nanmean(run.log["cosine"][8:]), rel=1e-12)
    curves = read_table(reference / "curves.parquet")
    mine = (
        (curves["stage"] == "final") & (curves["name"] == "GRPO") & (curves["staleness"] == 8) & (curves["seed"] == 1)
    )
    assert curves["step"][mine].tolist() == [0, 5, 10, 15, 20]
    np.testing.assert_array_equal(curves["accuracy"][mine], run.log["accuracy"][::5])
    assert set(curves["stage"]) == {"final", "length"}


def test_final_runs_have_the_configuration_that_tuning_chose(reference):
    runs = runs_of(reference)
    for method in SMALL.methods:
        for k in SMALL.staleness:
            mine = [r for r in runs if (r["name"], r["staleness"]) == (method.name, k)]
            means = {
                c: np.mean([
                    r["final_accuracy"] for r in mine
                    if r["stage"] == "tuning" and (r["weight"], r["learning_rate"]) == c
                ])
                for c in method.configurations
            }  # fmt: skip
            found = {(r["weight"], r["learning_rate"]) for r in mine if r["stage"] == "final"}
            assert found == {max(means, key=means.get)}
    # The rate that is best where it is borne is not the one chosen where it is not.
    rates = {r["staleness"]: r["learning_rate"] for r in runs if r["stage"] == "final" and r["name"] == "token ratio"}
    assert rates == {0: 1e-3, 8: 2e-4}


def test_processes_give_the_same_bytes(reference, tmp_path):
    seen = []
    result = run_experiment(
        SMALL, tmp_path, train=fake.train, workers=2, progress=lambda done, total: seen.append((done, total))
    )
    assert contents(tmp_path) == contents(reference)
    assert (result.tasks, result.reused) == (RUNS, 0)
    assert seen[0] == (0, RUNS)
    assert seen[-1] == (RUNS, RUNS)
    assert seen == sorted(seen)


def test_what_is_finished_is_not_computed_again(reference, tmp_path):
    def idle(options):
        raise AssertionError("there is nothing to do")

    run_experiment(SMALL, tmp_path, train=fake.train, workers=1)
    assert run_experiment(SMALL, tmp_path, train=idle, workers=1).reused == RUNS
    # Cut anywhere, in a line or between two, it comes out the same.
    journal = tmp_path / FILE
    whole = journal.read_bytes()
    for share in (0.1, 0.5, 0.9):
        journal.write_bytes(whole[: round(share * len(whole))])
        result = run_experiment(SMALL, tmp_path, train=fake.train, workers=1)
        assert 0 < result.reused < RUNS
        assert contents(tmp_path) == contents(reference)
    # The control: other settings, other bytes.
    run_experiment(replace(SMALL, final_seeds=(0, 1, 3)), tmp_path, train=fake.train, workers=1)
    assert contents(tmp_path)["runs.csv"] != contents(reference)["runs.csv"]


SCRIPT = """
import sys
from testbed.arithmetic.experiment import run_experiment
from tests.testbed.arithmetic.experiment import fake
if __name__ == "__main__":
    run_experiment(fake.SMALL, sys.argv[1], train=fake.slow, workers=2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill")
def test_killed_and_resumed_gives_the_same_bytes(reference, tmp_path):
    script, folder = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    here = str(Path(__file__).parents[4])
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)], env={**os.environ, "PYTHONPATH": here}, start_new_session=True
    )
    end = time.monotonic() + 120
    while not (folder / FILE).exists() or (folder / FILE).read_bytes().count(b"\n") < 5:
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
    process.kill()
    process.communicate()
    result = run_experiment(SMALL, folder, train=fake.train, workers=1)
    assert 5 <= result.reused < RUNS, "the kill did not fall into the middle"
    assert contents(folder) == contents(reference)


def test_nothing_is_chosen_from_part_of_the_tuning_runs(reference, tmp_path):
    result = run_experiment(SMALL, tmp_path, train=fake.failing, workers=1)
    assert {f.error for f in result.failures} == {"FloatingPointError: on purpose"}
    assert len(result.failures) == 4
    assert result.failures[0].label == "tuning token ratio: token, K=8, lr=0.0001, seed=101"
    assert (tmp_path / "failures.csv").read_text().count("on purpose") == 4
    assert {row["stage"] for row in runs_of(tmp_path)} == {"tuning", "length"}
    again = run_experiment(SMALL, tmp_path, train=fake.train, workers=1)
    assert again.reused == 48 - 4 + 4
    assert contents(tmp_path) == contents(reference)
    assert not (tmp_path / "failures.csv").exists()


def test_a_run_that_kills_its_process_takes_only_itself(tmp_path):
    result = run_experiment(SMALL, tmp_path, train=fake.deadly, workers=2)
    assert len(result.failures) == 4
    assert all("died" in failure.error for failure in result.failures)
    assert len(runs_of(tmp_path)) == 48 - 4 + 4


def test_an_executor_that_breaks_keeps_what_was_done(tmp_path):
    from tests.testbed.sweep.small import Inline

    class Breaking(Inline):
        left = 7

        def submit(self, function, /, *arguments, **options):
            if self.left == 0:
                raise BrokenExecutor
            self.left -= 1
            return super().submit(function, *arguments, **options)

    with pytest.raises(RuntimeError, match="start again"):
        run_experiment(SMALL, tmp_path, train=fake.train, executor=Breaking())
    assert run_experiment(SMALL, tmp_path, train=fake.train, executor=Inline()).reused == 7


def test_manifest_names_the_machine_by_what_it_is(reference):
    text = (reference / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["cpu"] == provenance.cpu_model() != ""
    assert (manifest["tasks"], manifest["failed"], manifest["workers"]) == (RUNS, 0, 1)
    assert manifest["code"] == provenance.code_fingerprint(SOURCES, LIBRARIES)
    assert len(manifest["chosen"]) == 6
    assert manifest["settings"]["final_seeds"] == [0, 1, 2]
    assert os.uname().nodename not in text
    assert str(reference) not in text
    assert str(Path.home()) + "/" not in text


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_are_a_whole_number(workers, tmp_path):
    with pytest.raises(ValueError, match="workers is"):
        run_experiment(SMALL, tmp_path, train=fake.train, workers=workers)


def test_options_are_checked_before_the_first_run(tmp_path):
    with pytest.raises(ValueError, match="unknown setting 'step'; the nearest known name is 'steps'"):
        run_experiment(replace(SMALL, training={"step": 3}), tmp_path, workers=1)
    assert not (tmp_path / FILE).exists()


def imported(path):
    """The files of testbed that a file imports, at its top or in a function; a package's names by their modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "testbed":
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                file = TESTBED.joinpath(*name.split(".")[1:])
                found |= {f for f in (file.with_suffix(".py"), file / "__init__.py") if f.is_file()}
    return found


def test_all_that_a_run_is_computed_with_is_fingerprinted():
    # The packages' own names, where a run's own files go, and which tasks there are: a change of what is stored raises
    # `tasks.SCHEMA`.
    aside = {"__init__.py", "arithmetic/__init__.py", "arithmetic/experiment/tasks.py", "sweep"}
    todo, seen = [TESTBED / "arithmetic" / "experiment" / "computing.py"], set()
    while todo:
        path = todo.pop()
        name = path.relative_to(TESTBED).as_posix()
        if path not in seen and not any(name == a or name.startswith(f"{a}/") for a in aside):
            seen.add(path)
            todo += imported(path)
    used = {path.relative_to(TESTBED).as_posix() for path in seen} - {"arithmetic/experiment/computing.py"}
    assert {"arithmetic/training/running.py", "arithmetic/rollout.py", "spelling.py"} <= used
    counted = {
        path.relative_to(TESTBED).as_posix() for part in SOURCES for path in provenance._python_files(TESTBED / part)
    }
    assert used <= counted, used - counted
    # Printing and statistics do not make finished runs stale.
    assert not any("experiment/printing" in name or "experiment/statistics" in name for name in counted)


def test_fingerprints_tell_sources_and_libraries_apart():
    found = {
        provenance.code_fingerprint(),
        provenance.code_fingerprint(SOURCES),
        provenance.code_fingerprint(SOURCES, LIBRARIES),
        provenance.code_fingerprint(SOURCES[1:], LIBRARIES),
    }
    assert len(found) == 4
