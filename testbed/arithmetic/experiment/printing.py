"""What an experiment found as text for a terminal."""

from __future__ import annotations

import math
import textwrap

from rich.console import Console
from rich.text import Text

from testbed.arithmetic.experiment.settings import Experiment
from testbed.arithmetic.experiment.summary import MethodResult, Summary
from testbed.arithmetic.experiment.wording import collapsed, options_chosen, p_value, per_cent, plain_number, rate
from testbed.sweep.printing import text_width

NAME = 27
"""Width of a method with the options chosen."""


def print_experiment(experiment: Experiment, summary: Summary) -> None:
    """Print to standard output: a table per staleness, then collapse over all tuning runs, then the length study."""
    console = Console(width=max(text_width(), 100), highlight=False, soft_wrap=True)
    lines: list[str | Text] = [*textwrap.wrap(heading(experiment, summary), 100), ""]
    for k in experiment.staleness:
        rows = [r for r in summary.results if r.staleness == k]
        if rows:
            lines += [*_table(experiment, rows, k), ""]
    lines += [*_robustness(experiment, summary), ""] if summary.robustness else []
    lines += _lengths(experiment, summary) if summary.lengths else []
    for line in lines:
        console.print(line, markup=False)


def heading(experiment: Experiment, summary: Summary) -> str:
    """What the tables hold and how their numbers were made."""
    text = (
        f"{len(experiment.methods)} methods at staleness {_listed(experiment.staleness)} updates; "
        f"{_budget(experiment)}, and {_seeds(len(experiment.final_seeds), 'other')}, paired across methods. "
        "Accuracy is the exact expected share of right answers on held-out prompts, in per cent, after the last "
        "update; collapsed runs count with what they end with, and with 0 where they broke off. Brackets: 95 % "
        "intervals, Student's t for means, Clopper-Pearson for shares."
    )
    if experiment.references:
        text += (
            f" The difference is to {experiment.references[0]}, seed by seed, in points, with the p-value of the "
            "paired t-test after Holm over the methods of the table."
        )
    if any(r.at_edge for r in summary.results):
        text += " *: the lowest or highest learning rate tried; a better one may lie beyond."
    return text


def _budget(experiment: Experiment) -> str:
    """How the configuration of a method was found."""
    dealt = sorted({(len(m.configurations), len(experiment.tuning_seeds_of(m))) for m in experiment.methods})
    if dealt == [(1, len(experiment.tuning_seeds))]:
        return f"one configuration each, {_seeds(dealt[0][1], 'tuning')}"
    count, ways = dealt[0][0] * dealt[0][1], [f"{c} configurations with {_seeds(s, 'tuning')}" for c, s in dealt]
    return (
        f"{count} tuning runs each at every staleness ({' or '.join(ways)}), of which the configuration with the best "
        "mean final accuracy was chosen"
    )


def _table(experiment: Experiment, rows: list[MethodResult], k: int) -> list[Text]:
    reference = experiment.references[0] if experiment.references else ""
    difference = f"to {reference}" if reference else ""
    title = f"K = {k}"
    head = Text.assemble(
        (f"{title:<{NAME}}", "bold"),
        (f"{'lr':<8}{'accuracy':<15}{'peak':>5}{'pass@8':>7} {'collapsed':<14}{difference:<17}", "dim"),
        ("p" if reference else "", "dim"),
    )
    lines = [head]
    for row in rows:
        name = " ".join([row.method, options_chosen(experiment.method(row.method), row.weight)]).strip()
        line = Text(f"{name:<{NAME}}" if len(name) < NAME else f"{name}\n{'':<{NAME}}")
        line.append(f"{rate(row.learning_rate) + ('*' if row.at_edge else ''):<8}")
        line.append(f"{per_cent(row.final_accuracy, decimals=0):<15}", style="bold")
        line.append(f"{_points(row.peak_accuracy.estimate):>5}{_points(row.pass_at_8.estimate):>7} ")
        line.append(f"{collapsed(row.collapsed, row.seeds, row.share_collapsed):<14}")
        for found in row.comparisons:
            if found.reference == reference:
                line.append(f"{per_cent(found.difference, signed=True, decimals=0):<17}{p_value(found.t_p_adjusted)}")
        lines.append(line)
    return lines


def _robustness(experiment: Experiment, summary: Summary) -> list[Text | str]:
    width = 17
    rates = _listed([rate(r) for r in summary.shared_learning_rates])
    lines: list[Text | str] = [
        *textwrap.wrap(
            "Robustness to the learning rate: collapsed runs of all tuning runs at the learning rates that every "
            f"method has ({rates}), all of a method's clips together; then their mean final accuracy.",
            100,
        ),
        Text.assemble(f"{'':<{NAME - 6}}", *((f"{f'K = {k}':<{width}}", "dim") for k in experiment.staleness)),
    ]
    for method in experiment.methods:
        line = Text(f"{method.name:<{NAME - 6}}")
        for k in experiment.staleness:
            found = [r for r in summary.robustness if (r.method, r.staleness) == (method.name, k)]
            text = "".join(f"{r.collapsed}/{r.runs}, {100 * r.mean_accuracy:.1f}" for r in found)
            line.append(f"{text:<{width}}")
        lines.append(line)
    return lines


def _lengths(experiment: Experiment, summary: Summary) -> list[Text | str]:
    study = experiment.length
    assert study is not None
    rates = sorted({task.get("learning_rate", study.learning_rate) for task in study.tasks.values()})
    rates_said = rate(rates[0]) if len(rates) == 1 else f"{rate(rates[0])} to {rate(rates[-1])}, the task's own"
    lines: list[Text | str] = [
        *textwrap.wrap(
            f"Tokens at the lower bound of the clip of {study.weight}, K = {study.staleness}, learning rate "
            f"{rates_said}, in per cent of the tokens, mean over updates from step K on.",
            100,
        ),
        Text(f"{'':<{NAME}}{'mean length':<19}{'all tokens':<19}by position 1, 2, ...", style="dim"),
    ]
    for found in summary.lengths:
        by_position = " ".join(f"{_points(p.estimate):>5}" for p in found.by_position)
        name = f"{found.task:<{NAME}}"
        lines.append(Text(f"{name}{plain_number(found.answer_length):<19}{per_cent(found.floor):<19}{by_position}"))
    return lines


def _points(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _listed(values: object) -> str:
    return ", ".join(str(v) for v in values)  # type: ignore[attr-defined]


def _seeds(count: int, which: str) -> str:
    return f"{count} {which} seed{'' if count == 1 else 's'}"
