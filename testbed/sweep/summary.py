"""What a sweep says, in numbers small enough to read: per signal, weights against divergences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbed.sweep.columns import mse_column

Table = Mapping[str, NDArray[Any]]

# Relative biases below this are rounding: the exact engines agree to 1e-10.
EXACT = 1e-9


@dataclass(frozen=True)
class Row:
    """One weight with one signal, score and reduction: medians over environments, drifts and seeds, per divergence."""

    weight: str
    relative_bias: tuple[float, ...]
    relative_standard_deviation: tuple[float, ...]
    relative_error: tuple[float, ...]
    """sqrt of the relative mean squared error of a batch, at the sweep's largest batch size."""
    worst_relative_bias: float
    """Over all cells of all divergences."""


@dataclass(frozen=True)
class Block:
    """The rows of one signal."""

    signal: str
    score: str
    reduction: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """The signal, and what is not as usual."""
        parts = [self.signal]
        parts += [] if self.score == "own" else [f"{self.score} score"]
        parts += [] if self.reduction == "sum" else [self.reduction]
        return ", ".join(parts)


@dataclass(frozen=True)
class Summary:
    """A table of results, condensed."""

    kl: tuple[float, ...]
    per: str
    trajectories: int
    """Batch size of the relative errors."""
    blocks: tuple[Block, ...]
    environments: tuple[str, ...]
    drifts: tuple[str, ...]
    cells: int
    unreachable: int

    @property
    def unbiased(self) -> dict[str, list[str]]:
        """Signal -> weights whose bias is rounding in every cell."""
        exact = {
            block.title: [row.weight for row in block.rows if row.worst_relative_bias < EXACT] for block in self.blocks
        }
        return {title: weights for title, weights in exact.items() if weights}

    @property
    def least_error(self) -> dict[str, list[str]]:
        """Signal -> for each divergence the weight whose batches are nearest to the truth."""
        return {
            block.title: [
                min(block.rows, key=lambda row: _or_infinity(row.relative_error[i])).weight for i in range(len(self.kl))
            ]
            for block in self.blocks
        }


def summarise(table: Table, per: str = "token") -> Summary:
    """Condense a table of `read_table`; policies that an environment brings itself have no column of their own."""
    solved = (table["status"] == "ok") & ~np.isnan(table["kl_target"])
    batch = max(batch_sizes(table))
    kl = tuple(float(x) for x in np.unique(table["kl_target"][~np.isnan(table["kl_target"])]))
    blocks = []
    for signal, score, reduction in _distinct(table, "signal", "score", "reduction"):
        inside = (table["signal"] == signal) & (table["score"] == score) & (table["reduction"] == reduction)
        weights = [weight for (weight,) in _distinct({"weight": table["weight"][inside]}, "weight")]
        rows = tuple(_row(table, inside & (table["weight"] == weight), solved, weight, kl, batch) for weight in weights)
        blocks.append(Block(signal, score, reduction, rows))
    return Summary(
        kl=kl,
        per=per,
        trajectories=batch,
        blocks=tuple(blocks),
        environments=tuple(
            " ".join(filter(None, pair)) for pair in _distinct(table, "environment", "environment_options")
        ),
        drifts=tuple(drift for (drift,) in _distinct(table, "drift")),
        cells=int(table["status"].size),
        unreachable=int((table["status"] == "unreachable").sum()),
    )


def batch_sizes(table: Table) -> list[int]:
    """The batch sizes for which a table has mean squared errors."""
    start = mse_column(0)[:-1]
    return sorted(int(name.removeprefix(start)) for name in table if name.startswith(start))


def _row(
    table: Table, mine: NDArray[np.bool_], solved: NDArray[np.bool_], weight: str, kl: tuple[float, ...], batch: int
) -> Row:
    def medians(column: str) -> tuple[float, ...]:
        return tuple(_median(table[column][mine & solved & (table["kl_target"] == x)]) for x in kl)

    biases = table["relative_bias"][mine & (table["status"] == "ok")]
    biases = biases[~np.isnan(biases)]
    worst = float(biases.max()) if biases.size else np.nan
    error = tuple(value**0.5 for value in medians(mse_column(batch)))
    return Row(weight, medians("relative_bias"), medians("relative_standard_deviation"), error, worst)


def _median(values: NDArray[Any]) -> float:
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else float("nan")


def _or_infinity(value: float) -> float:
    return value if value == value else float("inf")


def _distinct(table: Table, *names: str) -> list[tuple[str, ...]]:
    """Combinations of these columns in the order of their first appearance."""
    return list(dict.fromkeys(zip(*(table[name].tolist() for name in names), strict=True)))
