"""`testbed audit`: exit statuses, messages, JSON."""

import json
import math
import subprocess
import sys

import pytest

import testbed
import theory
from testbed import spelling
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
        ((f"{LOSSES}:leaves",), "fails with SystemExit"),
        ((f"{EXAMPLES}:cispo", "--batch", "0"), "at least 1"),
        ((f"{EXAMPLES}:cispo", "--signal", "group(4)"), "expected one such as group(size=4)"),
        ((f"{EXAMPLES}:cispo", "--expect", "paper:dapoo"), "the nearest known names are 'paper:dapo'"),
        ((f"{EXAMPLES}:cispo", "--expect", "paper:dapo", "--reduction", "sum"), "expected one"),
        ((f"{EXAMPLES}:cispo", "--environment", "token_tree(depth=12)"), "an audit takes at most 200000"),
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
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Without()); sys.argv = ['testbed', 'audit', 'math:sqrt']\n"
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


def test_the_report_is_as_wide_as_the_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(f"{EXAMPLES}:cispo_without_stop_gradient", "--expect", "cispo", *SMALL)
    assert max(map(len, out.splitlines())) <= 80
    assert "missing_stop_gradient (FAULT)" in out
    assert "differs" in out


def test_spellings():
    assert spelling.call("ppo_clip(clip=(0.8, inf), dual=None)") == (
        "ppo_clip", {"clip": (0.8, math.inf), "dual": None},
    )  # fmt: skip
    assert spelling.call("paper:dapo") == ("paper:dapo", {})
    assert spelling.options(["level=sequence", "x=-1"]) == {"level": "sequence", "x": -1}
    nested = "decoupled(update=ppo_clip(clip=(0.8, 1.28)), behaviour=truncated(level=sequence))"
    _, options = spelling.call(nested)
    assert options["behaviour"] == theory.weight("truncated", level="sequence")
    assert theory.weight("decoupled", **options).label == nested
    with pytest.raises(ValueError, match="unknown weight 'g'"):
        spelling.call("f(x=g())")
    for wrong in ("f(1)", "f(**x)", "f(x=)", "f(x=1", "f(x=g(1))"):
        with pytest.raises(ValueError, match=r"expected one such as ppo_clip\("):
            spelling.call(wrong)


def test_what_a_loss_prints_is_no_part_of_json(run):
    status, out, err = run(f"{LOSSES}:talks", "--json", *SMALL)
    assert status == 0
    assert json.loads(out)["nearest"]["name"] == "none"
    assert "step loss" in err


def test_a_preset_over_the_padded_width_is_no_fault_where_it_is_expected(run):
    loss = f"{LOSSES}:padding_in_the_mean"
    expected = ("--expect", "paper:dr_grpo(clip=(0.8, 1.28))")
    status, out, err = run(loss, *expected, *SMALL)
    assert status == 0, err
    assert "FAULT" not in out
    status, out, _ = run(loss, *SMALL)
    assert "padding_in_the_mean (FAULT)" in out
    assert "known as" not in out


def test_the_reason_is_told(run):
    _, _, err = run(f"{EXAMPLES}:cispo_without_stop_gradient", "--expect", "cispo", *SMALL)
    assert "the loss is not cispo; missing_stop_gradient" in err
    _, _, err = run(f"{EXAMPLES}:cispo", "--expect", "minpro", *SMALL)
    assert "the loss is not minpro; relative distance" in err


def test_a_number_of_the_expected_weight_need_not_be_in_the_loss(run):
    expected = ("--expect", "ppo_clip(clip=(0.83, 1.17))")
    assert run(f"{LOSSES}:configured", *expected, *SMALL)[0] == 0
    status, out, _ = run(f"{LOSSES}:configured_and_swapped", *expected, *SMALL)
    assert status == 1
    assert "swapped_ratio (FAULT)" in out


def test_drifts_that_lose_support(run):
    status, out, _ = run(f"{EXAMPLES}:cispo", "--drift", "top_k(k=1)", *SMALL)
    assert status == 0
    assert "lost mass" in out
    status, out, _ = run(f"{EXAMPLES}:cispo", "--drift", "top_k(nearest=True)", "--environment", "parity(horizon=4)")
    assert "0.1 nats" not in out
    drifted = testbed.environment("parity", horizon=4)
    kl = testbed.drift.at("top_k", drifted.process, drifted.target, kl=0.1, nearest=True).kl
    assert f"{kl:.6g} nats" in " ".join(out.split())
