"""What an experiment found: per staleness each method at its best, compared over the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from testbed.arithmetic.experiment.choosing import chosen_configurations
from testbed.arithmetic.experiment.columns import POSITIONS
from testbed.arithmetic.experiment.settings import Experiment, Method
from testbed.arithmetic.experiment.statistics import Interval, holm, mean_interval, paired, share_interval
from testbed.arithmetic.experiment.tasks import FINAL, LENGTH, TUNING
from testbed.sweep.table import read_table

Row = Mapping[str, Any]
SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Comparison:
    """A method less a reference, over the seeds that both finished."""

    reference: str
    difference: Interval
    """Of final accuracies."""
    t_p: float
    t_p_adjusted: float
    """By Holm's method, over the methods compared with this reference at this staleness."""
    wilcoxon_p: float
    wilcoxon_p_adjusted: float
    pairs: int


@dataclass(frozen=True)
class MethodResult:
    """One method at one staleness."""

    method: str
    staleness: int
    weight: str
    learning_rate: float
    at_edge: bool
    """Whether the learning rate chosen is the lowest or highest of several that it had."""
    seeds: int
    final_accuracy: Interval
    peak_accuracy: Interval
    pass_at_8: Interval
    collapsed: int
    share_collapsed: Interval
    cosine: Interval
    comparisons: tuple[Comparison, ...]
    """With each reference but itself."""


@dataclass(frozen=True)
class Robustness:
    """Collapse over all tuning runs at the learning rates that every method has.

    Without an interval: runs of one seed, or of one learning rate, collapse together, so that they are no independent
    trials.
    """

    method: str
    staleness: int
    collapsed: int
    runs: int
    mean_accuracy: float
    """Final, over the same runs."""


@dataclass(frozen=True)
class Configuration:
    """One configuration at one staleness, over the tuning seeds."""

    method: str
    staleness: int
    weight: str
    learning_rate: float
    accuracy: Interval
    """Final."""
    collapsed: int
    runs: int
    chosen: bool


@dataclass(frozen=True)
class Ageing:
    """What older rollouts cost at the same configuration: final accuracy less that at the lowest staleness, paired by
    tuning seed."""

    method: str
    weight: str
    learning_rate: float
    staleness: int
    difference: Interval
    t_p: float
    t_p_adjusted: float
    """By Holm's method, over the configurations at this learning rate and staleness."""
    pairs: int


@dataclass(frozen=True)
class LengthResult:
    """The clip's floor on one task of the length study."""

    task: str
    longest: int
    """Tokens of the longest answer that has a column: positions with a number."""
    answer_length: Interval
    floor: Interval
    """Share of all tokens at the clip's lower bound."""
    by_position: tuple[Interval, ...]
    seeds: int


