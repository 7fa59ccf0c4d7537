"""What is told of an experiment: the numbers of its runs, by another way, and the texts that hold them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from testbed.arithmetic.experiment import LengthStudy, experiment_command, run_experiment, summarise_runs
from testbed.arithmetic.experiment.markdown import as_data, write_markdown
from testbed.arithmetic.experiment.printing import print_experiment
from testbed.arithmetic.experiment.statistics import share_interval
from testbed.arithmetic.experiment.summary import runs_of
from tests.testbed.arithmetic.experiment import fake
from tests.testbed.arithmetic.experiment.fake import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    run_experiment(SMALL, folder, train=fake.train, workers=1)
    return folder


@pytest.fixture(scope="module")
def summary(folder):
    return summarise_runs(SMALL, runs_of(folder))


def final(folder, name, k):
    rows = [r for r in runs_of(folder) if (r["stage"], r["name"], r["staleness"]) == ("final", name, k)]
    return [r["final_accuracy"] for r in sorted(rows, key=lambda r: r["seed"])]


def result(summary, name, k):
    [found] = [r for r in summary.results if (r.method, r.staleness) == (name, k)]
    return found


def test_results_are_those_of_the_final_runs(folder, summary):
    assert len(summary.results) == 6
    for found in summary.results:
        values = final(folder, found.method, found.staleness)
        assert found.seeds == len(values) == 3
        test = stats.ttest_1samp(values, 0.0).confidence_interval()
        expected = (np.mean(values), max(test.low, 0.0), min(test.high, 1.0))
        assert found.final_accuracy == pytest.approx(expected, rel=1e-9)


def test_comparisons_are_paired_by_seed_and_adjusted_within_their_table(folder, summary):
    for k in SMALL.staleness:
        p = {}
        for name in ("GRPO", "token ratio"):
            [found] = [c for c in result(summary, name, k).comparisons if c.reference == "MinPRO"]
            test = stats.ttest_rel(final(folder, name, k), final(folder, "MinPRO", k))
            assert found.t_p == pytest.approx(test.pvalue, rel=1e-9)
            assert found.difference.low == pytest.approx(test.confidence_interval().low, rel=1e-9)
            p[name] = found
        worse, better = sorted(p.values(), key=lambda c: c.t_p)
        assert worse.t_p_adjusted == pytest.approx(min(1.0, 2 * worse.t_p))
        assert better.t_p_adjusted == pytest.approx(max(better.t_p, worse.t_p_adjusted))
    assert [c.reference for c in result(summary, "MinPRO", 8).comparisons] == ["GRPO"]
    assert [c.reference for c in result(summary, "GRPO", 8).comparisons] == ["MinPRO"]


def test_robustness_counts_the_learning_rates_that_all_have(summary):
    assert summary.shared_learning_rates == (1e-4, 3e-4)
    found = {(r.method, r.staleness): (r.collapsed, r.runs) for r in summary.robustness}
    # Two seeds at each of two rates; two weights for those with a clip. 3e-4 makes the token ratio collapse at K = 8.
    assert found == {
        ("MinPRO", 0): (0, 8), ("GRPO", 0): (0, 8), ("token ratio", 0): (0, 4),
        ("MinPRO", 8): (0, 8), ("GRPO", 8): (0, 8), ("token ratio", 8): (2, 4),
    }  # fmt: skip


def test_configurations_name_the_one_chosen(summary):
    assert len(summary.configurations) == 2 * 3 * 4
    chosen = [c for c in summary.configurations if c.chosen]
    assert len(chosen) == 6
    for c in chosen:
        others = [o for o in summary.configurations if (o.method, o.staleness) == (c.method, c.staleness)]
        assert c.accuracy.estimate == max(o.accuracy.estimate for o in others)
        found = result(summary, c.method, c.staleness)
        assert (found.weight, found.learning_rate) == (c.weight, c.learning_rate)
    assert result(summary, "token ratio", 0).at_edge
    assert not result(summary, "token ratio", 8).at_edge


def test_ageing_is_paired_with_the_youngest_rollouts(folder, summary):
    tuning = {
        (r["weight"], r["learning_rate"], r["staleness"], r["seed"]): r["final_accuracy"]
        for r in runs_of(folder) if r["stage"] == "tuning"
    }  # fmt: skip
    assert len(summary.ageing) == 3 * 4
    for found in summary.ageing:
        assert (found.staleness, found.pairs) == (8, 2)
        old, young = (
            [tuning[found.weight, found.learning_rate, k, seed] for seed in SMALL.tuning_seeds] for k in (8, 0)
        )
        assert found.difference.estimate == pytest.approx(np.mean(np.subtract(old, young)))
        assert found.t_p == pytest.approx(stats.ttest_rel(old, young).pvalue)
    # Adjusted among the configurations that share a learning rate: five at 3e-4, one at 1e-3.
    [alone] = [a for a in summary.ageing if a.learning_rate == 1e-3]
    assert alone.t_p_adjusted == alone.t_p
    least = min((a for a in summary.ageing if a.learning_rate == 3e-4), key=lambda a: a.t_p)
    assert least.t_p_adjusted == pytest.approx(min(1.0, 5 * least.t_p))
    collapsed = [a for a in summary.ageing if (a.method, a.learning_rate) == ("token ratio", 3e-4)]
    assert collapsed[0].difference.estimate < -0.3


def test_lengths_have_a_share_per_position(summary):
    short, long = summary.lengths
    assert (short.task, short.longest, long.longest) == ("short", 3, 5)
    assert [p.estimate for p in long.by_position] == pytest.approx([1 - 0.9**t for t in range(1, 6)])
    assert short.answer_length.estimate == 3.0


def test_what_is_missing_is_left_out(folder):
    only_tuning = [row for row in runs_of(folder) if row["stage"] == "tuning"]
    summary = summarise_runs(SMALL, only_tuning)
    assert summary.results == ()
    assert not any(c.chosen for c in summary.configurations)
    assert len(summary.robustness) == 6


def test_text_is_not_wider_than_a_terminal(summary, capsys):
    print_experiment(SMALL, summary)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for part in ("K = 8", "token ratio", "0/3 [0, 71]", "2/4, ", "Clopper-Pearson", "*: the lowest or highest"):
        assert part in text
    told = " ".join(text.split())
    assert "was chosen, and 3 other seeds, paired across methods" in told
    assert told.count("other seeds") == 1


def test_columns_stay_apart_where_every_run_collapsed(summary, capsys):
    worst = [replace(r, collapsed=8, seeds=8, share_collapsed=share_interval(8, 8)) for r in summary.results]
    print_experiment(SMALL, replace(summary, results=worst))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("8/8 [63, 100] ") == len(worst)


def test_the_length_study_says_whose_learning_rate_it_is(summary, capsys):
    def told(**rates):
        tasks = {name: {"digits": 1, **({"learning_rate": r} if r else {})} for name, r in rates.items()}
        one = replace(SMALL, length=LengthStudy(tasks, seeds=(0, 1), staleness=4, learning_rate=1e-4))
        print_experiment(one, summary)
        return " ".join(capsys.readouterr().out.split())

    assert "K = 4, learning rate 1e-4, in per cent" in told(short=None, long=None)
    assert "K = 4, learning rate 1e-4 to 2e-4, the task's own, in per cent" in told(short=None, long=2e-4)


def test_markdown_has_every_table(folder, summary, tmp_path):
    text = write_markdown(tmp_path, SMALL, summary).read_text()
    assert text.count("\n## ") == 2 + 2 + 1 + 1
    assert text.count("Final accuracy less that of") == 4
    # Three pairs: all signs alike in 2 of 8 cases; two other methods.
    assert "Signed ranks of 3 pairs have a p-value of 0.250 at the least, after Holm over 2 methods of 0.500." in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2 * 3 + 2 + 1 + 1
    assert all(len({line.count(" | ") for line in t}) == 1 for t in tables)


def test_json_has_no_number_that_json_has_not(summary):
    data = json.loads(json.dumps(as_data(summary), allow_nan=False))
    first = data["results"][0]
    assert first["final_accuracy"]["estimate"] == summary.results[0].final_accuracy.estimate
    assert {*first["final_accuracy"]} == {"estimate", "low", "high"}
    assert math.isnan(summary.lengths[0].floor.low) == (data["lengths"][0]["floor"]["low"] is None)


TOML = """
name = "mine"
staleness = [0, 8]
tuning_seeds = [100]
final_seeds = [0, 1]
references = ["a"]
[training]
steps = 10
evaluate_every = 5
exact_every = 5
[[methods]]
name = "a"
level = "prefix"
weights = ["minpro(clip=(0.8, 1.28))"]
learning_rates = [1e-4, 3e-4]
[[methods]]
name = "b"
weights = ["token"]
learning_rates = [1e-4, 3e-4]
[length.tasks]
short = {digits = 1}
"""


def test_command_prints_writes_and_draws(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(TOML)

    def run(as_json, train=fake.train):
        return experiment_command(str(file), tmp_path / "out", 1, quick=False, as_json=as_json, train=train)

    assert run(False) == 0
    out, err = capsys.readouterr()
    assert "K = 8" in out
    assert "training runs in" in err
    assert "drew learning_curves, accuracy_by_learning_rate, cosine_along_training, floor_by_length" in err
    assert run(True) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["reused"] == data["tasks"]
    written = {str(p.name) for p in (tmp_path / "out").rglob("*") if p.is_file()} - {"journal.jsonl", "journal.lock"}
    assert {path.rsplit("/", 1)[-1] for path in data["files"]} == written
    with pytest.raises(ValueError, match="unknown experiment 'stalenes'"):
        experiment_command("stalenes", None, 1, quick=False, as_json=False)


def test_command_says_what_failed(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(TOML.replace("[100]", "[101]"))
    status = experiment_command(str(file), tmp_path / "out", 1, quick=False, as_json=False, train=fake.failing)
    assert status == 1
    err = capsys.readouterr().err
    assert "failed: tuning b: token, K=8, lr=0.0001, seed=101: FloatingPointError: on purpose" in err
    assert "the same command tries them again" in err
