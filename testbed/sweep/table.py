"""The table of results: rebuilt from finished tasks, the same bytes whatever the order in which they finished."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from testbed.sweep.columns import Column, columns
from testbed.sweep.journal import write_whole

PARQUET = "table.parquet"
_MISSING = {"string": "", "int64": None, "float64": math.nan}


def write_table(folder: Path, rows: Iterable[Mapping[str, Any]], trajectories: tuple[int, ...]) -> list[Path]:
    """Write table.parquet, table.csv and, for readers of the latter, columns.csv. Returns their paths."""
    known = columns(trajectories)
    return [*write_rows(folder, "table", rows, known), write_sheet(folder, "columns", known)]


def write_rows(folder: Path, stem: str, rows: Iterable[Mapping[str, Any]], known: Sequence[Column]) -> list[Path]:
    """Write STEM.parquet and STEM.csv with these columns. Returns their paths."""
    table = _arrow_table(list(rows), known)
    as_parquet, as_csv = pa.BufferOutputStream(), pa.BufferOutputStream()
    pa_parquet.write_table(table, as_parquet, compression="zstd")
    pa_csv.write_csv(table, as_csv)
    contents = {f"{stem}.parquet": as_parquet, f"{stem}.csv": as_csv}
    for name, content in contents.items():
        write_whole(folder / name, content.getvalue().to_pybytes())
    return [folder / name for name in contents]


def write_sheet(folder: Path, stem: str, known: Sequence[Column]) -> Path:
    """Write STEM.csv, which says what columns hold."""
    sheet = [("name", "type", "unit", "description"), *((c.name, c.type, c.unit, c.description) for c in known)]
    write_whole(folder / f"{stem}.csv", csv_text(sheet))
    return folder / f"{stem}.csv"


def read_table(path: str | Path) -> dict[str, NDArray[Any]]:
    """The columns of a sweep's table: name -> array of one entry per cell.

    Args:
        path: a folder of results, or its table.parquet. Empty entries of whole-number columns come as NaN.

    Raises:
        ValueError: there is no such table.
    """
    path = Path(path)
    file = path / PARQUET if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"there is no table {str(file)!r}; expected a folder of results, as `testbed sweep` writes it")
    try:
        table = pa_parquet.read_table(file)
    except pa.ArrowInvalid:
        raise ValueError(f"{str(file)!r} is not a Parquet file") from None
    return {name: _array(table[name]) for name in table.column_names}


def csv_text(rows: Iterable[Iterable[Any]]) -> bytes:
    """A small CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _arrow_table(rows: list[Mapping[str, Any]], known: Sequence[Column]) -> pa.Table:
    fields, arrays = [], []
    for column in known:
        kind = getattr(pa, column.type)()
        metadata = {b"unit": column.unit.encode(), b"description": column.description.encode()}
        fields.append(pa.field(column.name, kind, metadata=metadata))
        arrays.append(pa.array([row.get(column.name, _MISSING[column.type]) for row in rows], kind, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    return np.asarray(column.to_numpy())