@dataclass(frozen=True)
class Summary:
    """Everything that is printed and written."""

    results: tuple[MethodResult, ...]
    robustness: tuple[Robustness, ...]
    shared_learning_rates: tuple[float, ...]
    configurations: tuple[Configuration, ...]
    ageing: tuple[Ageing, ...]
    lengths: tuple[LengthResult, ...]


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of runs.parquet.

    Raises:
        ValueError: there is no such table.
    """
    path = Path(folder) / "runs.parquet"
    if not path.is_file():
        raise ValueError(f"there are no runs in {str(folder)!r}; expected a folder that `testbed experiment` wrote")
    table = read_table(path)
    return [dict(zip(table, values, strict=True)) for values in zip(*(c.tolist() for c in table.values()), strict=True)]


def summarise_runs(experiment: Experiment, runs: Sequence[Row]) -> Summary:
    """From the runs of an experiment, all of its stages; what is missing is left out."""
    tuning, final, length = ([row for row in runs if row["stage"] == stage] for stage in (TUNING, FINAL, LENGTH))
    shared = set.intersection(*({*method.learning_rates} for method in experiment.methods))
    return Summary(
        tuple(r for k in experiment.staleness for r in _results(experiment, final, k)),
        tuple(r for k in experiment.staleness for r in _robustness(experiment, tuning, k, shared)),
        tuple(sorted(shared)),
        tuple(_configurations(experiment, tuning, bool(final))),
        tuple(_ageing(experiment, tuning)),
        tuple(_lengths(experiment, length)),
    )


def _results(experiment: Experiment, final: Sequence[Row], k: int) -> list[MethodResult]:
    rows = {m.name: _seeds(final, m.name, k) for m in experiment.methods}
    compared = {reference: _comparisons(rows, reference) for reference in experiment.references if rows[reference]}
    found = []
    for method in experiment.methods:
        mine = [*rows[method.name].values()]
        if not mine:
            continue
        collapsed = sum(r["collapsed"] for r in mine)
        rate = mine[0]["learning_rate"]
        found.append(MethodResult(
            method.name, k, mine[0]["weight"], rate, _at_edge(method, rate), len(mine),
            mean_interval([r["final_accuracy"] for r in mine], bounds=SHARE),
            mean_interval([r["peak_accuracy"] for r in mine], bounds=SHARE),
            mean_interval([r["final_pass_at_8"] for r in mine], bounds=SHARE),
            collapsed, share_interval(collapsed, len(mine)),
            # A run without one, because its gradient had vanished or was never computed, has no say in it.
            mean_interval([r["mean_cosine"] for r in mine if np.isfinite(r["mean_cosine"])], bounds=(-1.0, 1.0)),
            tuple(c[method.name] for c in compared.values() if method.name in c),
        ))  # fmt: skip
    return found


def _comparisons(rows: Mapping[str, Mapping[int, Row]], reference: str) -> dict[str, Comparison]:
    found = {}
    for name, mine in rows.items():
        both = [seed for seed in mine if seed in rows[reference]]
        if name != reference and both:
            found[name] = paired(
                [mine[seed]["final_accuracy"] for seed in both],
                [rows[reference][seed]["final_accuracy"] for seed in both],
            )
    by_t, by_ranks = holm([p.t_p for p in found.values()]), holm([p.wilcoxon_p for p in found.values()])
    return {
        name: Comparison(reference, p.difference, p.t_p, t, p.wilcoxon_p, ranks, p.pairs)
        for (name, p), t, ranks in zip(found.items(), by_t, by_ranks, strict=True)
    }


def _robustness(experiment: Experiment, tuning: Sequence[Row], k: int, shared: set[float]) -> list[Robustness]:
    found = []
    for method in experiment.methods:
        mine = [r for r in _of(tuning, method.name, k) if r["learning_rate"] in shared]
        if mine:
            hits = sum(r["collapsed"] for r in mine)
            mean = float(np.mean([r["final_accuracy"] for r in mine]))
            found.append(Robustness(method.name, k, hits, len(mine), mean))
    return found


def _configurations(experiment: Experiment, tuning: Sequence[Row], decided: bool) -> list[Configuration]:
    chosen = chosen_configurations(tuning) if decided else {}
    found = []
    for k in experiment.staleness:
        for method in experiment.methods:
            for weight, rate in method.configurations:
                mine = [r for r in _of(tuning, method.name, k) if (r["weight"], r["learning_rate"]) == (weight, rate)]
                if mine:
                    found.append(Configuration(
                        method.name, k, weight, rate, mean_interval([r["final_accuracy"] for r in mine], bounds=SHARE),
                        sum(r["collapsed"] for r in mine), len(mine), chosen.get((method.name, k)) == (weight, rate),
                    ))  # fmt: skip
    return found


def _ageing(experiment: Experiment, tuning: Sequence[Row]) -> list[Ageing]:
    youngest, *older = sorted(experiment.staleness)
    at = {(r["name"], r["weight"], r["learning_rate"], r["staleness"], r["seed"]): r["final_accuracy"] for r in tuning}
    found = []
    for k, rate in product(older, sorted({rate for m in experiment.methods for rate in m.learning_rates})):
        compared = {}
        for method in (m for m in experiment.methods if rate in m.learning_rates):
            for weight in method.weights:
                cell = (method.name, weight, rate)
                pairs = [
                    (at[*cell, k, seed], at[*cell, youngest, seed])
                    for seed in experiment.tuning_seeds_of(method)
                    if (*cell, k, seed) in at and (*cell, youngest, seed) in at
                ]
                if len(pairs) > 1:
                    compared[cell] = paired([old for old, _ in pairs], [young for _, young in pairs])
        adjusted = holm([p.t_p for p in compared.values()])
        found += [
            Ageing(*cell, k, p.difference, p.t_p, adjusted_p, p.pairs)
            for (cell, p), adjusted_p in zip(compared.items(), adjusted, strict=True)
        ]
    return found


def _lengths(experiment: Experiment, rows: Sequence[Row]) -> list[LengthResult]:
    found = []
    for name in experiment.length.tasks if experiment.length is not None else ():
        mine = [r for r in rows if r["name"] == name]
        if not mine:
            continue
        positions = [[r[f"floor_{t}"] for r in mine if np.isfinite(r[f"floor_{t}"])] for t in range(1, POSITIONS + 1)]
        longest = max((t for t, values in enumerate(positions, 1) if values), default=0)
        found.append(LengthResult(
            name, longest, mean_interval([r["answer_length"] for r in mine]),
            mean_interval([r["mean_floor_fraction"] for r in mine], bounds=SHARE),
            tuple(mean_interval(values, bounds=SHARE) for values in positions[:longest]), len(mine),
        ))  # fmt: skip
    return found


def _at_edge(method: Method, learning_rate: float) -> bool:
    rates = sorted(method.learning_rates)
    return len(rates) > 1 and learning_rate in (rates[0], rates[-1])


def _of(rows: Sequence[Row], name: str, k: int) -> list[Row]:
    return [row for row in rows if (row["name"], row["staleness"]) == (name, k)]


def _seeds(rows: Sequence[Row], name: str, k: int) -> dict[int, Row]:
    return {row["seed"]: row for row in _of(rows, name, k)}
