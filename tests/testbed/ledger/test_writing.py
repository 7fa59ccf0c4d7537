"""ledger.md and ledger.json, and the lines of a terminal."""

import json
import re

import pytest

from testbed.ledger import claim_names, printing, write_ledger


@pytest.fixture(scope="module")
def files(ledger, tmp_path_factory):
    return write_ledger(ledger, tmp_path_factory.mktemp("ledger") / "made")


def test_the_data_is_strict_json_with_every_number(files, settled):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    data = json.loads(files[1].read_text(), parse_constant=refuse)
    assert data["as_recorded"] is True
    assert [entry["name"] for entry in data["claims"]] == list(claim_names())
    for entry in data["claims"]:
        finding = settled[entry["name"]].finding
        assert entry["verdict"] == entry["recorded_verdict"] == finding.verdict
        assert set(entry["numbers"]) == set(finding.numbers)
        assert all(number["recorded"] is not None for number in entry["numbers"].values())
        assert [s["found"] for s in entry["searches"]] == [s.found for s in finding.searches]
        for table in entry["tables"]:
            assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_the_page_has_every_claim_and_whole_tables(files):
    text = files[0].read_text()
    assert re.findall(r'^<a id="(\w+)"></a>$', text, re.MULTILINE) == list(claim_names())
    titles = [name.replace("_", " ") for name in claim_names()]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles
    assert re.findall(r"^`testbed verify (\w+)`$", text, re.MULTILINE) == list(claim_names())
    width = None
    for line in text.splitlines():
        # An escaped bar is part of a cell.
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert width is None or bars is None or bars == width, line
        width = bars


def test_the_same_run_gives_the_same_bytes(files, ledger, tmp_path):
    again = write_ledger(ledger, tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]


def test_everything_but_code_fits_a_hundred_columns(ledger):
    lines = list(printing.overview(ledger))
    for entry in ledger:
        shown = list(printing.in_full(entry))
        lines += shown[: next(i for i, line in enumerate(shown) if line.startswith("Code:"))]
    assert not [line for line in lines if len(line) > 100]
    assert "VERDICTS" in lines
