"""A settled claim as words: numbers with four to six digits, tables and searches as lines."""

from __future__ import annotations

import math
from collections.abc import Iterator

from testbed.ledger.record import ABSOLUTE_TOLERANCE, Sampled, Search, Table
from testbed.ledger.running import Settled


def number(value: float | Sampled, digits: int = 6) -> str:
    """A number; 0 for what is zero up to rounding, a dash for what does not exist."""
    if isinstance(value, Sampled):
        return f"{value.value:.{digits}g} +- {value.standard_error:.1g}"
    if math.isnan(value):
        return "-"
    return "0" if abs(value) < ABSOLUTE_TOLERANCE else f"{value:.{digits}g}"


def verdict(settled: Settled) -> str:
    """Verdict and reason in one sentence."""
    if settled.finding is None:
        return f"could not be computed: {settled.deviations[0]}"
    return f"{settled.finding.verdict}: {settled.finding.because}"


def searched(search: Search) -> str:
    """What a search looked for and found, in one sentence."""
    count = f"{search.searched} tree{'' if search.searched == 1 else 's'} searched"
    if search.found is None:
        return f"{search.question}: none, {count}"
    numbers = "; ".join(f"{name} {number(value, 4)}" for name, value in search.numbers.items())
    return f"{search.question}: {search.found} [{numbers}] ({count})"


def cells(table: Table) -> list[list[str]]:
    """Header and rows, as text."""
    rows = [[value if isinstance(value, str) else number(value, 4) for value in row] for row in table.rows]
    return [list(table.columns), *rows]


def aligned(table: Table) -> Iterator[str]:
    """A table as lines of a terminal, text to the left and numbers to the right."""
    lines = cells(table)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [all(isinstance(row[i], str) for row in table.rows) for i in range(len(widths))]
    for line in lines:
        padded = [c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(line, widths, left, strict=True)]
        yield "  ".join(padded).rstrip()
