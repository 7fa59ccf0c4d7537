"""Every claim comes out as recorded, and the record notices when it does not."""

import math
from dataclasses import replace

import pytest

from testbed.ledger import VERDICTS, Finding, Recorded, Sampled, Search, claim, claim_names, deviations
from testbed.ledger.record import over_cells, plain


@pytest.mark.parametrize("name", claim_names())
def test_a_claim_comes_out_as_recorded(name, settled):
    entry = settled[name]
    assert entry.finding is not None
    assert entry.deviations == ()
    # Not shown from the file: compared here once more, number by number, with what this run computed.
    recorded = claim(name).recorded
    assert entry.finding.verdict == recorded.verdict
    assert set(entry.finding.numbers) == set(recorded.numbers)
    for key, value in entry.finding.numbers.items():
        tolerance = 5 * value.standard_error if isinstance(value, Sampled) else 1e-9 + 1e-5 * abs(recorded.numbers[key])
        assert plain(value) == pytest.approx(recorded.numbers[key], rel=0, abs=tolerance)


@pytest.mark.parametrize("name", claim_names())
def test_every_altered_number_is_noticed(name, settled):
    finding, recorded = settled[name].finding, claim(name).recorded
    for key, value in recorded.numbers.items():
        came = finding.numbers[key]
        step = 10 * came.standard_error if isinstance(came, Sampled) else max(1e-3 * abs(value), 1e-6)
        altered = replace(recorded, numbers={**recorded.numbers, key: value + step})
        assert any(key in sentence for sentence in deviations(finding, altered)), key
    for verdict in set(VERDICTS) - {recorded.verdict}:
        assert deviations(finding, replace(recorded, verdict=verdict))
    assert deviations(finding, replace(recorded, found=(*recorded.found, "another tree")))


@pytest.mark.parametrize("name", claim_names())
def test_a_claim_says_who_makes_it_and_how_it_is_settled(name, settled):
    known, finding = claim(name), settled[name].finding
    assert known.name == name
    assert known.statement.endswith(".")
    assert known.sources
    assert known.rule.endswith(".")
    assert finding.verdict in VERDICTS
    assert finding.because
    assert finding.numbers
    assert "\n" not in known.statement + known.rule + finding.because
    # A verdict against the claim names an instance, unless there is no tree in it.
    if finding.verdict in ("fails", "depends") and finding.searches:
        assert any(search.found for search in finding.searches)
    if finding.verdict == "holds":
        assert all(search.found is None and search.searched >= 500 for search in finding.searches)


def test_numbers_that_came_or_went_are_noticed():
    finding = Finding("holds", "", {"a": 1.0}, (Search("?", 3),))
    assert deviations(finding, Recorded("holds", {"a": 1.0}, (None,))) == []
    assert "came out, but is not on record" in deviations(finding, Recorded("holds", {}, (None,)))[0]
    assert "did not come out" in deviations(finding, Recorded("holds", {"a": 1.0, "b": 0.0}, (None,)))[0]
    assert deviations(finding, Recorded("holds", {"a": math.nan}, (None,)))
    assert deviations(Finding("holds", "", {"a": math.nan}), Recorded("holds", {"a": math.nan}))
    assert deviations(Finding("holds", "", {"a": math.inf}), Recorded("holds", {"a": 1.0}))


def test_a_verdict_over_cells():
    assert [over_cells(x) for x in ([True, True], [True, False], [False])] == ["holds", "depends", "fails"]
