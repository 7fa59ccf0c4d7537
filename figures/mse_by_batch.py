"""Mean squared error against batch size: when a biased estimator is the better one, and until which batch."""

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

NAME = "mse_by_batch"
SIGNALS = ("target_advantage", "outcome(baseline=expected_return)")
BATCHES = np.logspace(0, 7, 57)
# The cell that is drawn, where the table has it; otherwise the nearest that it has.
ENVIRONMENT, DRIFT, KL = "digit_addition(base=2)", "noise", 0.1
_MOST_WEIGHTS = 7


def draw(results: Path | None, out: Path) -> list[Path]:
    """Draw the figure from a sweep's table.

    Raises:
        ValueError: there is no table, or nothing in it to draw.
    """
    cell, title = _one_cell(table_of(results))
    panels = _panels(cell)
    rows = [row for signal, lines in panels.items() for row in errors(signal, lines)]
    crossings = [row for signal, lines in panels.items() for row in crossovers(signal, lines)]
    with style.subplots(1, len(panels), (9.6, 4.8), sharey=True) as (figure, axes):
        for ax, (signal, lines) in zip(axes[0], panels.items(), strict=True):
            _plot(ax, signal, lines, [row for row in crossings if row["signal"] == signal])
        shown = [row["relative_mse"] for row in rows]
        axes[0, 0].set_ylim(0.5 * min(shown), 2.0 * max(shown))  # of all panels: the feet of the crossings go further
        axes[0, 0].set_ylabel("relative mean squared error  E|ĝ - g|² / |g|²")
        figure.suptitle(f"Mean squared error against batch size: {title}", x=0.01, ha="left")
        paths = style.save(figure, out, NAME)
    paths.append(write_csv(out / f"{NAME}.csv", rows))
    return [*paths, write_csv(out / f"{NAME}_crossovers.csv", crossings)] if crossings else paths


def crossover(variance: float, other_variance: float, other_squared_bias: float) -> float:
    """The batch size n at which an unbiased estimator and a biased one have the same mean squared error.

    variance / n = other_squared_bias + other_variance / n, so n = (variance - other_variance) / other_squared_bias.
    Above it the unbiased one is better. Not positive: the unbiased one is better at every batch size.

    >>> crossover(variance=9.0, other_variance=1.0, other_squared_bias=0.5)
    16.0
    """
    return (variance - other_variance) / other_squared_bias


def errors(signal: str, lines: list[Row]) -> list[Row]:
    """The relative mean squared error of each weight at each batch size."""
    return [
        {"signal": signal, "weight": line["weight"], "trajectories": float(n), "relative_mse": _error(line, n)}
        for line in lines
        for n in BATCHES
    ]


def crossovers(signal: str, lines: list[Row]) -> list[Row]:
    """Every pair of an unbiased and a biased weight, with the batch size from which the unbiased one is better."""
    unbiased = [line for line in lines if line["squared_bias"] < EXACT**2]
    biased = [line for line in lines if line["squared_bias"] >= EXACT**2]
    return [
        {
            "signal": signal, "unbiased": u["weight"], "biased": b["weight"],
            "trajectories": crossover(u["variance"], b["variance"], b["squared_bias"]),
        }
        for u in unbiased
        for b in biased
    ]  # fmt: skip


def _error(line: Row, n: Any) -> Any:
    bias = line["squared_bias"] if line["squared_bias"] >= EXACT**2 else 0.0
    return bias + line["variance"] / n


def _one_cell(table: Table) -> tuple[Table, str]:
    """One environment, drift, seed and divergence, with all its weights and signals; and its name."""
    environments = labels(table, "environment", "environment_options")
    drifts = labels(table, "drift", "drift_options")
    table = only({**table, "_environment": environments, "_drift": drifts}, np.isfinite(table["relative_bias"]))
    for column, favourite in (("_environment", ENVIRONMENT), ("_drift", DRIFT)):
        if not table[column].size:
            raise NothingToDrawError("no cell of the table has a true gradient other than zero")
        table = only(table, table[column] == style.chosen(table[column].tolist(), [favourite], 1)[0])
    divergences = np.unique(table["kl_target"])
    kl = divergences[np.argmin(np.abs(np.log(np.maximum(divergences, 1e-12) / KL)))]
    table = only(table, table["kl_target"] == kl)
    seeds = np.unique(table["seed"])  # NaN where nothing is drawn
    table = table if np.isnan(seeds[0]) else only(table, table["seed"] == seeds[0])
    seed = "" if np.isnan(seeds[0]) else f" (seed {seeds[0]:g})"
    name = f"{table['_environment'][0]}, {table['_drift'][0]} drift{seed}, KL = {kl:g} {divergence_unit(table)}"
    return table, name


def _panels(cell: Table) -> dict[str, list[Row]]:
    """Signal -> one line per weight, in units of the squared norm of the gradient."""
    titles = signal_titles(cell)
    panels: dict[str, list[Row]] = {}
    for signal in style.chosen(titles.tolist(), SIGNALS, len(SIGNALS)):
        here = only(cell, titles == signal)
        weights = style.chosen(here["weight"].tolist(), style.FAVOURITES, _MOST_WEIGHTS)
        places = [int(np.flatnonzero(here["weight"] == weight)[0]) for weight in weights]
        panels[signal] = [
            {
                "weight": weight,
                "squared_bias": float(here["relative_bias"][i] ** 2),
                "variance": float(here["variance"][i] / here["gradient_norm"][i] ** 2),
            }
            for weight, i in zip(weights, places, strict=True)
        ]
    return panels


def _plot(ax: Any, signal: str, lines: list[Row], crossings: list[Row]) -> None:
    weights = [str(line["weight"]) for line in lines]
    # With several unbiased weights, the one of least variance is the one to be overtaken by.
    best = min((line for line in lines if line["squared_bias"] < EXACT**2), key=lambda u: u["variance"], default=None)
    overtaken = {row["biased"]: row["trajectories"] for row in crossings if best and row["unbiased"] == best["weight"]}
    for line in lines:
        weight = str(line["weight"])
        n = overtaken.get(weight)
        label = weight if n is None else f"{weight}: {_until(n)}"
        label += " (unbiased)" if line["squared_bias"] < EXACT**2 else ""
        ax.plot(BATCHES, _error(line, BATCHES), label=label, markevery=8, **style.look(weight, weights))
        if n is not None and BATCHES[0] <= n <= BATCHES[-1]:
            # A ring at the crossing, and its foot on the axis.
            color = style.look(weight, weights)["color"]
            ax.plot([n], [_error(line, n)], "o", markersize=8, markerfacecolor="none", color=color, zorder=5)
            ax.plot([n, n], [_error(line, n), 1e-30], color=color, linestyle=":", linewidth=1.0, zorder=0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("batch size n, trajectories")
    ax.set_title(f"signal {signal}")
    heading = f"until where better than {best['weight']}" if best else None
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=2, title=heading, fontsize=8, alignment="left")


def _until(n: float) -> str:
    return f"n < {n:,.0f}" if n > 1.0 else "never"
