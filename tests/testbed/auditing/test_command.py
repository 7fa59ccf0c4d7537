"""`testbed audit`: exit statuses, messages, JSON."""

import json
import math
import subprocess
import sys

import pytest

from testbed.auditing import spelling
from testbed.cli import main

EXAMPLES = "testbed.auditing.examples"
LOSSES = "tests.testbed.auditing.losses"
SMALL = ("--environment", "parity(horizon=3)")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["testbed", "audit", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return call


def test_a_loss_that_is_what_was_expected(run):
    status, out, err = run(f"{EXAMPLES}:ppo_clip_token_mean", "--expect", "ppo_clip(clip=(0.8, 1.28))", *SMALL)
    assert status == 0
    assert "ppo_clip(clip=(0.8, 1.28)) x token_mean" in out
    assert "equal, constant 1" in " ".join(out.split())
    assert "the loss is ppo_clip" in err


@pytest.mark.parametrize(
    ("loss", "expect"),
    [
        ("ppo_clip_token_mean", ("--expect", "ppo_clip")),
        ("cispo", ("--expect", "minpro")),
        ("cispo", ("--expect", "cispo", "--reduction", "sum")),
        ("cispo", ("--reduction", "length_mean")),
        ("cispo_without_stop_gradient", ("--expect", "cispo")),
    ],
)
def test_a_loss_that_is_something_else(run, loss, expect):
    status, _, err = run(f"{EXAMPLES}:{loss}", *expect, *SMALL)
    assert status == 1
    assert "the loss is not" in err


def test_recipes_and_options_of_the_loss(run):
    assert run(f"{EXAMPLES}:ppo_clip_token_mean", "--expect", "paper:dapo", *SMALL)[0] == 0
    assert run(f"{EXAMPLES}:ppo_clip_token_mean", "--expect", "paper:dr_grpo", *SMALL)[0] == 1
    narrow = ("--option", "clip_high=0.2")
    assert run(f"{EXAMPLES}:ppo_clip_token_mean", "--expect", "ppo_clip", *narrow, *SMALL)[0] == 0
    assert run(f"{EXAMPLES}:cispo", "--reduction", "token_mean", *SMALL)[0] == 0
    assert run(f"{EXAMPLES}:cispo_without_stop_gradient", *SMALL)[0] == 0


def test_json_holds_the_numbers(run):
    status, out, _ = run(f"{EXAMPLES}:minpro", "--json", "--expect", "minpro", *SMALL)
    assert status == 0
    data = json.loads(out)
    assert data["nearest"]["name"] == "minpro"
    assert data["nearest"]["equal"] is True
    assert data["expected"]["constant"] == pytest.approx(1.0, rel=1e-10)
    m = data["moments"]
    assert len(m["mean"]) == len(m["bias"]) == len(m["gradient"]) == 4
    bias = math.sqrt(sum(x * x for x in m["bias"])) / math.sqrt(sum(x * x for x in m["gradient"]))
    assert m["relative_bias"] == pytest.approx(bias, rel=1e-12)
    for i, total in enumerate(m["bias"]):
        assert sum(term[i] for term in data["causes"].values()) == pytest.approx(total, abs=1e-13)
    assert data["micro_batches"]["rule"] == "mean"
    assert [f["identifier"] for f in data["findings"] if f["fault"]] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((f"{EXAMPLES}:cispoo",), "unknown function 'cispoo'"),
        ((f"{EXAMPLES}:cispo", "--expect", "cispp"), "the nearest known name is 'cispo'"),
        ((f"{EXAMPLES}:cispo", "--expect", "ppo_clip(clp=1)"), "the nearest known name is 'clip'"),
        ((f"{EXAMPLES}:cispo", "--expect", "ppo_clip(0.8"), "expected one such as ppo_clip("),
        ((f"{EXAMPLES}:cispo", "--expect", "decoupled"), "expected a loss of both old_logp and rollout_logp"),
        ((f"{EXAMPLES}:cispo", "--reduction", "token_men"), "the nearest known name is 'token_mean'"),
        ((f"{EXAMPLES}:cispo", "--option", "cap"), "expected name=value"),
        ((f"{EXAMPLES}:cispo", "--option", "capp=3"), "the nearest known name is 'cap'"),
        ((f"{EXAMPLES}:cispo", "--environment", "paritty"), "the nearest known name is 'parity'"),
        ((f"{EXAMPLES}:cispo", "--signal", "outcom"), "the nearest known name is 'outcome'"),
        (("no.such.module:loss",), "cannot be imported: ModuleNotFoundError"),
        (("testbed.auditing.examples",), "expected package.module:function"),
        ((f"{LOSSES}:two_numbers",), "expected a scalar tensor"),
        ((f"{LOSSES}:a_float",), "returns a float; expected a scalar tensor"),
        ((f"{LOSSES}:needs_reference",), "has a parameter 'ref_logp' that nothing fills"),
        ((f"{LOSSES}:fails",), "fails with RuntimeError: no such thing"),
    ],
)
def test_an_audit_that_cannot_be_made_is_one_sentence(run, arguments, says):
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_without_torch_it_says_how_to_get_it():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['testbed', 'audit', 'math:sqrt']\n"
        "import testbed; from testbed.cli import main; main()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stdout == ""
    assert "pip install 'offpolicy-testbed[torch]'" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_the_help_fits_a_screen(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run("--help")
    assert status == 0
    assert len(out.splitlines()) <= 40
    assert max(map(len, out.splitlines())) <= 80


def test_the_report_is_text_of_a_fixed_width(run):
    _, out, _ = run(f"{EXAMPLES}:cispo_without_stop_gradient", "--expect", "cispo", *SMALL)
    assert max(map(len, out.splitlines())) <= 100
    assert "missing_stop_gradient (FAULT)" in out
    assert "differs" in out


def test_spellings():
    assert spelling.call("ppo_clip(clip=(0.8, inf), dual=None)") == (
        "ppo_clip", {"clip": (0.8, math.inf), "dual": None},
    )  # fmt: skip
    assert spelling.call("paper:dapo") == ("paper:dapo", {})
    assert spelling.options(["level=sequence", "x=-1"]) == {"level": "sequence", "x": -1}
    for wrong in ("f(1)", "f(**x)", "f(x=)", "f(x=1", "f(x=g())"):
        with pytest.raises(ValueError, match=r"expected one such as ppo_clip\("):
            spelling.call(wrong)
