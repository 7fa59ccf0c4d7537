"""What an experiment found as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from testbed.arithmetic.experiment.printing import heading
from testbed.arithmetic.experiment.settings import Experiment
from testbed.arithmetic.experiment.summary import Summary
from testbed.arithmetic.experiment.wording import collapsed, p_value, per_cent, plain_number, rate
from testbed.sweep.journal import write_whole

FILE = "tables.md"


def write_markdown(folder: Path, experiment: Experiment, summary: Summary) -> Path:
    """Write tables.md: every table, with both tests and every reference."""
    parts = [f"# {experiment.name}", heading(experiment, summary), *_signed_ranks(experiment)]
    for k in experiment.staleness:
        rows = [r for r in summary.results if r.staleness == k]
        if rows:
            parts += [f"## K = {k}", _results(rows), *_comparisons(experiment, rows)]
    if summary.robustness:
        parts += ["## All tuning runs at the learning rates that every method has", _robustness(summary)]
        parts += ["## Every configuration, over the tuning seeds", _configurations(summary)]
    if summary.ageing:
        parts += [
            f"## Older rollouts at the same configuration: final accuracy less that at K = {min(experiment.staleness)}",
            "Paired by tuning seed, in points; then the p-value of the paired t-test, after Holm over the "
            "configurations at the same learning rate and staleness.",
            _ageing(summary),
        ]
    if summary.lengths:
        parts += ["## Tokens at the lower bound of the clip, by length", _lengths(summary)]
    path = folder / FILE
    write_whole(path, ("\n\n".join(parts) + "\n").encode())
    return path


def as_data(summary: Summary) -> dict[str, Any]:
    """The summary for `--json`: NaN becomes null, because JSON has no NaN; an interval is {estimate, low, high}."""
    found: dict[str, Any] = _plain(asdict(summary, dict_factory=dict))
    return found


def _results(rows: Sequence[Any]) -> str:
    head = ("method", "weight", "learning rate", "final accuracy, %", "peak accuracy, %", "pass@8, %", "collapsed, %",
            "mean cosine")  # fmt: skip
    return _table(head, (
        (r.method, f"`{r.weight}`", rate(r.learning_rate) + ("*" if r.at_edge else ""), per_cent(r.final_accuracy),
         per_cent(r.peak_accuracy), per_cent(r.pass_at_8), collapsed(r.collapsed, r.seeds, r.share_collapsed),
         plain_number(r.cosine))
        for r in rows
    ))  # fmt: skip


def _comparisons(experiment: Experiment, rows: Sequence[Any]) -> list[str]:
    parts = []
    head = ("method", "difference, points", "t-test p", "after Holm", "signed-rank p", "after Holm", "pairs")
    for reference in experiment.references:
        found = [(r.method, c) for r in rows for c in r.comparisons if c.reference == reference]
        if found:
            parts += [f"Final accuracy less that of {reference}, seed by seed:", _table(head, (
                (name, per_cent(c.difference, signed=True), p_value(c.t_p), p_value(c.t_p_adjusted),
                 p_value(c.wilcoxon_p), p_value(c.wilcoxon_p_adjusted), c.pairs)
                for name, c in found
            ))]  # fmt: skip
    return parts


def _signed_ranks(experiment: Experiment) -> list[str]:
    """What that test cannot say with few seeds."""
    seeds, methods = len(experiment.final_seeds), len(experiment.methods) - 1
    if not experiment.references:
        return []
    least = 2.0 ** (1 - seeds)
    return [
        f"Signed ranks of {seeds} pairs have a p-value of {p_value(least)} at the least, after Holm over {methods} "
        f"methods of {p_value(min(1.0, methods * least))}."
    ]


def _robustness(summary: Summary) -> str:
    rows = (
        (r.staleness, r.method, f"{r.collapsed}/{r.runs}", f"{100 * r.mean_accuracy:.1f}") for r in summary.robustness
    )
    return _table(("K", "method", "collapsed", "mean final accuracy, %"), rows)


def _configurations(summary: Summary) -> str:
    rows = (
        (c.staleness, c.method, f"`{c.weight}`", rate(c.learning_rate), per_cent(c.accuracy),
         f"{c.collapsed}/{c.runs}", "yes" if c.chosen else "")
        for c in summary.configurations
    )  # fmt: skip
    head = ("K", "method", "weight", "learning rate", "final accuracy, %", "collapsed", "chosen")
    return _table(head, rows)


def _ageing(summary: Summary) -> str:
    older = sorted({a.staleness for a in summary.ageing})
    found = {(a.learning_rate, a.method, a.weight, a.staleness): a for a in summary.ageing}
    rows = []
    for learning_rate, method, weight in dict.fromkeys(key[:3] for key in found):
        cells = [found.get((learning_rate, method, weight, k)) for k in older]
        texts = [
            "" if a is None else f"{per_cent(a.difference, signed=True)}, {p_value(a.t_p_adjusted)}" for a in cells
        ]
        rows.append((rate(learning_rate), method, f"`{weight}`", *texts))
    return _table(("learning rate", "method", "weight", *(f"K = {k}" for k in older)), rows)


def _lengths(summary: Summary) -> str:
    most = max(r.longest for r in summary.lengths)
    rows = (
        (r.task, plain_number(r.answer_length), per_cent(r.floor), *(per_cent(p) for p in r.by_position),
         *[""] * (most - r.longest))
        for r in summary.lengths
    )  # fmt: skip
    return _table(("task", "mean length, tokens", "all tokens, %", *(f"t = {t}" for t in range(1, most + 1))), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
