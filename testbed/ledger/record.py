"""What a claim is, what settling it finds, and how a finding departs from what is on record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Verdict = Literal["holds", "fails", "depends", "not settled"]
VERDICTS: tuple[Verdict, ...] = ("holds", "fails", "depends", "not settled")

# Recorded numbers are written with seven digits. What is zero up to rounding differs from machine to machine.
RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-9
# A sampled number is compared with the exact one on record: a false alarm in 1.7 million runs per number.
STANDARD_ERRORS = 5.0


class Sampled(NamedTuple):
    """A number that was sampled."""

    value: float
    standard_error: float


class Table(NamedTuple):
    """Numbers that are read together; shown, while the key numbers are the ones on record."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    """Texts and numbers."""


@dataclass(frozen=True)
class Search:
    """What a search through tiny processes, smallest first, came to."""

    question: str
    """What an instance must show to be found."""
    searched: int
    """How many instances were looked at, the found one included."""
    found: str | None = None
    """The smallest instance, as it can be written down; None where no instance showed it."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Its numbers."""


@dataclass(frozen=True)
class Finding:
    """What settling a claim came to."""

    verdict: Verdict
    """By the claim's rule, from the numbers."""
    because: str
    """For "depends", on what; otherwise what decides it. One line."""
    numbers: Mapping[str, float | Sampled]
    """The key numbers, by what they are."""
    searches: tuple[Search, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Recorded:
    """What a claim is known to come to."""

    verdict: Verdict
    numbers: Mapping[str, float]
    """Of a sampled number, the exact value."""
    found: tuple[str | None, ...] = ()
    """The instance found by each search."""


@dataclass(frozen=True)
class Claim:
    """A statement about estimators, who makes it, and the function that settles it."""

    name: str
    statement: str
    """One sentence."""
    sources: tuple[str, ...]
    rule: str
    """How the verdict follows from the numbers."""
    settle: Callable[[], Finding]
    recorded: Recorded


def over_cells(held: Iterable[bool]) -> Verdict:
    """The verdict where a claim is tried in several cells: holds in all, fails in all, or depends on the cell.

    >>> over_cells([True, False])
    'depends'
    """
    cells = list(held)
    return "holds" if all(cells) else "depends" if any(cells) else "fails"


def deviations(finding: Finding, recorded: Recorded) -> list[str]:
    """How a finding departs from the record, one sentence each; empty where it does not."""
    found = []
    if finding.verdict != recorded.verdict:
        found.append(f"the verdict is {finding.verdict!r}, on record is {recorded.verdict!r}")
    for name in [*recorded.numbers, *(n for n in finding.numbers if n not in recorded.numbers)]:
        if name not in finding.numbers:
            found.append(f"{name}: on record, but did not come out")
        elif name not in recorded.numbers:
            found.append(f"{name}: came out, but is not on record")
        elif not _agrees(finding.numbers[name], recorded.numbers[name]):
            found.append(f"{name}: {plain(finding.numbers[name]):.9g}, on record is {recorded.numbers[name]:.9g}")
    instances = tuple(search.found for search in finding.searches)
    if instances != recorded.found:
        found.append(f"the smallest instances are {instances}, on record are {recorded.found}")
    return found


def plain(number: float | Sampled) -> float:
    """The value, without its standard error."""
    return number.value if isinstance(number, Sampled) else float(number)


def _agrees(number: float | Sampled, recorded: float) -> bool:
    if isinstance(number, Sampled):
        return abs(number.value - recorded) <= STANDARD_ERRORS * number.standard_error
    if math.isinf(number) or math.isinf(recorded):
        return number == recorded
    # NaN agrees with nothing: a key number that does not exist has no place on record.
    return math.isclose(number, recorded, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
