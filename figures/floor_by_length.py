"""Floor saturation of MinPRO's clip against length: how many tokens end at its lower bound as answers grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from figures import style
from figures.data import NothingToDrawError, Row, only, write_csv
from figures.runs import experiment_table, interval, rows_of, settings_of

NAME = "floor_by_length"
WHOLE = "all"
"""In the data: all positions together."""


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the figure from an experiment's tables.

    Raises:
        ValueError: there are none, or nothing in them to draw.
    """
    rows = rows_of(results, NAME, shares)
    assert results is not None
    study = settings_of(results)["length"]
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    with style.subplots(1, 2, (9.6, 4.2), sharey=True) as (figure, axes):
        for task in tasks:
            _plot(axes[0], [r for r in rows if r["task"] == task], style.look(task, tasks))
        axes[0, 0].set_title("by position of the token")
        axes[0, 0].set_xlabel("position in the answer, tokens counted from 1")
        axes[0, 0].set_ylabel("tokens at the clip's lower bound, %")
        axes[0, 0].xaxis.set_major_locator(_whole_numbers())
        axes[0, 1].set_title("all tokens, by length")
        axes[0, 1].set_xlabel("mean length of the sampled answers, tokens")
        # A little room, so that a line at zero is seen.
        axes[0, 0].set_ylim(bottom=-0.02 * axes[0, 0].get_ylim()[1])
        figure.suptitle(
            f"Floor saturation of {study['weight']} against length: K = {study['staleness']}, learning rate "
            f"{study['learning_rate']:g}\nshare of tokens, mean over updates from step K on; "
            f"{_over(len(study['seeds']))}",
            x=0.01,
            ha="left",
        )
        style.legend_below(figure, axes, columns=min(len(tasks), 5))
        return [*style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows)]


def shares(results: Path) -> list[Row]:
    """Per task and position, and for all positions together: share of tokens at the floor over the seeds."""
    table = experiment_table(results, "runs.parquet", "length")
    positions = sorted(int(name.removeprefix("floor_")) for name in table if name.removeprefix("floor_").isdigit())
    rows: list[Row] = []
    for task in dict.fromkeys(table["name"].tolist()):
        mine = only(table, table["name"] == task)
        length = interval(mine["answer_length"].tolist(), (1.0, np.inf))
        for position, column in [(WHOLE, "mean_floor_fraction"), *((str(t), f"floor_{t}") for t in positions)]:
            values = mine[column][np.isfinite(mine[column])].tolist()
            if values:
                mean, low, high = interval(values, (0.0, 1.0))
                rows.append({
                    "task": task, "position": position, "share": mean, "low": low, "high": high, "seeds": len(values),
                    "mean_length": length[0],
                })  # fmt: skip
    if not rows:
        raise NothingToDrawError("no run of the length study has a share of tokens at the clip's lower bound")
    return rows


def _plot(axes: Any, rows: list[Row], look: dict[str, Any]) -> None:
    by_position = [row for row in rows if row["position"] != WHOLE]
    whole = [row for row in rows if row["position"] == WHOLE]
    for ax, some, x in (
        (axes[0], by_position, [int(row["position"]) for row in by_position]),
        (axes[1], whole, [row["mean_length"] for row in whole]),
    ):
        mean, low, high = (100 * np.array([row[c] for row in some]) for c in ("share", "low", "high"))
        error = np.nan_to_num([mean - low, high - mean])
        ax.errorbar(x, mean, yerr=error, label=rows[0]["task"], elinewidth=0.8, capsize=2, **look)


def _over(seeds: int) -> str:
    return f"mean and 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
