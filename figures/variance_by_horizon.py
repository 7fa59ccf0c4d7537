"""Variance against the horizon: what a product of ratios costs as sequences grow, and what a bounded stand-in saves."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import theory
from figures import style
from figures.data import EXACT, Row, write_csv

NAME = "variance_by_horizon"
SIGNAL = "target_advantage"
WEIGHTS = ("none", "token", "prefix", "sequence", "minpro", "minpro(clip=(0.8, 1.28))", "v_trace")
HORIZONS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
OPTIONS = {"states": 6, "actions": 4}
KL = 0.01


def draw(results: Path | None, out: Path, *, horizons: Iterable[int] = HORIZONS, kl: float = KL) -> list[Path]:
    """Compute the moments by the recursion and draw them; no table is read."""
    rows = exact_moments(tuple(horizons), kl)
    with style.subplots(1, 2, (9.6, 4.6)) as (figure, axes):
        _plot(axes[0, 0], rows, "relative_standard_deviation", least=0.0)
        _plot(axes[0, 1], rows, "relative_bias", least=EXACT)
        style.log_axis(axes[0, 1].yaxis)
        axes[0, 0].set_ylabel("√Var[ĝ] / |g|  of one trajectory")
        axes[0, 0].set_title("relative standard deviation")
        axes[0, 1].set_ylabel("|E[ĝ] - g| / |g|")
        axes[0, 1].set_title("relative bias" + _exact_note(rows))
        size = ", ".join(f"{name}={value}" for name, value in OPTIONS.items())
        title = f"Variance against horizon: signal {SIGNAL}, garnet({size}), "
        figure.get_layout_engine().set(w_pad=0.1)
        figure.suptitle(f"{title}noise drift, KL(mu || pi) = {kl:g} nats per token", x=0.01, ha="left")
        style.legend_below(figure, axes, columns=4)
        return [*style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows)]


@cache  # the same in every folder: drawn again in one process, it costs nothing
def exact_moments(horizons: tuple[int, ...] = HORIZONS, kl: float = KL) -> list[Row]:
    """Relative bias and standard deviation per horizon and weight.

    The policy is the same at every horizon, that of the longest; the drift's strength is solved for at each, since the
    states of a short episode are others than those of a long one.
    """
    from testbed import drift

    policy = _environment(max(horizons)).target
    rows: list[Row] = []
    for T in horizons:
        process = _environment(T).process
        pair = drift.at("noise", process, policy, kl=kl, seed=0)
        for name in WEIGHTS:
            estimator = theory.Estimator(_weight(name), SIGNAL)
            m = theory.moments(process, pair.target, pair.behaviour, estimator, engine="recursion")
            deviation = float(np.sqrt(m.variance) / np.linalg.norm(m.gradient))
            rows.append({
                "signal": SIGNAL, "weight": name, "horizon": T, "kl_token": pair.kl,
                "relative_standard_deviation": deviation, "relative_bias": m.relative_bias, "engine": m.engine,
            })  # fmt: skip
    return rows


def _environment(horizon: int) -> Any:
    from testbed.environments import environment

    return environment("garnet", **OPTIONS, horizon=horizon)


def _weight(name: str) -> theory.Weight:
    return theory.weight("minpro", clip=(0.8, 1.28)) if "clip" in name else theory.weight(name)


def _plot(ax: Any, rows: list[Row], column: str, least: float) -> None:
    beyond = []
    for weight in WEIGHTS:
        line = [row for row in rows if row["weight"] == weight]
        # Below `least` is rounding around zero; an infinite value is beyond float64, and is said in words.
        shown = [row for row in line if least < row[column] < np.inf]
        ax.plot([r["horizon"] for r in shown], [r[column] for r in shown], label=weight, **style.look(weight))
        beyond += [(weight, r["horizon"]) for r in line if not np.isfinite(r[column])][:1]
    for i, (weight, horizon) in enumerate(beyond):
        text = f"{weight}: beyond float64 from T = {horizon}"
        ax.text(0.02, 0.97 - 0.06 * i, text, transform=ax.transAxes, va="top", fontsize=8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("horizon T, steps")


def _exact_note(rows: list[Row]) -> str:
    worst = {w: max(row["relative_bias"] for row in rows if row["weight"] == w) for w in WEIGHTS}
    exact = {weight: value for weight, value in worst.items() if value < EXACT}
    return f"; exact (at most {max(exact.values()):.0e}): {', '.join(exact)}" if exact else ""
