"""The data behind a figure: rows in, a CSV file beside the image, and the cells of a sweep's table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, Any]
Table = Mapping[str, NDArray[Any]]

# Relative biases below this are rounding: the exact engines agree with each other to 1e-10.
EXACT = 1e-10


class NothingToDrawError(ValueError):
    """The table holds nothing that this figure could show."""


def write_csv(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows under the names of the first one; numbers with the digits that do not depend on the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([_plain(row[name]) for name in rows[0]] for row in rows)
    return path


def read_csv(path: Path) -> list[Row]:
    """The rows that `write_csv` wrote: whole numbers, numbers, and texts."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: _read(text) for name, text in row.items()} for row in csv.DictReader(file)]


def table_of(results: Path | None) -> Table:
    """The table of a folder of results, solved cells only.

    Raises:
        ValueError: there is none.
    """
    if results is None:
        raise ValueError("this figure is drawn from a sweep's table; run `testbed sweep` first and pass its folder")
    from testbed.sweep import read_table

    table = read_table(results)
    # Policies that an environment brings with it have a divergence of their own, not one of the sweep's.
    solved = (table["status"] == "ok") & ~np.isnan(table["kl_target"])
    if not solved.any():
        raise NothingToDrawError("no cell of the table has a divergence that was solved for")
    return only(table, solved)


def only(table: Table, rows: NDArray[np.bool_]) -> Table:
    """The rows where a mask is true."""
    return {name: column[rows] for name, column in table.items()}


def labels(table: Table, *names: str) -> NDArray[np.str_]:
    """One text per row: a name, with its options in brackets where the table keeps them in a column of their own."""
    texts = []
    for values in zip(*(table[name].tolist() for name in names), strict=True):
        first, *options = (str(v) for v in values)
        texts.append(f"{first}({', '.join(o for o in options if o)})" if any(options) else first)
    return np.array(texts, dtype=np.str_)


def signal_titles(table: Table) -> NDArray[np.str_]:
    """The signal of each row, and its score and reduction where they are not own and sum."""
    score = np.where(table["score"] == "own", "", np.char.add(", score ", table["score"]))
    reduction = np.where(table["reduction"] == "sum", "", np.char.add(", ", table["reduction"]))
    return np.char.add(np.char.add(table["signal"], score), reduction)


def divergence_unit(table: Table) -> str:
    """What the sweep counted its divergences per: the table has the divergence per token beside the one asked for."""
    per_token = np.allclose(table["kl_token"], table["kl_target"], rtol=1e-6, atol=0.0)
    return "nats per token" if per_token else "nats per sequence"


def _plain(value: Any) -> Any:
    return f"{float(value):.12g}" if isinstance(value, (float, np.floating)) else value


def _read(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
