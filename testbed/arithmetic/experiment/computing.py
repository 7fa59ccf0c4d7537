"""What one task computes. This is the part that runs in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from testbed.arithmetic.experiment.measuring import Run, curve, run_numbers
from testbed.arithmetic.experiment.tasks import TUNING, Task
from testbed.sweep.computing import Outcome

Train = Callable[[Mapping[str, Any]], Run]
"""A training run from its options; a function that another process can import."""


def trained(options: Mapping[str, Any]) -> Run:
    """A training run of the arithmetic transformer, on one thread."""
    import torch

    from testbed.arithmetic.training import Training, train

    # Two threads on small matrices are slower than one, and a sum in another order would change the last digit.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(Training.from_plain(options))
    finally:
        torch.set_num_threads(before)


def compute(batch: list[Task], train: Train = trained) -> list[Outcome]:
    """The outcome of each task; an exception in one does not touch the others."""
    return [_outcome(task, train) for task in batch]


def _outcome(task: Task, train: Train) -> Outcome:
    start = perf_counter()
    values: dict[str, Any] | None
    try:
        run = train(task.training)
        values = {"run": {**task.names, **run_numbers(run, task.training["staleness"])}}
        # Of tuning runs the numbers are enough: there are many of them.
        if task.stage != TUNING:
            values["curve"] = curve(run)
        error = None
    except Exception as problem:  # whatever it is, it is this run's alone
        values, error = None, " ".join(f"{type(problem).__name__}: {problem}".split())
    return Outcome(task.key, values, error, perf_counter() - start)
