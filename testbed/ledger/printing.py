"""Settled claims for a terminal, 100 columns wide."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence

from testbed.ledger.running import Settled
from testbed.ledger.wording import aligned, number, searched, verdict

WIDTH = 100
_INDENT = "  "


def overview(ledger: Sequence[Settled]) -> Iterator[str]:
    """Every claim in short, and the verdicts at the end."""
    for settled in ledger:
        yield from in_short(settled)
        yield ""
    yield "VERDICTS"
    longest = max(len(settled.name) for settled in ledger)
    for settled in ledger:
        came = "could not be computed" if settled.finding is None else settled.finding.verdict
        note = "   DEPARTS FROM THE RECORD" if settled.deviations else ""
        yield f"{_INDENT}{settled.name:<{longest}}  {came}{note}"


def in_short(settled: Settled) -> Iterator[str]:
    """Claim, source, verdict, numbers, smallest counterexamples."""
    claim = settled.claim
    yield claim.name
    yield from _wrapped("Claim", claim.statement)
    yield from _wrapped("Source", "; ".join(claim.sources))
    yield from _wrapped("Verdict", verdict(settled))
    if settled.finding is not None:
        yield from _numbers(settled)
        for search in settled.finding.searches:
            yield from _wrapped("Search", searched(search))
    for departed in settled.deviations:
        yield from _wrapped("DEPARTS", departed)


def in_full(settled: Settled) -> Iterator[str]:
    """The claim with its rule, its tables, and the code that computes them."""
    yield from in_short(settled)
    yield from _wrapped("Rule", settled.claim.rule)
    for table in settled.finding.tables if settled.finding is not None else ():
        yield ""
        yield from textwrap.wrap(table.caption, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
        yield from (_INDENT + line for line in aligned(table))
    yield ""
    yield f"Code: {settled.claim.settle.__module__}, in Python"
    yield f"{_INDENT}from testbed.ledger import claim"
    yield f"{_INDENT}finding = claim({settled.name!r}).settle()"
    yield ""
    yield from inspect.getsource(settled.claim.settle).rstrip().splitlines()


def _wrapped(label: str, text: str) -> list[str]:
    first = f"{_INDENT}{label + ':':<9}"
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _numbers(settled: Settled) -> Iterator[str]:
    assert settled.finding is not None
    shown = {name: number(value) for name, value in settled.finding.numbers.items()}
    longest = max(map(len, shown), default=0)
    for i, (name, value) in enumerate(shown.items()):
        label = "Numbers:" if i == 0 else ""
        yield f"{_INDENT}{label:<9}{name:<{longest}}  {value}"
