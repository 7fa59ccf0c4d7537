"""The tables of an experiment as its figures read them, and what figures along training have in common."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from figures import style
from figures.data import NothingToDrawError, Row, Table, only, read_csv, write_csv

EXPERIMENT_FIGURES = ("learning_curves", "cosine_along_training", "floor_by_length")
TABLES = ("runs.parquet", "curves.parquet")
# A stranger to the house style that would share its colour with MinPRO, beside which it stands.
_OWN = {"gspo": {"color": "#009E73"}}
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
        missing: what a run counts with at a step where it has no number; NaN leaves it out there.
    """
    table = experiment_table(results, "curves.parquet", "final")
    rows: list[Row] = []
    for k in np.unique(table["staleness"]):
        panel = only(table, table["staleness"] == k)
        for name in dict.fromkeys(panel["name"].tolist()):
            mine = only(panel, panel["name"] == name)
            for step in _steps(panel, column):
                here = only(mine, mine["step"] == step)
                at = dict(zip(here["seed"].tolist(), here[column].tolist(), strict=True))
                found = [at.get(seed, np.nan) for seed in np.unique(mine["seed"]).tolist()]
                values = [missing if not np.isfinite(v) else v for v in found]
                mean, low, high = interval([v for v in values if np.isfinite(v)], bounds)
                rows.append({
                    "staleness": int(k), "method": name, "weight": mine["weight"][0],
                    "learning_rate": float(mine["learning_rate"][0]), "step": int(step), "mean": mean, "low": low,
                    "high": high, "seeds": int(np.isfinite(values).sum()),
                })  # fmt: skip
    if not any(np.isfinite(row["mean"]) for row in rows):
        raise NothingToDrawError(f"no final run has a finite {column}")
    return rows


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
    """A row of panels per level of methods, a column per staleness; the first reference is in every row."""
    settings = settings_of(results)
    methods, looks = settings["methods"], looks_of(settings["methods"])
    lags = sorted({row["staleness"] for row in rows})
    repeated = settings["references"][:1]
    # A row of the repeated method alone would show nothing that the other does not.
    levels = [level for level in _ROWS if any(m["level"] == level and m["name"] not in repeated for m in methods)]
    levels = levels or [methods[0]["level"]]
    width = max(9.6, 2.4 * len(lags))
    with style.subplots(len(levels), len(lags), (width, 2.45 * len(levels) + 1.3), sharex=True, sharey=True) as (
        figure,
        axes,
    ):
        for i, level in enumerate(levels):
            shown = [m["name"] for m in methods if m["level"] == level or m["name"] in repeated]
            for j, k in enumerate(lags):
                _panel(axes[i, j], [r for r in rows if r["staleness"] == k], shown, looks, scale, repeated)
                if i == 0:
                    axes[i, j].set_title(f"K = {k}" + (" (on policy)" if k == 0 else ""))
                if i == len(levels) - 1:
                    axes[i, j].set_xlabel("updates")
            axes[i, 0].set_ylabel(f"{_ROWS[level]} weights\n{label}")
        figure.suptitle(title, x=0.01, ha="left")
        style.legend_below(figure, axes, columns=5)
        return [*style.save(figure, out, name), write_csv(out / f"{name}.csv", rows)]


def _panel(
    ax: Any, rows: list[Row], shown: list[str], looks: Mapping[str, dict[str, Any]], scale: float, bold: list[str]
) -> None:
    for method in shown:
        line = [row for row in rows if row["method"] == method and np.isfinite(row["mean"])]
        step = [row["step"] for row in line]
        mean, low, high = (scale * np.array([row[c] for row in line]) for c in ("mean", "low", "high"))
        look = looks[method]
        ax.fill_between(step, low, high, color=look["color"], alpha=0.13, linewidth=0)
        # Markers stand apart, each method's at places of its own.
        every = max(len(line) // 4, 1)
        width = 2.4 if method in bold else 1.3
        ax.plot(step, mean, label=method, linewidth=width, markevery=(shown.index(method) % every, every), **look)
