"""The tables of an experiment as its figures read them, and what figures along training have in common."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from figures import style
from figures.data import NothingToDrawError, Row, Table, only, read_csv, write_csv

EXPERIMENT_FIGURES = ("learning_curves", "accuracy_by_learning_rate", "cosine_along_training", "floor_by_length")
TABLES = ("runs.parquet", "curves.parquet")
# Strangers to the house style that would share their colour with MinPRO, beside which they stand, or with each other.
_OWN = {"gspo": {"color": "#009E73"}, "m2po": {"color": "#882255"}}
_ROWS = {"token": "token-level", "prefix": "prefix or sequence"}


def draw_experiment(results_folder: str | Path, out_folder: str | Path) -> list[Path]:
    """Draw every figure of an experiment from its folder of results, or from the data beside figures drawn before.

    Returns what was written. A figure that there are no data for is left out, and one that fails does not touch the
    others; each of the two is a sentence on standard error.
    """
    paths: list[Path] = []
    for name in EXPERIMENT_FIGURES:
        try:
            paths += importlib.import_module(f"figures.{name}").draw(Path(results_folder), Path(out_folder))
        except NothingToDrawError as reason:
            print(f"figures: {name} is left out: {reason}", file=sys.stderr)
        except Exception as problem:  # whatever it is, it is this figure's alone
            sentence = " ".join(f"{type(problem).__name__}: {problem}".split())
            print(f"figures: {name} failed: {sentence}", file=sys.stderr)
    return paths


def holds_experiment(results: Path) -> bool:
    """Whether a folder has the tables of an experiment, or what its figures were drawn from."""
    drawn = [(results / f"{name}.csv").is_file() for name in EXPERIMENT_FIGURES]
    return _holds_tables(results) or ((results / "manifest.json").is_file() and any(drawn))


def rows_of(results: Path | None, name: str, compute: Callable[[Path], list[Row]]) -> list[Row]:
    """The data of a figure: from the tables of the experiment, or, without them, the data beside it as it was drawn.

    Raises:
        ValueError: there is neither.
        NothingToDrawError: the tables have none of it.
    """
    if results is not None and _holds_tables(results):
        return compute(results)
    if results is None or not (results / f"{name}.csv").is_file():
        raise ValueError("this figure is drawn from an experiment's tables; run `testbed experiment` first")
    return read_csv(results / f"{name}.csv")


def _holds_tables(results: Path) -> bool:
    return all((results / name).is_file() for name in TABLES)


def experiment_table(results: Path, name: str, stage: str) -> Table:
    """The rows of one stage in runs.parquet or curves.parquet.

    Raises:
        NothingToDrawError: there are none.
    """
    from testbed.sweep import read_table

    table = read_table(results / name)
    wanted = table["stage"] == stage
    if not wanted.any():
        raise NothingToDrawError(f"{name} has no {stage} runs")
    return only(table, wanted)


def settings_of(results: Path) -> Mapping[str, Any]:
    """The experiment's settings, from its manifest."""
    found: Mapping[str, Any] = json.loads((results / "manifest.json").read_text(encoding="utf-8"))["settings"]
    return found


