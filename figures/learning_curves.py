"""Learning curves under staleness: which methods keep learning from old rollouts, and which fall back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from figures.runs import along_training, draw_along, rows_of, settings_of

NAME = "learning_curves"


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the figure from an experiment's tables.

    Raises:
        ValueError: there are none, or nothing in them to draw.
    """
    # A run that broke off answers nothing from then on; without it the mean would be that of the survivors.
    rows = rows_of(results, NAME, lambda folder: along_training(folder, "accuracy", (0.0, 1.0), missing=0.0))
    assert results is not None
    seeds = max(row["seeds"] for row in rows)
    settings = settings_of(results)
    training = settings["training"]
    title = (
        f"Accuracy on held-out prompts against updates, by staleness K: mean and 95 % interval over {seeds} seeds, "
        f"each method at its\nbest configuration; signal {training.get('signal', 'group(size=8)')}, reduction "
        f"{training.get('reduction', 'sum')}, {_task(training)}"
    )
    return draw_along(results, out, NAME, rows, label="accuracy, %", title=title, scale=100.0)


def _task(training: Mapping[str, Any]) -> str:
    task = training.get("task", {})
    return f"{task.get('digits', 2)}-digit {str(task.get('operation', 'addition')).replace('_', ' ')}"
