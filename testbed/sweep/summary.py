"""What a sweep says, in numbers small enough to read: per signal, weights against divergences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbed.sweep.building import GIVEN
from testbed.sweep.columns import mse_column

Table = Mapping[str, NDArray[Any]]

# The level of drifts whose strength the settings say.
SET = "set"

# Relative biases below this are rounding: the exact engines agree to 1e-10.
EXACT = 1e-9


@dataclass(frozen=True)
class Row:
    """One weight with one signal, score and reduction: medians over environments, drifts and seeds, per level."""

    weight: str
    relative_bias: tuple[float, ...]
    relative_standard_deviation: tuple[float, ...]
    """Per trajectory: that of one draw times the root of the trajectories it takes."""
    relative_error: tuple[float, ...]
    """sqrt of the relative mean squared error of a batch, at the sweep's largest batch size."""
    worst_relative_bias: float
    """Over all cells of all divergences."""
    sampled: bool
    """Whether one of the cells is an estimate from sampled trajectories."""


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
    given: str
    """Name of the last level, where no divergence was asked for: "given" for the policies which environments bring,
    "set" for drifts whose strength the settings say, "given/set" for both; empty where there is none."""
    cells_by_level: tuple[int, ...]
    """Cells with numbers at each level."""
    per: str
    trajectories: int
    """Batch size of the relative errors."""
    blocks: tuple[Block, ...]
    environments: tuple[str, ...]
    drifts: tuple[str, ...]
    cells: int
    unreachable: int
    sampled: int
    """Cells whose numbers are estimates from sampled trajectories."""
    sampled_trajectories: float
    """How many trajectories these had, the median; NaN where no cell is sampled."""
    relative_standard_error: float
    """Of the mean of a sampled cell, as a share of |g|: the median; NaN where no cell is sampled."""

    @property
    def levels(self) -> tuple[str, ...]:
        """What numbers are summarised by: the divergences asked for, and the level without one."""
        return (*(f"{x:g}" for x in self.kl), *([self.given] if self.given else []))

    @property
    def unbiased(self) -> dict[str, list[str]]:
        """Signal -> weights whose bias is rounding in every cell; a sampled mean shows nothing of that kind."""
        exact = {
            block.title: [row.weight for row in block.rows if row.worst_relative_bias < EXACT and not row.sampled]
            for block in self.blocks
        }
        return {title: weights for title, weights in exact.items() if weights}

    @property
    def least_error(self) -> dict[str, list[str | None]]:
        """Signal -> for each level the weight whose batches are nearest to the truth; None where no error is known."""
        return {block.title: [_nearest(block.rows, i) for i in range(len(self.levels))] for block in self.blocks}


def summarise(table: Table, per: str = "token") -> Summary:
    """Condense a table of `read_table`."""
    solved = table["status"] == "ok"
    unasked = np.isnan(table["kl_target"])
    kinds = [
        name
        for name, theirs in ((GIVEN, True), (SET, False))
        if (unasked & ((table["drift"] == GIVEN) == theirs)).any()
    ]
    sampled = solved & (table["engine"] == "sampling")
    batch = max(batch_sizes(table))
    kl = tuple(float(x) for x in np.unique(table["kl_target"][~np.isnan(table["kl_target"])]))
    levels = [solved & (table["kl_target"] == x) for x in kl] + ([solved & unasked] if unasked.any() else [])
    blocks = []
    for signal, score, reduction in _distinct(table, "signal", "score", "reduction"):
        inside = (table["signal"] == signal) & (table["score"] == score) & (table["reduction"] == reduction)
        weights = [weight for (weight,) in _distinct({"weight": table["weight"][inside]}, "weight")]
        rows = tuple(_row(table, inside & (table["weight"] == weight), levels, weight, batch) for weight in weights)
        blocks.append(Block(signal, score, reduction, rows))
    return Summary(
        kl=kl,
        given="/".join(kinds),
        cells_by_level=tuple(int(level.sum()) for level in levels),
        per=per,
        trajectories=batch,
        blocks=tuple(blocks),
        environments=tuple(
            " ".join(filter(None, pair)) for pair in _distinct(table, "environment", "environment_options")
        ),
        drifts=tuple(drift for (drift,) in _distinct(table, "drift")),
        cells=int(table["status"].size),
        unreachable=int((table["status"] == "unreachable").sum()),
        sampled=int(sampled.sum()),
        sampled_trajectories=_median(table["draws"][sampled] * table["trajectories_per_draw"][sampled]),
        relative_standard_error=_median(_ratio(table["standard_error"][sampled], table["gradient_norm"][sampled])),
    )


def batch_sizes(table: Table) -> list[int]:
    """The batch sizes for which a table has mean squared errors."""
    start = mse_column(0)[:-1]
    return sorted(int(name.removeprefix(start)) for name in table if name.startswith(start))


def _row(table: Table, mine: NDArray[np.bool_], levels: list[NDArray[np.bool_]], weight: str, batch: int) -> Row:
    def medians(column: NDArray[Any]) -> tuple[float, ...]:
        return tuple(_median(column[mine & level]) for level in levels)

    solved = mine & (table["status"] == "ok")
    biases = table["relative_bias"][solved]
    biases = biases[~np.isnan(biases)]
    worst = float(biases.max()) if biases.size else np.nan
    deviation = table["relative_standard_deviation"] * table["trajectories_per_draw"] ** 0.5
    error = tuple(value**0.5 for value in medians(table[mse_column(batch)]))
    sampled = bool((table["engine"][solved] == "sampling").any())
    return Row(weight, medians(table["relative_bias"]), medians(deviation), error, worst, sampled)


def _nearest(rows: tuple[Row, ...], level: int) -> str | None:
    known = [row for row in rows if not np.isnan(row.relative_error[level])]
    return min(known, key=lambda row: row.relative_error[level]).weight if known else None


def _median(values: NDArray[Any]) -> float:
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else float("nan")


def _ratio(values: NDArray[Any], of: NDArray[Any]) -> NDArray[Any]:
    """NaN where the denominator is zero."""
    return np.divide(values, of, out=np.full(values.shape, np.nan), where=of > 0.0)


def _distinct(table: Table, *names: str) -> list[tuple[str, ...]]:
    """Combinations of these columns in the order of their first appearance."""
    return list(dict.fromkeys(zip(*(table[name].tolist() for name in names), strict=True)))
