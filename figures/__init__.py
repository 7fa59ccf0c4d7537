"""Figures: one module each, which writes an image (PNG and SVG) and the data it drew (CSV).

A module has `draw(results, out) -> paths`. matplotlib is imported when something is drawn, not before.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

FIGURES = (
    "relative_bias_by_drift", "variance_by_horizon", "mse_by_batch", "bias_against_spread", "weight_by_position",
    "bias_terms",
)  # fmt: skip

__all__ = ["FIGURES", "draw_all"]


def draw_all(results_folder: str | Path, out_folder: str | Path) -> list[Path]:
    """Draw every figure from the results of a sweep or of an experiment; returns what was written.

    A figure that a table has no data for (a sweep of other things) is left out, and one that fails does not touch the
    others; each of the two is a sentence on standard error.

    Raises:
        ValueError: the folder holds no table.
    """
    from figures.data import NothingToDrawError
    from figures.runs import draw_experiment, holds_experiment
    from testbed.sweep import read_table

    results, out = Path(results_folder), Path(out_folder)
    if holds_experiment(results):
        return draw_experiment(results, out)
    read_table(results)  # without a table there is one sentence, not one per figure
    paths: list[Path] = []
    for name in FIGURES:
        try:
            paths += importlib.import_module(f"figures.{name}").draw(results, out)
        except NothingToDrawError as reason:
            print(f"figures: {name} is left out: {reason}", file=sys.stderr)
        except Exception as problem:  # whatever it is, it is this figure's alone
            sentence = " ".join(f"{type(problem).__name__}: {problem}".split())
            print(f"figures: {name} failed: {sentence}", file=sys.stderr)
    return paths
