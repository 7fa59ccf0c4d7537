"""Accuracy against the learning rate under staleness: where each method, with each of its clips, falls back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from figures import style
from figures.data import NothingToDrawError, Row, only, write_csv
from figures.runs import draw_line, experiment_table, interval, looks_of, panels, rows_of, settings_of

NAME = "accuracy_by_learning_rate"


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the figure from an experiment's tables.

    Raises:
        ValueError: there are none, or nothing in them to draw.
    """
    rows = rows_of(results, NAME, accuracies)
    assert results is not None
    settings = settings_of(results)
    looks = looks_of(settings["methods"])
    weights = {m["name"]: list(m["weights"]) for m in settings["methods"]}
    first, second = (sorted({r["seeds"] for r in rows})[i] for i in (0, -1))
    seeds = f"{first} seeds" if first == second else f"{first} or {second} seeds"
    title = (
        f"Accuracy after the last update against the learning rate, by staleness K: mean and 95 % interval, {seeds},"
        "\nas many runs for each method; filled marks: its first clip, hollow ones: its second; dotted: the base model"
    )
    lags = sorted({row["staleness"] for row in rows})
    with panels(settings, lags, "accuracy, %", "learning rate", title) as (figure, cells):
        for ax, k, methods in cells:
            for method in methods:
                for place, weight in enumerate(weights[method]):
                    line = [r for r in rows if (r["staleness"], r["method"], r["weight"]) == (k, method, weight)]
                    name = {} if place else {"label": method}
                    filled = "none" if place else "full"
                    draw_line(
                        ax, line, "learning_rate", 100.0, linewidth=1.2, fillstyle=filled, **name, **looks[method]
                    )
            ax.set_xscale("log")
            if np.isfinite(rows[0]["base"]):
                ax.axhline(100.0 * rows[0]["base"], color="#444444", linewidth=0.8, linestyle=":")
        style.legend_below(figure, np.array([ax for ax, *_ in cells]), columns=5)
        return [*style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows)]


def accuracies(results: Path) -> list[Row]:
    """Per staleness, method, weight and learning rate: final accuracy over the tuning seeds, and runs collapsed."""
    table = experiment_table(results, "runs.parquet", "tuning")
    if len(set(table["learning_rate"].tolist())) < 2:
        raise NothingToDrawError("every run has the same learning rate")
    try:
        curves = experiment_table(results, "curves.parquet", "final")
        base = float(np.nanmean(curves["accuracy"][curves["step"] == 0]))
    except NothingToDrawError:
        base = float("nan")
    cells = zip(*(table[c].tolist() for c in ("staleness", "name", "weight", "learning_rate")), strict=True)
    rows: list[Row] = []
    for k, method, weight, rate in dict.fromkeys(cells):
        mine = only(table, (table["staleness"] == k) & (table["name"] == method) & (table["weight"] == weight)
                    & (table["learning_rate"] == rate))  # fmt: skip
        mean, low, high = interval(mine["final_accuracy"].tolist(), (0.0, 1.0))
        rows.append({
            "staleness": int(k), "method": method, "weight": weight, "learning_rate": float(rate), "mean": mean,
            "low": low, "high": high, "seeds": len(mine["seed"]), "collapsed": int(mine["collapsed"].sum()),
            "base": base,
        })  # fmt: skip
    return rows
