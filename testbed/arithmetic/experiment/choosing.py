"""Which configuration each method is reported with: the best of its own, by the tuning seeds alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def chosen_configurations(tuning: Iterable[Row]) -> dict[tuple[str, int], tuple[str, float]]:
    """(method, K) -> (weight, learning rate) with the best mean final accuracy over the tuning seeds.

    Equal means are told apart by fewer collapsed runs, then by the lower learning rate, then by the order in which the
    settings list the weights.

    Args:
        tuning: rows of runs, of which every configuration has as many.
    """
    runs: dict[tuple[str, int], dict[tuple[str, float], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in tuning:
        runs[row["name"], row["staleness"]][row["weight"], row["learning_rate"]].append(row)
    return {cell: min(found, key=lambda c: _rank(found[c], c[1])) for cell, found in runs.items()}


def _rank(rows: list[Row], learning_rate: float) -> tuple[float, int, float]:
    """Smaller is better; `min` keeps the first of equal ones."""
    return (-float(np.mean([r["final_accuracy"] for r in rows])), sum(r["collapsed"] for r in rows), learning_rate)