def looks_of(methods: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Method -> colour, line style and marker: those of its weight where it has some, whatever its clip."""
    bases = {m["name"]: str(m["weights"][0]).partition("(") for m in methods}
    names = {
        method: next((f for f in style.FAVOURITES if bracket and f.startswith(base + bracket)), base)
        for method, (base, bracket, _) in bases.items()
    }
    return {method: style.look(weight, names.values()) | _OWN.get(weight, {}) for method, weight in names.items()}


def interval(values: list[float], bounds: tuple[float, float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95 % Student t interval."""
    from testbed.arithmetic.experiment.statistics import mean_interval

    return mean_interval(values, bounds=bounds)


def along_training(results: Path, column: str, bounds: tuple[float, float], missing: float) -> list[Row]:
    """Per staleness, method and step: mean and 95 % interval over the final seeds.

    Args:
        results: folder of the experiment.
        column: of curves.parquet.
        bounds: between which the mean is known to lie.
        missing: what a run that has broken off counts with from there on; NaN leaves it out.
    """
    table = experiment_table(results, "curves.parquet", "final")
    rows: list[Row] = []
    for k in np.unique(table["staleness"]):
        panel = only(table, table["staleness"] == k)
        for name in dict.fromkeys(panel["name"].tolist()):
            mine = only(panel, panel["name"] == name)
            for step in _steps(panel, column):
                here, ended = only(mine, mine["step"] == step), _ended(mine, step)
                at = dict(zip(here["seed"].tolist(), here[column].tolist(), strict=True))
                if not at and not any(ended.values()):
                    continue  # looked at for other methods only
                found = [at.get(seed, np.nan) for seed in ended]
                values = [
                    missing if ended[seed] and not np.isfinite(v) else v for seed, v in zip(ended, found, strict=True)
                ]
                mean, low, high = interval([v for v in values if np.isfinite(v)], bounds)
                rows.append({
                    "staleness": int(k), "method": name, "weight": mine["weight"][0],
                    "learning_rate": float(mine["learning_rate"][0]), "step": int(step), "mean": mean, "low": low,
                    "high": high, "seeds": int(np.isfinite(values).sum()),
                })  # fmt: skip
    if not any(np.isfinite(row["mean"]) for row in rows):
        raise NothingToDrawError(f"no final run has a finite {column}")
    return rows


def _ended(mine: Table, step: int) -> dict[int, bool]:
    """Seed -> whether its run has no row after the step."""
    return {int(seed): not (mine["step"][mine["seed"] == seed] > step).any() for seed in np.unique(mine["seed"])}


def _steps(panel: Table, column: str) -> list[int]:
    """Steps of the runs that got farthest: a run that broke off has a last one of its own."""
    last = {
        key: int(panel["step"][(panel["name"] == key[0]) & (panel["seed"] == key[1])].max())
        for key in set(zip(panel["name"].tolist(), panel["seed"].tolist(), strict=True))
    }
    farthest = [key for key, step in last.items() if step == max(last.values())]
    steps: set[int] = set()
    for name, seed in farthest:
        run = (panel["name"] == name) & (panel["seed"] == seed) & np.isfinite(panel[column])
        steps |= set(panel["step"][run].tolist())
    return sorted(steps)


def draw_along(
    results: Path, out: Path, name: str, rows: list[Row], *, label: str, title: str, scale: float = 1.0
) -> list[Path]:
    """Panels against updates, as `panels` has them."""
    settings = settings_of(results)
    looks, repeated = looks_of(settings["methods"]), settings["references"][:1]

    def fill(ax: Any, k: int, methods: list[str]) -> None:
        for method in methods:
            line = [r for r in rows if (r["staleness"], r["method"]) == (k, method) and np.isfinite(r["mean"])]
            # Markers stand apart, each method's at places of its own.
            every = max(len(line) // 4, 1)
            draw_line(
                ax, line, "step", scale, label=method, linewidth=2.4 if method in repeated else 1.3,
                markevery=(methods.index(method) % every, every), **looks[method],
            )  # fmt: skip

    lags = sorted({row["staleness"] for row in rows})
    with panels(settings, lags, label, "updates", title) as (figure, cells):
        for ax, k, methods in cells:
            fill(ax, k, methods)
        style.legend_below(figure, np.array([ax for ax, *_ in cells]), columns=5)
        return [*style.save(figure, out, name), write_csv(out / f"{name}.csv", rows)]


@contextmanager
def panels(
    settings: Mapping[str, Any], lags: list[int], label: str, below: str, title: str
) -> Iterator[tuple[Any, list[tuple[Any, int, list[str]]]]]:
    """A row of panels per level of methods, a column per staleness: the figure, and (axes, K, methods) of each panel.

    The first reference is in every row.
    """
    methods, repeated = settings["methods"], settings["references"][:1]
    # A row of the repeated method alone would show nothing that the other does not.
    levels = [level for level in _ROWS if any(m["level"] == level and m["name"] not in repeated for m in methods)]
    levels = levels or [methods[0]["level"]]
    size = (max(9.6, 2.4 * len(lags)), 2.45 * len(levels) + 1.3)
    with style.subplots(len(levels), len(lags), size, sharex=True, sharey=True) as (figure, axes):
        cells = []
        for i, level in enumerate(levels):
            guests = [name for name in repeated if all(m["level"] != level for m in methods if m["name"] == name)]
            shown = [m["name"] for m in methods if m["level"] == level or m["name"] in repeated]
            axes[i, 0].set_ylabel(f"{_ROWS[level]} weights{''.join(f', and {name}' for name in guests)}\n{label}")
            cells += [(axes[i, j], k, shown) for j, k in enumerate(lags)]
        for j, k in enumerate(lags):
            axes[0, j].set_title(f"K = {k}" + (": every weight is 1" if k == 0 else ""))
            axes[-1, j].set_xlabel(below)
        figure.suptitle(title, x=0.01, ha="left")
        yield figure, cells


def draw_line(ax: Any, rows: list[Row], across: str, scale: float, **look: Any) -> None:
    """A line of means over its band of intervals."""
    x = [row[across] for row in rows]
    mean, low, high = (scale * np.array([row[c] for row in rows]) for c in ("mean", "low", "high"))
    ax.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
    ax.plot(x, mean, **look)
