"""The ledger as files: ledger.md for readers, ledger.json for programs. The same run gives the same bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from testbed.ledger.record import Sampled
from testbed.ledger.running import Settled
from testbed.ledger.wording import cells, number, searched, verdict
from testbed.sweep.provenance import provenance

FILES = ("ledger.md", "ledger.json")


def write_ledger(ledger: Sequence[Settled], folder: Path) -> list[Path]:
    """Write ledger.md and ledger.json into a folder, which is made where it is missing; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    paths[0].write_text("\n".join(_markdown(ledger)) + "\n", encoding="utf-8")
    paths[1].write_text(json.dumps(as_data(ledger), indent=2) + "\n", encoding="utf-8")
    return paths


def as_data(ledger: Sequence[Settled]) -> dict[str, Any]:
    """The ledger as plain data. Numbers that do not exist are null."""
    versions = {k: v for k, v in provenance().items() if k not in ("code", "cores", "git_dirty")}
    return {
        "as_recorded": not any(settled.deviations for settled in ledger),
        "versions": versions,
        "claims": [_claim(settled) for settled in ledger],
    }


def _claim(settled: Settled) -> dict[str, Any]:
    claim, finding = settled.claim, settled.finding
    data: dict[str, Any] = {
        "name": claim.name,
        "statement": claim.statement,
        "sources": list(claim.sources),
        "rule": claim.rule,
        "recorded_verdict": claim.recorded.verdict,
        "deviations": list(settled.deviations),
        "verdict": None,
    }
    if finding is None:
        return data
    numbers = {}
    for name, value in finding.numbers.items():
        entry: dict[str, Any] = {"recorded": claim.recorded.numbers.get(name)}
        if isinstance(value, Sampled):
            entry |= {"value": value.value, "standard_error": value.standard_error}
        else:
            entry |= {"value": _finite(value)}
        numbers[name] = entry
    return data | {
        "verdict": finding.verdict,
        "because": finding.because,
        "numbers": numbers,
        "searches": [
            {
                "question": search.question,
                "searched": search.searched,
                "found": search.found,
                "numbers": {name: _finite(value) for name, value in search.numbers.items()},
            }
            for search in finding.searches
        ],
        "tables": [
            {
                "caption": table.caption,
                "columns": list(table.columns),
                "rows": [[_finite(value) for value in row] for row in table.rows],
            }
            for table in finding.tables
        ],
    }


def _finite(value: Any) -> Any:
    return value if isinstance(value, str) else float(value) if math.isfinite(value) else None


def _markdown(ledger: Sequence[Settled]) -> Iterator[str]:
    yield "# Ledger of claims"
    yield ""
    yield "Statements about off-policy corrections, each settled by exact numbers. 0 stands for zero up to rounding."
    yield ""
    overview = [[f"[{_title(s)}](#{s.name})", verdict(s).split(":")[0]] for s in ledger]
    yield from _rows([["claim", "verdict"], *overview])
    for settled in ledger:
        claim, finding = settled.claim, settled.finding
        yield from ("", f'<a id="{claim.name}"></a>', "", f"## {_title(settled)}", "")
        yield from (f"`testbed verify {claim.name}`", "", f"**Claim.** {claim.statement}", "")
        yield from (f"**Source.** {'; '.join(claim.sources)}", "", f"**Rule.** {claim.rule}", "")
        yield f"**Verdict.** {verdict(settled)}"
        if finding is not None:
            yield ""
            yield from _rows([["number", "value"], *([name, number(v)] for name, v in finding.numbers.items())])
            yield from ("", "**Searches, smallest tree first.**", "") if finding.searches else ()
            yield from (f"- {searched(search)}" for search in finding.searches)
            for table in finding.tables:
                yield from ("", table.caption, "")
                yield from _rows(cells(table))
        yield from (f"\n**Departs from the record.** {departed}" for departed in settled.deviations)


def _title(settled: Settled) -> str:
    """The claim's name as words."""
    return settled.claim.name.replace("_", " ")


def _rows(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    for i, line in enumerate(lines):
        # A bar inside a cell, as in KL(mu||pi), would end it.
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        if i == 0:
            yield "|" + " --- |" * len(line)
