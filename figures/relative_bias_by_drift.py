"""Relative bias against drift: which correction points at the true gradient, for how long, and with which signal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from figures import style
from figures.data import (
    EXACT,
    NothingToDrawError,
    Row,
    Table,
    divergence_unit,
    labels,
    only,
    signal_titles,
    table_of,
    write_csv,
)

NAME = "relative_bias_by_drift"
SIGNALS = ("target_advantage", "behaviour_advantage", "outcome(baseline=expected_return)")
_MOST_WEIGHTS = 7


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the figure from a sweep's table.

    Raises:
        ValueError: there is no table, or nothing in it to draw.
    """
    table = _comparable(_drifted(table_of(results)))
    rows = medians(table)
    with style.subplots(1, len({row["signal"] for row in rows}), (9.6, 4.3), sharey=True) as (figure, axes):
        _plot(axes[0], rows)
        environments = np.unique(labels(table, "environment", "environment_options")).size
        drifts = np.unique(labels(table, "drift", "drift_options")).size
        axes[0, 0].set_ylabel("relative bias  |E[ĝ] - g| / |g|")
        for ax in axes[0]:
            ax.set_xlabel(f"drift  KL(mu || pi), {divergence_unit(table)}")
        figure.suptitle(
            f"Relative bias against drift, per signal: median and quartiles over {environments} environments, "
            f"{drifts} kinds of drift",
            x=0.01,
            ha="left",
        )
        style.legend_below(figure, axes, columns=4)
        return [*style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows)]


def medians(table: Table) -> list[Row]:
    """Per signal, weight and divergence: median, quartiles and extremes of the relative bias over the cells."""
    titles = signal_titles(table)
    rows: list[Row] = []
    for signal in style.chosen(titles.tolist(), SIGNALS, len(SIGNALS)):
        panel = only(table, titles == signal)
        for weight in style.chosen(panel["weight"].tolist(), style.FAVOURITES, _MOST_WEIGHTS):
            for kl in np.unique(panel["kl_target"]):
                bias = panel["relative_bias"][(panel["weight"] == weight) & (panel["kl_target"] == kl)]
                bias = bias[np.isfinite(bias)]
                if bias.size:
                    least, low, middle, high, most = np.quantile(bias, [0.0, 0.25, 0.5, 0.75, 1.0])
                    rows.append({
                        "signal": signal, "weight": weight, "kl": float(kl), "median": middle, "quartile_low": low,
                        "quartile_high": high, "least": least, "greatest": most, "cells": bias.size,
                    })  # fmt: skip
    if not rows:
        raise NothingToDrawError("no cell of the table has a finite relative bias")
    return rows


def _drifted(table: Table) -> Table:
    """The cells with a place on a logarithmic axis of divergences: those at KL = 0 have none."""
    drifted = table["kl_target"] > 0.0
    if not drifted.any():
        raise NothingToDrawError("no cell of the table has a divergence above zero, and its axis is logarithmic")
    return only(table, drifted)


def _comparable(table: Table) -> Table:
    """The settings that reach every divergence, so that along a line the same cells are summarised.

    All cells where there is no such setting.
    """
    names = ("environment", "environment_options", "drift", "drift_options", "seed", "weight", "signal", "score")
    keys = np.array(["\0".join(map(str, key)) for key in zip(*(table[n] for n in (*names, "reduction")), strict=True)])
    _, where, count = np.unique(keys, return_inverse=True, return_counts=True)
    complete = count[where] == np.unique(table["kl_target"]).size
    return only(table, complete) if complete.any() else table


def _plot(axes: Any, rows: list[Row]) -> None:
    signals = list(dict.fromkeys(str(row["signal"]) for row in rows))
    for ax, signal in zip(axes, signals, strict=True):
        panel = [row for row in rows if row["signal"] == signal]
        weights = list(dict.fromkeys(str(row["weight"]) for row in panel))
        exact = []
        for i, weight in enumerate(weights):
            line = [row for row in panel if row["weight"] == weight]
            worst = max(row["greatest"] for row in line)
            if worst < EXACT:
                exact.append((weight, worst))
                # An empty line: the legend is the same whichever panel a weight can be seen in.
                ax.plot([], [], label=weight, **style.look(weight, weights))
                continue
            _line(ax, line, weight, weights, shift=i - (len(weights) - 1) / 2)
        note = "no weight is exact"
        if exact:
            note = f"exact (at most {max(w for _, w in exact):.0e}): " + ", ".join(w for w, _ in exact)
        ax.set_title(f"signal {signal}\n{note}", fontsize=8.5)
        ax.set_xscale("log")
        ax.set_yscale("log")
        style.log_axis(ax.yaxis)
        kls = sorted({float(row["kl"]) for row in panel})
        ax.set_xticks(kls, [f"{kl:g}" for kl in kls])


def _line(ax: Any, line: list[Row], weight: str, weights: list[str], shift: float) -> None:
    """One weight; moved a little to the side, so that the bars of different weights stand beside each other."""
    # A median that is zero, while some cells are not, has no place on a logarithmic axis: the line has a gap there.
    shown = [row for row in line if row["median"] >= EXACT]
    x = np.array([row["kl"] for row in shown]) * 1.035**shift
    y = np.array([row["median"] for row in shown])
    low = y - np.maximum([row["quartile_low"] for row in shown], EXACT)
    high = np.array([row["quartile_high"] for row in shown]) - y
    ax.errorbar(x, y, yerr=[low, high], label=weight, elinewidth=0.8, **style.look(weight, weights))
