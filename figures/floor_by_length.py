"""Floor saturation of MinPRO's clip against length: how many tokens end at its lower bound as answers grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from figures import style
from figures.data import NothingToDrawError, Row, only, write_csv
from figures.runs import experiment_table, interval, rows_of, settings_of
from figures.weight_by_position import POSITIONS, minpro_law, token_law

NAME = "floor_by_length"
WHOLE = "all"
"""In the data: all positions together."""
KLS = (0.001, 0.01, 0.1)
"""Nats per token of the exact panel."""


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the figure from an experiment's tables; the panel of long sequences is computed.

    Raises:
        ValueError: there are none, or nothing in them to draw.
    """
    rows = rows_of(results, NAME, shares)
    assert results is not None
    study = settings_of(results)["length"]
    exact = exact_shares(study["weight"])
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    with style.subplots(1, 2, (9.6, 4.4), sharey=True) as (figure, axes):
        for task in tasks:
            _plot(axes[0, 0], [r for r in rows if r["task"] == task], style.look(task, tasks))
        axes[0, 0].set_title(f"trained, K = {study['staleness']}: {_over(len(study['seeds']))}", fontsize="medium")
        axes[0, 0].set_xlabel("position in the answer, tokens counted from 1")
        axes[0, 0].set_ylabel("tokens at the clip's lower bound, %")
        axes[0, 0].xaxis.set_major_locator(_whole_numbers())
        for kl, look in zip(KLS, (":", "--", "-"), strict=True):
            line = [r for r in exact if r["kl_token"] == kl]
            axes[0, 1].plot(
                [r["position"] for r in line], [100 * r["share"] for r in line], color="#444444", linestyle=look,
                label=f"i.i.d. tokens, KL {kl:g}",
            )  # fmt: skip
        axes[0, 1].set_xscale("log")
        axes[0, 1].set_title("exactly, tokens independent and alike", fontsize="medium")
        axes[0, 1].set_xlabel("position, tokens counted from 1")
        # A little room, so that a line at zero is seen.
        axes[0, 0].set_ylim(-2.0, 102.0)
        figure.suptitle(f"Floor saturation of {study['weight']} against length", x=0.01, ha="left")
        style.legend_below(figure, axes, columns=4)
        return [
            *style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows),
            write_csv(out / f"{NAME}_exact.csv", exact),
        ]  # fmt: skip


def exact_shares(weight: str) -> list[Row]:
    """Share of tokens at MinPRO's lower bound at each position where all tokens have one law: P(m_t rho_t <= low).

    Empty where the weight is another one.
    """
    from testbed import spelling

    name, options = spelling.call(weight)
    if name != "minpro" or "clip" not in options:
        return []
    rows: list[Row] = []
    for kl in KLS:
        log_ratio, chance = token_law(max(POSITIONS), kl=kl)
        for t in POSITIONS:
            law = minpro_law(log_ratio, chance, t)
            share = float(law.probability[law.value <= options["clip"][0]].sum())
            rows.append({"kl_token": kl, "position": t, "share": share})
    return rows


def shares(results: Path) -> list[Row]:
    """Per task and position, and for all positions together: share of tokens at the floor over the seeds."""
    table = experiment_table(results, "runs.parquet", "length")
    positions = sorted(int(name.removeprefix("floor_")) for name in table if name.removeprefix("floor_").isdigit())
    rows: list[Row] = []
    for task in dict.fromkeys(table["name"].tolist()):
        mine = only(table, table["name"] == task)
        length = interval(mine["answer_length"].tolist(), (1.0, np.inf))
        kl = float(np.mean(mine["mean_kl_sampled"]))
        for position, column in [(WHOLE, "mean_floor_fraction"), *((str(t), f"floor_{t}") for t in positions)]:
            values = mine[column][np.isfinite(mine[column])].tolist()
            if values:
                mean, low, high = interval(values, (0.0, 1.0))
                rows.append({
                    "task": task, "position": position, "share": mean, "low": low, "high": high, "seeds": len(values),
                    "mean_length": length[0], "kl_token": kl,
                })  # fmt: skip
    if not rows:
        raise NothingToDrawError("no run of the length study has a share of tokens at the clip's lower bound")
    return rows


def _plot(ax: Any, rows: list[Row], look: dict[str, Any]) -> None:
    """Where the task's tokens stand, and how far its policy is from that of its rollouts."""
    by_position = [row for row in rows if row["position"] != WHOLE]
    x = [int(row["position"]) for row in by_position]
    mean, low, high = (100 * np.array([row[c] for row in by_position]) for c in ("share", "low", "high"))
    error = np.nan_to_num([mean - low, high - mean])
    label = f"{rows[0]['task']}, KL {rows[0]['kl_token']:.2g}"
    ax.errorbar(x, mean, yerr=error, label=label, elinewidth=0.8, capsize=2, **look)


def _over(seeds: int) -> str:
    return f"mean and 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
