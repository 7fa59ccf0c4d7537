"""The words and the table of the page."""

from __future__ import annotations

import math
from typing import Any

from dash import html

from testbed import spelling
from testbed.environments import environment_cards
from testbed.exploring.case import in_words
from testbed.exploring.charts import EXACT, GREATEST_BATCH, shown
from testbed.exploring.numbers import Numbers, WeightNumbers
from testbed.exploring.state import State

COLUMNS = {
    "weight": "weight",
    "engine": "engine",
    "bias": "relative bias",
    "cosine": "cosine",
    "step": "step |E[ĝ]|/|g|",
    "std": "relative std. dev.",
    "mse": "relative MSE at n",
    "zero": "share of zero weights",
}


def table(numbers: Numbers, state: State) -> Any:
    """A row per weight; the one of least error at the batch size is marked."""
    best = numbers.least_error(state.batch)
    rows = []
    for i, w in enumerate(numbers.weights):
        if w.reason:
            rows.append(
                html.Tr([html.Td(w.label), html.Td(html.Span(w.reason), colSpan=len(COLUMNS) - 1, className="reason")])
            )
            continue
        cells = {
            "weight": w.label,
            "engine": w.engine,
            "bias": shown(w.relative_bias),
            "cosine": shown(w.cosine),
            "step": shown(w.effective_step),
            "std": shown(w.relative_std),
            "mse": shown(_mse(w, state.batch)),
            "zero": "-" if w.beside else shown(w.share_zero),
        }
        rows.append(html.Tr(
            [html.Td(text, id=f"cell-{i}-{name}", title=_formula(w.label) if name == "weight" else "", className=name)
             for name, text in cells.items()],
            className="best" if best is not None and w.label == best.label else "",
        ))  # fmt: skip
    head = html.Tr([html.Th(text.replace(" n", f" n = {state.batch:,}") if key == "mse" else text, className=key)
                    for key, text in COLUMNS.items()])  # fmt: skip
    return html.Table([html.Thead(head), html.Tbody(rows)])


def facts(numbers: Numbers, state: State) -> list[Any]:
    """What holds for all weights, and which of them has the least error from where on."""
    summary = f"{state.environment}: {environment_cards()[state.environment].summary}"
    if numbers.reason:
        return [html.P(summary)]
    text = [
        summary,
        f"KL(μ‖π) = {numbers.kl:.4g} nats per token; expected return {numbers.expected_return:.4g}; "
        f"T = {numbers.horizon}; {in_words(numbers.trajectories)} trajectories. Every number is exact.",
    ]
    if winners := numbers.winners(GREATEST_BATCH):
        text.append("Least error: " + ", then ".join(
            name if i == 0 else f"{name} from n = {n:,.0f}" for i, (n, name) in enumerate(winners)
        ) + ".")  # fmt: skip
    return [html.P(line) for line in text]


def notes(numbers: Numbers, state: State, wrong: list[str]) -> list[Any]:
    """What has no meaning, what cannot be had, and why."""
    found = [*wrong, *([numbers.reason] if numbers.reason else [])]
    if abs(numbers.kl - state.kl) > 1e-6 * state.kl:
        found.append(
            f"{state.drift} drift cannot give {state.kl:.4g} nats per token here; shown is the nearest it can, "
            f"{numbers.kl:.4g}."
        )
    if numbers.lost_mass > EXACT:
        found.append(
            f"μ cannot generate {numbers.lost_mass:.3g} of π's trajectories; that is a part of every bias here."
        )
    size = max((w.least_batch for w in numbers.weights), default=1)
    if state.batch % size:
        found.append(f"{state.batch:,} trajectories are no whole number of draws of {size}: they have no error.")
    beside: dict[str, list[str]] = {}
    for w in numbers.weights:
        if w.beside:
            beside.setdefault(w.beside, []).append(w.label)
    found += [f"{', '.join(labels)}: {why}." for why, labels in beside.items()]
    return [html.P(note) for note in found]


def _formula(label: str) -> str:
    """What a weight is, in a line."""
    card = spelling.weight(label).card
    return f"{card.summary} {card.formula}"


def _mse(w: WeightNumbers, batch: int) -> float:
    return w.relative_mse(batch) if batch % w.least_batch == 0 else math.nan
