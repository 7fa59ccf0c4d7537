"""From the log of a training run to the numbers that tables keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from testbed.arithmetic.experiment.columns import CURVES, EVERY, MEANS, POSITIONS

Log = Mapping[str, NDArray[Any]]


class Run(Protocol):
    """What training leaves, as far as it is looked at here: `TrainingRun`."""

    @property
    def settings(self) -> Any:
        """Of which `steps`, the updates that were asked for, is read."""
        ...

    @property
    def log(self) -> Log:
        """Column -> one entry per step."""
        ...

    @property
    def collapsed_at(self) -> int | None:
        """The step at which it counted as collapsed; None where it did not."""
        ...

    @property
    def collapse(self) -> str | None:
        """Why."""
        ...


def run_numbers(run: Run, staleness: int) -> dict[str, Any]:
    """The columns of one run.

    The final policy counts as it is. A run that broke off before its last update, as its gradient was no longer finite,
    and one whose final policy is NaN have final accuracies of 0: the last number before it would hide the collapse. NaN
    remains where a number does not exist.

    Args:
        run: finished.
        staleness: K; what happens at each update counts from step K on, when rollouts are K updates old.
    """
    log = run.log
    accuracy = _column(log, "accuracy")
    known = accuracy[np.isfinite(accuracy)]
    final = {name: _number(_column(log, name)[-1:]) for name in ("accuracy", "greedy_accuracy", "pass_at_8")}
    broke = accuracy.size - 1 < run.settings.steps
    scored = {name: 0.0 if broke or math.isnan(value) else value for name, value in final.items()}
    # The last row is of the final policy, before no update.
    updates = slice(min(staleness, accuracy.size - 2), accuracy.size - 1) if accuracy.size > 1 else slice(0, 1)
    policies = slice(min(staleness, accuracy.size - 1), None)
    return {
        "final_accuracy": scored["accuracy"],
        "recorded_accuracy": final["accuracy"],
        "peak_accuracy": float(known.max()) if known.size else 0.0,
        "final_greedy_accuracy": scored["greedy_accuracy"],
        "final_expected_reward": _number(_column(log, "expected_reward")[-1:]),
        "final_pass_at_8": scored["pass_at_8"],
        "collapsed": int(run.collapsed_at is not None or broke or math.isnan(final["accuracy"])),
        "collapsed_at": None if run.collapsed_at is None else int(run.collapsed_at),
        "collapse": run.collapse or "",
        "steps": accuracy.size - 1,
        "answer_length": _number(_column(log, "length")[updates]),
        **{f"mean_{name}": _number(_column(log, name)[policies]) for name in MEANS},
        **{f"mean_{name}": _number(_column(log, name)[updates]) for name in EVERY},
        **{f"floor_{t}": _number(_column(log, f"floor_{t}")[updates]) for t in range(1, POSITIONS + 1)},
    }


def curve(run: Run) -> dict[str, list[Any]]:
    """Columns of the steps at which the policy was evaluated, and of the last one."""
    accuracy, cosine = _column(run.log, "accuracy"), _column(run.log, "cosine")
    kept = np.isfinite(accuracy) | np.isfinite(cosine)
    kept[-1] = True
    steps = run.log["step"] if "step" in run.log else np.arange(accuracy.size)
    columns = {name: [float(x) for x in _column(run.log, name)[kept]] for name in CURVES}
    return {"step": [int(n) for n in np.asarray(steps)[kept]], **columns}


def _column(log: Log, name: str) -> NDArray[np.float64]:
    """NaN throughout where the log has no such column: a shorter task has no seventh position."""
    if name in log:
        return np.asarray(log[name], dtype=np.float64)
    return np.full(len(log["accuracy"]), math.nan)


def _number(values: NDArray[np.float64]) -> float:
    """Mean of what is finite; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan
