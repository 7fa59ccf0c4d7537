"""The summary of a sweep as text that reads well in 80 to 100 columns, in a terminal and in a file."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from testbed.sweep.building import GIVEN
from testbed.sweep.summary import EXACT, SET, Block, Summary

WIDTH = 100
NARROWEST = 80
NUMBER = 8
"""Width of a column of numbers."""
LONGEST = 34
"""Width that a table of four divergences leaves for names; a longer one stands on a line of its own."""
SHORTEST = 14
"""What is left for names where numbers take the rest."""


_WITHOUT_DIVERGENCE = {
    GIVEN: "the policies that an environment brings",
    SET: "drifts whose strength the settings say",
}


def print_summary(summary: Summary) -> None:
    """Print to standard output: what was measured, one table per signal, and what to take from them."""
    width = text_width()
    console = Console(width=width, highlight=False, soft_wrap=True)
    if not summary.levels:
        console.print("There is nothing to summarise: no cell is finished.")
        return
    text: list[str | Text] = [*_heading(summary, width), ""]
    for block in summary.blocks:
        text += [*_table(block, summary, width), ""]
    exact = _exact(summary, width)
    text += [*exact, *([""] if exact else []), *_nearest(summary, width)]
    for line in text:
        console.print(line, markup=False)


def text_width() -> int:
    """Columns that text is laid out for: those of the terminal between 80 and 100, and 100 in a file."""
    if not sys.stdout.isatty():
        return WIDTH
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDTH)


def as_data(summary: Summary) -> dict[str, Any]:
    """The summary for `--json`: NaN becomes null, because JSON has no NaN."""
    blocks = [{**asdict(block), "rows": [_finite(asdict(row)) for row in block.rows]} for block in summary.blocks]
    numbers = _finite(asdict(summary))
    return {
        **numbers,
        "levels": summary.levels,
        "blocks": blocks,
        "unbiased": summary.unbiased,
        "least_error": summary.least_error,
    }


def number(value: float, zero: float = EXACT) -> str:
    """At most seven characters: 0 below `zero`, which is for a bias's rounding errors, three digits, or a power of ten.

    >>> [number(x) for x in (3e-16, 0.00123, 0.1, 1.5, 123.4, 98765.0, float("nan"))]
    ['0', '0.001', '0.100', '1.50', '123', '9.9e+04', '-']
    >>> number(5.8e-11, zero=0.0)
    '6e-11'
    """
    if math.isnan(value):
        return "-"
    if value == 0.0 or abs(value) < zero:
        return "0"
    if abs(value) < 0.0005:
        return f"{value:.0e}"
    if abs(value) < 0.9995:
        return f"{value:.3f}"
    if abs(value) < 9999.5:
        return f"{value:#.3g}".rstrip(".") if abs(value) < 999.5 else f"{value:.0f}"
    return f"{value:.1e}"


def _heading(summary: Summary, width: int) -> list[str]:
    unreachable = ""
    if summary.unreachable:
        unreachable = (
            f" ({summary.unreachable} out of reach of their drift; kl_below and kl_above in the table are the nearest "
            "it can give)"
        )
    text = (
        f"{summary.cells} cells{unreachable}: {len(summary.environments)} environments "
        f"({', '.join(summary.environments)}) under {', '.join(summary.drifts)} drift. {_columns(summary)}; numbers "
        f"are medians over environments, kinds of drift and seeds{_exactness(summary)}. Relative bias is "
        "|E[g_hat] - g| / |g|. Relative standard deviation is per trajectory, sqrt(k trace of the covariance) / |g| "
        "where one draw takes k trajectories (a group, a batch; otherwise k = 1); for n of them divide by sqrt(n)."
    )
    if len(set(summary.cells_by_level)) > 1:
        behind = (f"{n} at {level}" for n, level in zip(summary.cells_by_level, summary.levels, strict=True))
        text += f" Cells behind the columns, all rows together: {', '.join(behind)}."
    return textwrap.wrap(text, width)


def _columns(summary: Summary) -> str:
    given = " and ".join(_WITHOUT_DIVERGENCE[name] for name in summary.given.split("/") if name)
    if not summary.kl:
        return f"The column is of {given}"
    return f"Columns are exact divergences KL(mu || pi) in nats per {summary.per}" + (
        f", {summary.given!r} is of {given}" if given else ""
    )


def _exactness(summary: Summary) -> str:
    if not summary.sampled:
        return "; 0 is exact, to rounding"
    every = summary.sampled == sum(summary.cells_by_level)
    which = "all" if every else f"those of {summary.sampled} cells"
    return (
        f"; {which} are sampled with {summary.sampled_trajectories:,.0f} trajectories per cell, at a relative standard "
        f"error of the mean of {number(summary.relative_standard_error)} (median)"
    ) + ("" if every else "; 0 in the others is exact, to rounding")


def _table(block: Block, summary: Summary, width: int) -> list[Text]:
    room = min(LONGEST, max(SHORTEST, width - 2 * NUMBER * len(summary.levels) - 2))
    names = [row.weight for row in block.rows]
    beside = len(block.title) <= room
    first = max(len(name) for name in [*names, block.title if beside else "", "KL"] if len(name) <= room)
    group = NUMBER * len(summary.levels)
    bias, deviation = ("relative bias", "relative std. dev.") if len(summary.levels) > 2 else ("bias", "std.dev.")
    kl = "".join(f"{level:>{NUMBER}}" for level in summary.levels)
    lines = [] if beside else [Text(block.title, style="bold")]
    lines += [
        Text.assemble(
            (f"{block.title if beside else '':<{first}}", "bold"), f"{bias:>{group}}{deviation:>{group + 2}}"
        ),
        Text(f"{'KL':>{first}}{kl}  {kl}", style="dim"),
    ]
    for name, row in zip(names, block.rows, strict=True):
        if len(name) > first:
            lines.append(Text(name))
        line = Text(f"{name if len(name) <= first else '':<{first}}")
        for value in row.relative_bias:
            exact = abs(value) < EXACT and not row.sampled
            line.append(f"{number(value):>{NUMBER}}", style="bold green" if exact else "bold")
        line.append("  " + "".join(f"{number(value):>{NUMBER}}" for value in row.relative_standard_deviation))
        lines.append(line)
    return lines


def _exact(summary: Summary, width: int) -> list[str]:
    exact = summary.unbiased
    judged = (row for block in summary.blocks for row in block.rows if not row.sampled)
    if all(math.isnan(row.worst_relative_bias) for row in judged):
        return []
    if not exact:
        return ["Nothing is exact in every cell (relative bias below 1e-9)."]
    return ["Exact in every cell (relative bias below 1e-9):"] + [
        line for title, weights in exact.items() for line in _indented(f"{title}: {', '.join(weights)}", width)
    ]


def _nearest(summary: Summary, width: int) -> list[str]:
    """Bias and variance together: which weight wins depends on how much data there is."""
    title = f"Nearest to the truth with {summary.trajectories} trajectories (least mean squared error), by KL:"
    lines = []
    for signal, weights in summary.least_error.items():
        winners = [f"{weight or '-'} at {level}" for level, weight in zip(summary.levels, weights, strict=True)]
        lines += _indented(f"{signal}: {', '.join(winners)}", width)
    return [*textwrap.wrap(title, width), *lines]


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    def clean(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [clean(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: clean(value) for key, value in data.items()}
