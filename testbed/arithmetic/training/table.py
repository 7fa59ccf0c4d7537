"""The log of a run on disk: a row per step, as Parquet and CSV, and a sheet that says what the columns hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from testbed.sweep.journal import write_whole
from testbed.sweep.table import csv_text

PARQUET = "log.parquet"


def write_table(folder: Path, log: Mapping[str, NDArray[np.float64]], columns: Mapping[str, str]) -> None:
    """Write log.parquet, log.csv and columns.csv."""
    fields = [pa.field(name, pa.float64(), metadata={b"description": columns[name].encode()}) for name in log]
    table = pa.Table.from_arrays([pa.array(values) for values in log.values()], schema=pa.schema(fields))
    as_parquet, as_csv = pa.BufferOutputStream(), pa.BufferOutputStream()
    pa_parquet.write_table(table, as_parquet, compression="zstd")
    pa_csv.write_csv(table, as_csv)
    write_whole(folder / PARQUET, as_parquet.getvalue().to_pybytes())
    write_whole(folder / "log.csv", as_csv.getvalue().to_pybytes())
    write_whole(folder / "columns.csv", csv_text([("name", "description"), *columns.items()]))


def read_table(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Column -> values."""
    table = pa_parquet.read_table(folder / PARQUET)
    return {name: np.asarray(table[name].to_numpy()) for name in table.column_names}
