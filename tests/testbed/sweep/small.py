"""Small sweeps for the tests, and what makes worker processes die."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future

from testbed.sweep import Sweep, computing
from testbed.sweep.tasks import Cell, cells

TINY = Sweep(
    name="tiny",
    environments=[{"name": "parity", "horizon": 3}, "two_token_counterexample"],
    drifts=["noise", "given"],
    kl=[0.05, 0.2],
    seeds=[0, 1],
    weights=["token", "sequence", {"name": "minpro", "clip": [0.8, 1.28]}],
    signals=["target_advantage", "outcome"],
    trajectories=[1, 100],
)
__all__ = ["CELLS_OF_TINY", "TINY", "Inline", "cells", "deadly", "is_deadly"]
CELLS_OF_TINY = (2 * 2 * 2 + 1) * 3 * 2  # environments x kl x seeds, and the one pair that an environment brings


class Inline(Executor):
    """An executor of one's own: it computes at once, where it stands."""

    def submit(self, function, /, *arguments, **options):
        future = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def deadly(batch: list[Cell]) -> list[computing.Outcome]:
    """Like `compute`, but one of the cells kills the process that touches it."""
    if any(is_deadly(cell) for cell in batch):
        os._exit(1)
    return computing.compute(batch)


def is_deadly(cell: Cell) -> bool:
    return (cell.weight.name, cell.signal.name, cell.pair.kl, cell.pair.seed) == ("token", "outcome", 0.05, 1)
