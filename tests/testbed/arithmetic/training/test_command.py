"""`testbed train` as its users meet it."""

import json
import sys

import pytest

from testbed import cli
from testbed.arithmetic.training import read_run

SMALL = (
    "--set", "task.operation=modular_addition", "--set", "task.digits=1", "--set", "task.modulus=7",
    "--set", "warm_up.accuracy=0.3", "--set", "warm_up.measured_on=training", "--set", "width=16", "--set", "layers=1",
    "--set", "evaluation_prompts=8", "--set", "exact_prompts=2", "--steps", "8", "--set", "evaluate_every=2",
)  # fmt: skip


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFFPOLICY_TESTBED_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["testbed", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return call


def test_the_table_says_what_the_run_measured(run, tmp_path):
    status, out, err = run(*SMALL, "--weight", "minpro(clip=(0.8, 1.28))", "--staleness", "2", "--exact", "--out", "r")
    assert status == 0
    assert "minpro(clip=(0.8, 1.28)) x group(size=8" in out
    assert "rollouts 2 updates old, modular addition modulo 7 of 1 digits" in out
    assert "The run has not collapsed." in out
    log = read_run(tmp_path / "r").log
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "2", "4", "6", "8"]
    assert rows[-1][1] == f"{log['expected_reward'][8]:.3f}"
    assert rows[2][-3] == f"{log['cosine'][4]:.4f}"
    assert rows[2][-1] == f"{log['relative_standard_deviation'][4]:.2f}"
    assert "8 updates in" in err
    assert max(map(len, out.splitlines())) <= 120


def test_json_holds_every_row_and_equal_settings_share_a_folder(run, tmp_path):
    status, out, _ = run(*SMALL, "--json")
    assert status == 0
    data = json.loads(out)
    assert len(data["rows"]) == 9
    assert data["rows"][1]["accuracy"] is None
    assert data["collapsed_at"] is None
    again = json.loads(run(*SMALL, "--json")[1])
    assert again == data
    assert json.loads(run(*SMALL, "--seed", "1", "--json")[1])["folder"] != data["folder"]
    assert len(list((tmp_path / "results" / "train").iterdir())) == 2


def test_a_collapse_is_said(run):
    _, out, _ = run(
        *SMALL, "--learning-rate", "1", "--set", "learning_rate_warmup=0", "--set", "max_gradient_norm=None"
    )
    assert "The run collapsed, first seen after update" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weight", "minpo"], "testbed: unknown weight 'minpo'; the nearest known name is 'minpro'"),
        (["--device", "cuda:99"], "testbed: device 'cuda:99' cannot be used here"),
        (["--set", "prompt=3"], "testbed: unknown setting 'prompt'; the nearest known name is 'prompts'"),
        (["nowhere.toml"], "testbed: No such file or directory: 'nowhere.toml'\n"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, sentence, run):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
