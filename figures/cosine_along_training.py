"""Cosine to the true gradient along training: how far stale rollouts turn what each method ascends."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from figures.runs import along_training, draw_along, rows_of

NAME = "cosine_along_training"


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the figure from an experiment's tables.

    Raises:
        ValueError: there are none, or nothing in them to draw.
    """
    rows = rows_of(results, NAME, lambda folder: along_training(folder, "cosine", (-1.0, 1.0), missing=np.nan))
    assert results is not None
    without = sorted({r["method"] for r in rows} - {r["method"] for r in rows if np.isfinite(r["mean"])})
    note = f"; without an exact mean: {', '.join(without)}" if without else ""
    title = (
        "Cosine of the estimator's exact mean and the true gradient along training, by staleness K\n"
        f"mean and 95 % interval over the seeds that have one{note}"
    )
    return draw_along(results, out, NAME, rows, label="cosine", title=title)
