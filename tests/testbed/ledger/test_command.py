"""`testbed verify` as its users meet it."""

import json
import sys
from dataclasses import replace

import pytest

from testbed import cli
from testbed.ledger import claim, claim_names, command, running, settle, verify

QUICK = "gspo_ratio_is_an_importance_weight"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["testbed", "verify", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return call


@pytest.fixture
def all_at_once(monkeypatch, ledger):
    """The whole command on the shared run of this session."""
    monkeypatch.setattr(command, "verify", lambda names, **_: ledger)


def altered(monkeypatch, **changes):
    """A record of the quick claim that is not what comes out."""
    known = claim(QUICK)
    wrong = replace(known, recorded=replace(known.recorded, **changes))
    monkeypatch.setattr(running, "claim", lambda name: wrong)


def test_verify_prints_every_claim_and_writes_the_ledger(run, all_at_once, tmp_path):
    status, out, err = run()
    assert status == 0
    assert all(name in out for name in claim_names())
    assert f"{len(claim_names())} claims" in err
    assert "all as recorded" in err
    assert sorted(path.name for path in (tmp_path / "results" / "ledger").iterdir()) == ["ledger.json", "ledger.md"]
    # Neither stream is a terminal: no bar.
    assert "\x1b" not in out + err
    assert "\r" not in out + err


def test_json_is_the_ledger(run, all_at_once, tmp_path):
    status, out, _ = run("--json", "--out", tmp_path / "there")
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "there" / "ledger.json").read_text())


def test_one_claim_comes_in_full_with_its_code_and_leaves_no_file(run, tmp_path):
    status, out, err = run(QUICK)
    assert status == 0
    assert "def settle() -> Finding:" in out
    assert claim(QUICK).rule[:40] in out
    assert "1 claim in" in err
    assert not list(tmp_path.iterdir())
    status, out, _ = run(QUICK, "--json", "--out", tmp_path / "one")
    assert "def settle" in json.loads(out)["code"]
    assert (tmp_path / "one" / "ledger.md").exists()


def test_an_altered_number_gives_status_one(run, monkeypatch):
    numbers = dict(claim(QUICK).recorded.numbers)
    key = next(iter(numbers))
    altered(monkeypatch, numbers={**numbers, key: numbers[key] + 0.001})
    status, out, err = run(QUICK)
    assert status == 1
    assert key in err
    assert "departs from the record" in err
    assert "DEPARTS" in out


def test_an_altered_verdict_gives_status_one(run, monkeypatch):
    altered(monkeypatch, verdict="holds")
    status, _, err = run(QUICK)
    assert (status, "'holds'" in err) == (1, True)


def test_a_claim_that_cannot_be_computed_gives_status_one(run, monkeypatch, tmp_path):
    def broken():
        raise ZeroDivisionError("no such number")

    known = replace(claim(QUICK), settle=broken)
    monkeypatch.setattr(running, "claim", lambda name: known)
    status, out, err = run(QUICK, "--out", tmp_path / "out")
    assert status == 1
    assert "no such number" in err
    assert "could not be computed" in out
    assert json.loads((tmp_path / "out" / "ledger.json").read_text())["as_recorded"] is False


def test_an_unknown_name_is_one_sentence_with_the_nearest(run, tmp_path):
    status, out, err = run("gspo_ratio")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert f"the nearest known name is '{QUICK}'" in err
    assert run("--workers", "-1")[0] == 2
    assert not list(tmp_path.iterdir())


def test_help_fits_a_screen(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run("--help")
    assert status == 0
    assert len(out.splitlines()) <= 40
    assert max(map(len, out.splitlines())) <= 80


def test_processes_and_this_one_agree_and_progress_is_told():
    names, seen = [QUICK, "variance_of_prefix_ratio_is_a_product"], []
    there = verify(names, workers=2, progress=lambda done, total: seen.append((done, total)))
    here = verify(names, workers=0)
    assert seen == [(1, 2), (2, 2)]
    assert [s.finding.numbers for s in there] == [s.finding.numbers for s in here]
    assert settle(QUICK).deviations == ()
    with pytest.raises(ValueError, match="unknown claim 'gspo'"):
        verify(["gspo"])
