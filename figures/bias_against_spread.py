"""Every correction of a table: relative bias across, relative standard deviation upwards, and who is not beaten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from figures import style
from figures.data import EXACT, NothingToDrawError, Row, Table, labels, only, table_of, write_csv

NAME = "bias_against_spread"
SIGNAL = "target_advantage"
# The axis of biases is linear up to here, so that what is exact has a place at 0, and logarithmic beyond.
LINEAR = 0.1


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the medians of every weight over the cells at the table's middle divergence, with one signal.

    Raises:
        NothingToDrawError: no cell with the signal, or one weight alone.
    """
    table = table_of(results)
    table = only(table, (table["signal"] == SIGNAL) & np.isfinite(table["relative_bias"]))
    if len(set(table["weight"].tolist())) < 2:
        raise NothingToDrawError(f"fewer than two weights have cells with signal {SIGNAL}")
    rows = points(table)
    with style.subplots(1, 1, (9.6, 5.2)) as (figure, axes):
        _plot(axes[0, 0], rows)
        figure.suptitle(
            f"Every correction: bias against spread, signal {SIGNAL}\nmedians over {rows[0]['cells']} cells each "
            f"(environments, kinds of drift, seeds), KL(mu || pi) = {rows[0]['kl']:g} nats per token",
            x=0.01, ha="left",
        )  # fmt: skip
        return [*style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows)]


def points(table: Table) -> Sequence[Row]:
    """One row per weight; it is beaten if another has no more bias and no more spread, and less of one."""
    names, divergences = labels(table, "weight"), sorted(set(table["kl_target"].tolist()))
    kl = divergences[len(divergences) // 2]
    rows: list[dict[str, Any]] = []
    for weight in dict.fromkeys(names.tolist()):
        mine = (table["kl_target"] == kl) & (names == weight)
        if mine.any():
            bias, spread = (float(np.median(table[c][mine])) for c in ("relative_bias", "relative_standard_deviation"))
            rows.append({
                "signal": SIGNAL, "weight": weight, "kl": kl, "relative_bias": 0.0 if bias < EXACT else bias,
                "relative_standard_deviation": spread, "cells": int(mine.sum()),
            })  # fmt: skip
    for row in rows:
        row["beaten"] = int(any(_beats(other, row) for other in rows))
    return rows


def _beats(one: Row, other: Row) -> bool:
    pairs = [(one[c], other[c]) for c in ("relative_bias", "relative_standard_deviation")]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _plot(ax: Any, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for row in rows:
        looks = style.look(row["weight"])
        known = row["weight"] in style.FAVOURITES
        ax.plot(
            row["relative_bias"], row["relative_standard_deviation"], linestyle="none",
            marker=looks["marker"] if known else "o", color=looks["color"] if known else "#8A8A8A",
            markersize=7 if known else 4.5, zorder=3 if known else 2,
        )  # fmt: skip
    front = sorted((r for r in rows if not r["beaten"]), key=lambda r: r["relative_bias"])
    ax.plot(
        [r["relative_bias"] for r in front], [r["relative_standard_deviation"] for r in front],
        color="#444444", linewidth=0.8, zorder=1, drawstyle="steps-post", label="front: no other has less of both",
    )  # fmt: skip
    ax.set_xscale("symlog", linthresh=LINEAR, linscale=0.5)
    ax.set_yscale("log")
    style.log_axis(ax.yaxis)
    ax.yaxis.set_minor_formatter(NullFormatter())
    greatest = 3.5 * max(LINEAR, *(r["relative_bias"] for r in rows))
    marks = [digit * 10.0**k for k in range(-1, math.ceil(math.log10(greatest))) for digit in (1, 2, 5)]
    ax.set_xticks([0.0, LINEAR / 2, *(mark for mark in marks if mark < greatest)])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(-LINEAR / 5, greatest)
    ax.set_xlabel("relative bias |E[ĝ] - g| / |g|: exact at 0, linear up to 0.1, logarithmic beyond")
    ax.set_ylabel("√Var[ĝ] / |g|  of one trajectory")
    ax.legend(loc="lower left")
    _names(ax, rows)


def _names(ax: Any, rows: Sequence[Row]) -> None:
    """Names left of the front for those on it, right of the marks for the others, each at a height of its own."""
    ax.figure.canvas.draw()
    to_axes = ax.transData + ax.transAxes.inverted()
    column = 0.03 + max(to_axes.transform((r["relative_bias"], 1.0))[0] for r in rows)
    for beaten in (0, 1):
        last = -1.0
        for row in sorted((r for r in rows if r["beaten"] == beaten), key=lambda r: r["relative_standard_deviation"]):
            place = (row["relative_bias"], row["relative_standard_deviation"])
            x, y = to_axes.transform(place)
            last = max(y, last + 0.048)
            left = not beaten and x > 0.3
            at = x - 0.025 if left else column if beaten and x > 0.3 else x + 0.02
            above = 0.03 if not left and x < 0.3 else 0.0  # off the line of the front
            ax.annotate(
                row["weight"], place, textcoords="axes fraction", xytext=(at, last + above), va="center", fontsize=8,
                ha="right" if left else "left", zorder=4,
                arrowprops={"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3,
                            "relpos": (1.0 if left else 0.0, 0.5)},
            )  # fmt: skip
