"""The figures of an experiment: what they draw is what its runs found."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from figures import __main__ as command
from figures import accuracy_by_learning_rate, cosine_along_training, floor_by_length, learning_curves, runs
from tests.testbed.arithmetic.experiment import fake
from tests.testbed.arithmetic.experiment.fake import SMALL

MODULES = (learning_curves, accuracy_by_learning_rate, cosine_along_training, floor_by_length)


def drawn(name):
    """The files of a figure."""
    more = [f"{name}_exact.csv"] if name == "floor_by_length" else []
    return {f"{name}.{kind}" for kind in ("png", "svg", "csv")} | {*more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from testbed.arithmetic.experiment import run_experiment

    folder = tmp_path_factory.mktemp("experiment")
    run_experiment(SMALL, folder, train=fake.train, workers=1)
    return folder


def options_of(row, seed):
    options = {**SMALL.training, **SMALL.final_training, "weight": row["weight"], "staleness": int(row["staleness"])}
    return {**options, "learning_rate": float(row["learning_rate"]), "seed": seed}


def expected(values):
    interval = stats.ttest_1samp(values, 0.0).confidence_interval()
    return np.mean(values), interval.low, interval.high


@pytest.mark.parametrize(("module", "column", "steps"), [
    (learning_curves, "accuracy", [0, 5, 10, 15, 20]), (cosine_along_training, "cosine", [0, 10, 20]),
])  # fmt: skip
def test_lines_are_means_of_the_runs(module, column, steps, folder, tmp_path, read):
    rows = read(module.draw(folder, tmp_path)[-1])
    assert len(rows) == 2 * 3 * len(steps)
    for row in rows:
        logs = [fake.train(options_of(row, seed)).log for seed in SMALL.final_seeds]
        values = [log[column][int(row["step"])] for log in logs]
        mean, low, high = expected(values)
        assert float(row["mean"]) == pytest.approx(mean, rel=1e-9)
        assert float(row["low"]) == pytest.approx(max(low, 0.0) if not math.isnan(low) else mean, rel=1e-9)
        assert float(row["high"]) == pytest.approx(min(high, 1.0) if not math.isnan(high) else mean, rel=1e-9)
        assert int(row["seeds"]) == 3
    assert sorted({int(row["step"]) for row in rows}) == steps


def test_a_run_that_broke_off_answers_nothing_from_then_on(tmp_path, read):
    from testbed.arithmetic.experiment import run_experiment

    run_experiment(SMALL, tmp_path, train=breaking, workers=1)
    rows = read(learning_curves.draw(tmp_path, tmp_path / "out")[-1])
    at = {int(r["step"]): r for r in rows if (r["method"], r["staleness"]) == ("token ratio", "8")}
    # Seed 1 breaks off at step 12: 12 is no step of the others and not drawn.
    assert sorted(at) == [0, 5, 10, 15, 20]
    others = [fake.train(options_of(at[15], seed)).log["accuracy"][15] for seed in (0, 2)]
    assert float(at[15]["mean"]) == pytest.approx(sum(others) / 3)
    # The control: before, all three count.
    assert float(at[10]["mean"]) > 0.9 * float(at[15]["mean"])
    cosine = read(cosine_along_training.draw(tmp_path, tmp_path / "out")[-1])
    seeds = {int(r["step"]): int(r["seeds"]) for r in cosine if (r["method"], r["staleness"]) == ("token ratio", "8")}
    assert seeds == {0: 3, 10: 3, 20: 2}


def test_a_step_at_which_a_method_was_not_looked_at_is_no_point_of_its_line(tmp_path, read):
    """Exact moments come at steps of their own, and with them an accuracy; a weight without any has neither."""
    from testbed.arithmetic.experiment import run_experiment

    run_experiment(SMALL, tmp_path, train=inexact, workers=1)
    rows = read(learning_curves.draw(tmp_path, tmp_path / "out")[-1])
    for method, steps in (("GRPO", [0, 5, 10, 15, 20]), ("MinPRO", [0, 5, 7, 10, 15, 20])):
        mine = [r for r in rows if (r["method"], r["staleness"]) == (method, "8")]
        assert [int(r["step"]) for r in mine] == steps
        assert min(float(r["mean"]) for r in mine) > 0.3
    cosine = read(cosine_along_training.draw(tmp_path, tmp_path / "out")[-1])
    assert not any(math.isfinite(float(r["mean"])) for r in cosine if r["method"] == "GRPO")
    assert [int(r["step"]) for r in cosine if (r["method"], r["staleness"]) == ("MinPRO", "8")] == [0, 7, 10, 20]


def inexact(options):
    run = fake.train(options)
    if options["weight"].startswith("ppo_clip"):
        run.log["cosine"][:] = math.nan
    elif options.get("exact_every"):
        run.log["cosine"][7] = run.log["accuracy"][7] = 0.5
    return run


def breaking(options):
    run = fake.train(options)
    if (options["weight"], options["staleness"], options["seed"]) == ("token", 8, 1):
        run = fake.broken(run, 12)
        run.log["cosine"][-1] = math.nan
    return run


def test_accuracies_are_those_of_the_tuning_runs(folder, tmp_path, read):
    rows = read(accuracy_by_learning_rate.draw(folder, tmp_path)[-1])
    assert len(rows) == 2 * 3 * 4
    for row in rows:
        options = {**SMALL.training, "weight": row["weight"], "staleness": int(row["staleness"])}
        made = [
            fake.train({**options, "learning_rate": float(row["learning_rate"]), "seed": seed})
            for seed in SMALL.tuning_seeds
        ]
        mean, low, high = expected([run.log["accuracy"][-1] for run in made])
        assert float(row["mean"]) == pytest.approx(mean, rel=1e-9)
        assert float(row["low"]) == pytest.approx(max(low, 0.0), rel=1e-9, abs=1e-12)
        assert float(row["high"]) == pytest.approx(min(high, 1.0), rel=1e-9)
        assert int(row["collapsed"]) == sum(run.collapsed_at is not None for run in made)
        assert 0.3 < float(row["base"]) < 0.5
    assert sum(int(row["collapsed"]) for row in rows) > 0


def test_exact_floors_are_those_of_plain_sums(folder, tmp_path, read):
    rows = read(floor_by_length.draw(folder, tmp_path)[-1])
    log_ratio, chance = floor_by_length.token_law(10, kl=0.1)
    ratio = np.exp(log_ratio)
    for row in rows:
        t, share = int(row["position"]), float(row["share"])
        if float(row["kl_token"]) == 0.1 and t <= 3:
            # P(m_t rho_t <= 0.8): with t - 1 earlier tokens the minimum is over m with P(min >= m)^(t - 1).
            total = 0.0
            at_least = np.array([chance[ratio >= m].sum() for m in ratio]) ** (t - 1)
            above = np.array([chance[ratio > m].sum() for m in ratio]) ** (t - 1)
            least = at_least - above if t > 1 else None
            for r, p in zip(ratio, chance, strict=True):
                if t == 1:
                    total += p * (r <= 0.8)
                else:
                    # Ties share a value of the minimum: count each value once.
                    values, first = np.unique(ratio, return_index=True)
                    total += p * float(least[first][values * r <= 0.8].sum())
            assert share == pytest.approx(total, abs=1e-9)
    at = {float(r["kl_token"]): float(r["share"]) for r in rows if r["position"] == "1000"}
    assert at[0.001] < at[0.01] < at[0.1]
    assert at[0.1] > 0.99


def test_floors_are_those_of_the_length_study(folder, tmp_path, read):
    rows = read(floor_by_length.draw(folder, tmp_path)[-2])
    by_position = {(r["task"], r["position"]): float(r["share"]) for r in rows}
    assert len(rows) == (3 + 1) + (5 + 1)
    for (task, position), share in by_position.items():
        if position == floor_by_length.WHOLE:
            digits = SMALL.length.tasks[task]["digits"]
            options = {**SMALL.training, "weight": SMALL.length.weight, "learning_rate": 3e-4, "staleness": 4}
            logs = [fake.train({**options, "task": {"digits": digits}, "seed": seed}).log for seed in (0, 1)]
            assert share == pytest.approx(np.mean([log["floor_fraction"][4:20] for log in logs]), rel=1e-9)
        else:
            assert share == pytest.approx(1 - 0.9 ** int(position), rel=1e-9)
    assert {float(r["mean_length"]) for r in rows} == {3.0, 5.0}


@pytest.mark.parametrize("module", MODULES)
def test_texts_say_what_is_drawn(module, folder, tmp_path):
    text = module.draw(folder, tmp_path)[1].read_text(encoding="utf-8")
    parts = {
        "learning_curves": (
            "K = 0: every weight is 1",
            "K = 8",
            "MinPRO",
            "token ratio",
            "accuracy, %",
            "group(size=8)",
        ),
        "cosine_along_training": ("K = 8", "cosine", "updates", "95 % interval"),
        "accuracy_by_learning_rate": ("learning rate", "2 seeds", "K = 8", "MinPRO", "accuracy, %", "base model"),
        "floor_by_length": ("minpro(clip=(0.8, 1.28))", "K = 4", "2 seeds", "lower bound, %", "i.i.d. tokens, KL 0.1"),
    }
    for part in parts[module.NAME]:
        assert part in text, part
    assert module.NAME in runs.EXPERIMENT_FIGURES


def test_all_are_drawn_twice_with_the_same_bytes(folder, tmp_path):
    paths = runs.draw_experiment(folder, tmp_path / "a")
    again = runs.draw_experiment(str(folder), tmp_path / "b")
    assert {p.stem for p in paths if p.suffix == ".png"} == {*runs.EXPERIMENT_FIGURES}
    for path, other in zip(paths, again, strict=True):
        assert path.read_bytes() == other.read_bytes(), path.name
        if path.suffix == ".png":
            width, height = struct.unpack(">II", path.read_bytes()[16:24])
            assert width == 1920
            assert height > 700


def test_methods_are_told_apart_in_every_row():
    from testbed.arithmetic.experiment import packaged_experiment

    experiment = packaged_experiment("staleness")
    methods = experiment.plain["methods"]
    looks = runs.looks_of(methods)
    assert len({look["marker"] for look in looks.values()}) == len(methods)
    assert len({(look["color"], str(look["linestyle"])) for look in looks.values()}) == len(methods)
    for level in ("token", "prefix"):
        shown = [m["name"] for m in methods if m["level"] == level or m["name"] in experiment.references[:1]]
        assert len({looks[name]["color"] for name in shown}) == len(shown)


def test_what_cannot_be_drawn_is_left_out(folder, tmp_path, monkeypatch, capsys):
    from testbed.arithmetic.experiment import run_experiment

    def broken(results, out):
        raise RuntimeError("on\npurpose")

    without = {name: getattr(SMALL, name) for name in ("methods", "staleness", "tuning_seeds", "final_seeds")}
    bare = type(SMALL)(**without, training=SMALL.training, references=SMALL.references)
    run_experiment(bare, tmp_path, train=fake.train, workers=1)
    monkeypatch.setattr(learning_curves, "draw", broken)
    paths = runs.draw_experiment(tmp_path, tmp_path / "out")
    assert {path.name for path in paths} == drawn("accuracy_by_learning_rate")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "figures: learning_curves failed: RuntimeError: on purpose"
    # Only the last step has a cosine where no other was asked for; the fake has none at all.
    assert said[1] == "figures: cosine_along_training is left out: no final run has a finite cosine"
    assert said[2] == "figures: floor_by_length is left out: runs.parquet has no length runs"


@pytest.mark.parametrize("module", MODULES)
def test_without_an_experiment_one_sentence_says_what_to_do(module, tmp_path):
    for results in (None, tmp_path):
        with pytest.raises(ValueError, match="run `testbed experiment` first"):
            module.draw(results, tmp_path)


def test_command_draws_experiments_as_well(folder, tmp_path, monkeypatch, capsys):
    assert command.main(["--results", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(str(p) for p in (tmp_path / "out").iterdir())
    # By default the folders of both, each where it exists.
    monkeypatch.setattr(command, "EXPERIMENT", folder)
    monkeypatch.setattr(command, "SWEEP", tmp_path / "none")
    assert command.main([]) == 0
    assert {Path(line).name for line in capsys.readouterr().out.split()} == {
        name for figure in runs.EXPERIMENT_FIGURES for name in drawn(figure)
    }
    monkeypatch.setattr(command, "EXPERIMENT", tmp_path / "none")
    assert command.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("module", MODULES)
def test_a_figure_is_drawn_again_from_the_data_beside_it(module, folder, tmp_path):
    first = module.draw(folder, tmp_path / "first")
    (tmp_path / "first" / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    again = module.draw(tmp_path / "first", tmp_path / "again")
    for path, other in zip(first, again, strict=True):
        assert path.read_bytes() == other.read_bytes(), path.name
    # The control: other data are another picture.
    kept = tmp_path / "first" / f"{module.NAME}.csv"
    data = kept.read_text(encoding="utf-8").splitlines()
    kept.write_text("\n".join(data[:-1]) + "\n", encoding="utf-8")
    assert module.draw(tmp_path / "first", tmp_path / "other")[1].read_bytes() != again[1].read_bytes()


def test_the_gallery_has_them_without_the_experiment(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "EXPERIMENT", tmp_path / "none")
    monkeypatch.setattr(command, "SWEEP", tmp_path / "none either")
    assert command.main(["--gallery", str(tmp_path / "docs" / "figures")]) == 0
    written = {Path(line).name for line in capsys.readouterr().out.split()}
    assert written == {name for figure in runs.EXPERIMENT_FIGURES for name in drawn(figure)}
    for name in runs.EXPERIMENT_FIGURES:
        kept = command.KEPT / f"{name}.csv"
        assert (tmp_path / "docs" / "staleness" / kept.name).read_bytes() == kept.read_bytes()


def test_settings_come_from_the_manifest(folder):
    assert runs.settings_of(folder) == json.loads(json.dumps(SMALL.plain))
