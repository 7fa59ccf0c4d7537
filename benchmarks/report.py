"""One row per target, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.timing import Seconds


@dataclass(frozen=True)
class Row:
    """What was measured, what was asked for, and what it is compared with."""

    name: str
    problem: str
    measured: float
    unit: str
    target: float
    """NaN for a part of what has one."""
    higher_is_better: bool = False
    seconds: Seconds | None = None
    """The times behind it."""
    twin: float = float("nan")
    """What it is compared with, in the same unit: the plain twin where nothing else is said."""
    twin_note: str = ""
    """What the twin is, or on what it was timed, where it was not the whole problem."""
    floor: float = float("nan")
    """The arithmetic floor, in the same unit."""
    operations: float = float("nan")
    """What the floor counted."""

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.measured >= self.target if self.higher_is_better else self.measured <= self.target

    @property
    def twin_ratio(self) -> float:
        """How many times faster than the plain twin."""
        return self.measured / self.twin if self.higher_is_better else self.twin / self.measured

    @property
    def floor_ratio(self) -> float:
        """How many times the arithmetic floor."""
        return self.floor / self.measured if self.higher_is_better else self.measured / self.floor

    def as_data(self) -> dict[str, object]:
        """For JSON; what was not measured is null."""
        asked = self.target == self.target
        derived = {"met": self.met if asked else None, "twin_ratio": self.twin_ratio, "floor_ratio": self.floor_ratio}
        values = {**vars(self), **derived, "seconds": self.seconds and self.seconds._asdict()}
        return {name: None if value != value else value for name, value in values.items()}


HEADINGS = ("", "measured", "target", "", "twin", "faster by", "floor", "above it by")


def table(rows: Sequence[Row], *, judged: bool = True) -> str:
    """The rows as aligned text, and under it on what each was measured."""
    cells = [HEADINGS]
    for row in rows:
        asked = row.target == row.target
        verdict = ("met" if row.met else "missed") if judged and asked else "-"
        sign = ">=" if row.higher_is_better else "<="
        target = f"{sign} {_number(row.target, row.unit)}" if asked else "-"
        cells.append((
            row.name, _number(row.measured, row.unit), target, verdict,
            _number(row.twin, row.unit), _times(row.twin_ratio), _number(row.floor, row.unit), _times(row.floor_ratio),
        ))  # fmt: skip
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in cells
    ]
    said: dict[str, str] = {}
    for row in rows:  # what several rows share is said once
        said.setdefault(row.problem + (f"; twin {row.twin_note}" if row.twin_note else ""), row.name)
    notes = [f"{name}: {note}" for note, name in said.items()]
    notes.append("Seconds are processor time of one thread; those of the wall clock are in --json.")
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], "", *notes])


def _number(value: float, unit: str) -> str:
    if value != value:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}"


def _times(ratio: float) -> str:
    return "-" if ratio != ratio else f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.1f}x"
