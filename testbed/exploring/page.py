"""The page: controls, charts and a table. One callback leads from the controls, or the address, to all the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dash import Dash, Input, Output, ctx, dcc, html

import theory
from testbed import drift
from testbed.environments import environment_cards
from testbed.exploring import charts
from testbed.exploring.numbers import Numbers, numbers_of
from testbed.exploring.state import State, from_query, length_option, options_of, to_query, weight_of, written

CLIPPED = ("minpro", "ppo_clip", "cispo", "gspo")
"""Weights that the page's clip applies to."""
SIGNALS = (
    "target_advantage", "behaviour_advantage", "target_action_value", "behaviour_action_value", "reward_to_go",
    "outcome", "outcome(baseline=expected_return)", "group(size=2)", "group(size=4)",
)  # fmt: skip
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
CONTROLS = ("environment", "length", "options", "drift", "kl", "weights", "low", "high", "signal", "batch")
CHARTS = {
    "spread": (
        "Bias and variance",
        "How far the expected estimate is from the gradient, and how much one estimate varies.",
    ),
    "causes": (
        "Where the bias comes from",
        "Parts that add up to the bias as vectors; they may cancel, so that lengths do not add up.",
    ),
    "error": (
        "Which weight has the least error",
        "Squared bias plus variance over n. Dotted: the batch size chosen; circles: where the winner changes.",
    ),
    "positions": (
        "What the weights look like",
        "Each token's weight on data of μ: median, 5 to 95 %, and the mean (a cross), exactly, by position.",
    ),
}  # fmt: skip


def make_app() -> Dash:
    """The application; everything that it serves comes from this machine."""
    wide = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    app = Dash(__name__, title="offpolicy-testbed", update_title=None, serve_locally=True, meta_tags=[wide])
    app.index_string = _INDEX
    app.layout = _layout
    app.callback(
        [*(Output(name, "value") for name in CONTROLS),
         Output("length", "disabled"), Output("length-label", "children"),
         Output("kl-label", "children"), Output("batch-label", "children"),
         Output("weights", "options"), Output("signal", "options"), Output("address", "search"),
         *(Output(f"chart-{name}", "figure") for name in CHARTS),
         Output("table", "children"), Output("facts", "children"), Output("notes", "children")],
        [Input("address", "search"), *(Input(name, "value") for name in CONTROLS)],
    )(_answer)  # fmt: skip
    return app


def _answer(search: str | None, *values: Any) -> list[Any]:
    asked = dict(zip(CONTROLS, values, strict=True))
    moved = ctx.triggered_id
    if moved is None or moved == "address":
        state, wrong = from_query(search or "")
    else:
        state, wrong = changed(from_query(search or "")[0], str(moved), asked)
    return answer(state, wrong)


def changed(state: State, control: str, asked: dict[str, Any]) -> tuple[State, list[str]]:
    """The state after a control was moved; where what it says has no meaning, the state as it was and why."""
    try:
        return _changed(state, control, asked[control], asked), []
    except (ValueError, TypeError) as why:
        return state, [f"{control}: {why}"]


def answer(state: State, wrong: list[str]) -> list[Any]:
    """Everything on the page, in the order of the outputs."""
    numbers = numbers_of(state)
    length = length_option(state.environment)
    given = {**environment_cards()[state.environment].options, **options_of(state.environment, state.options)}
    others = options_of(state.environment, state.options)
    size = given[length] if length else None
    others.pop(length or "", None)
    best = numbers.least_error(state.batch)
    figures = [
        charts.bias_and_spread(numbers), charts.causes(numbers), charts.error_by_batch(numbers, state.batch),
        charts.weight_by_position(numbers),
    ]  # fmt: skip
    controls = [
        state.environment, size, written(others), state.drift, math.log10(state.kl) if state.kl else -4.0,
        list(state.weights), state.clip[0], None if math.isinf(state.clip[1]) else state.clip[1], state.signal,
        math.log2(state.batch),
    ]  # fmt: skip
    return [
        *controls, length is None, f"length ({length})" if length else "length",
        f"KL(μ‖π): {state.kl:.4g} nats per token", f"batch size: n = {state.batch:,} trajectories",
        [{"label": weight_of(text, state.clip).label, "value": text} for text in _weights(state)],
        [*dict.fromkeys((*SIGNALS, state.signal))], to_query(state), *figures,
        _table(numbers, state, best.label if best else ""), _facts(numbers, state), _notes(numbers, wrong),
    ]  # fmt: skip


def _changed(state: State, control: str, value: Any, asked: dict[str, Any]) -> State:
    if control == "environment":
        return replace(state, environment=value, options="")
    if control in ("length", "options"):
        name = length_option(state.environment)
        given = options_of(state.environment, asked["options"] or "")
        if name is not None and asked["length"] is not None:
            given[name] = int(asked["length"])
        return replace(state, options=written(given))
    if control == "kl":
        return replace(state, kl=float(f"{10.0 ** float(value):.3g}"))
    if control == "batch":
        return replace(state, batch=round(2.0 ** float(value)))
    if control in ("low", "high"):
        low, high = (math.inf if asked[end] is None else float(asked[end]) for end in ("low", "high"))
        return replace(state, clip=(low if math.isfinite(low) else 0.0, high))
    if control == "weights":
        return replace(state, weights=tuple(value or ()))
    return replace(state, drift=value) if control == "drift" else replace(state, signal=value)


def _weights(state: State) -> list[str]:
    """What can be chosen: weights that need no third policy, and what the address has beside them."""
    plain = [name for name, card in theory.weight_cards().items() if name != "decoupled" and name not in CLIPPED[1:]]
    return [*dict.fromkeys((*plain, *(f"{name}(clip=clip)" for name in CLIPPED), *state.weights))]


def _table(numbers: Numbers, state: State, best: str) -> Any:
    rows = []
    for i, w in enumerate(numbers.weights):
        if w.reason:
            rows.append(html.Tr([html.Td(w.label), html.Td(w.reason, colSpan=len(COLUMNS) - 1, className="reason")]))
            continue
        cells = {
            "weight": w.label,
            "engine": w.engine,
            "bias": charts.shown(w.relative_bias),
            "cosine": charts.shown(w.cosine),
            "step": charts.shown(w.effective_step),
            "std": charts.shown(w.relative_std),
            "mse": charts.shown(w.relative_mse(state.batch)),
            "zero": charts.shown(w.share_zero),
        }
        rows.append(html.Tr(
            [html.Td(text, id=f"cell-{i}-{name}") for name, text in cells.items()],
            className="best" if w.label == best else "",
        ))  # fmt: skip
    head = html.Tr([html.Th(text.replace(" n", f" n = {state.batch:,}") if key == "mse" else text)
                    for key, text in COLUMNS.items()])  # fmt: skip
    return html.Table([html.Thead(head), html.Tbody(rows)])


def _facts(numbers: Numbers, state: State) -> list[Any]:
    if numbers.reason:
        return []
    winners = numbers.winners(charts.GREATEST_BATCH)
    text = [
        f"KL(μ‖π) = {numbers.kl:.4g} nats per token; expected return {numbers.expected_return:.4g}; "
        f"T = {numbers.horizon}; {numbers.trajectories:,} trajectories. Every number is exact.",
    ]
    if winners:
        text.append("Least error: " + ", then ".join(
            name if i == 0 else f"{name} from n = {n:,.0f}" for i, (n, name) in enumerate(winners)
        ) + ".")  # fmt: skip
    return [html.P(line) for line in text]


def _notes(numbers: Numbers, wrong: list[str]) -> list[Any]:
    notes = [*wrong, *([numbers.reason] if numbers.reason else [])]
    if numbers.lost_mass > charts.EXACT:
        notes.append(
            f"μ cannot generate {numbers.lost_mass:.3g} of π's trajectories; that is a part of every bias here."
        )
    notes += dict.fromkeys(f"{w.label}: {w.beside}." for w in numbers.weights if w.beside)
    return [html.P(note) for note in notes]


def _layout() -> Any:
    """The controls and places; the callback fills them from the address."""

    def field(label: str, control: Any, name: str, width: str = "") -> Any:
        return html.Div([html.Label(label, htmlFor=name, id=f"{name}-label"), control], className=f"field {width}")

    def choice(among: Iterable[str], name: str) -> Any:
        return dcc.Dropdown([*among], id=name, clearable=False)

    number = {"type": "number", "debounce": True}
    decades = {i: f"{10.0**i:g}" for i in range(-4, 1)}
    powers = {0: "1", 4: "16", 8: "256", 12: "4k", 16: "65k", 20: "1M"}
    return html.Main([
        dcc.Location(id="address", refresh=False),
        html.H1("What does this correction estimate?"),
        html.P("Exact bias and variance of off-policy policy-gradient estimators: data come from the behaviour policy "
               "μ, the gradient is that of the policy π. The address holds the whole page: share it."),
        html.Div([
            field("environment", choice(environment_cards(), "environment"), "environment"),
            field("length", dcc.Input(id="length", min=1, step=1, **number), "length"),
            field("other options", dcc.Input(id="options", debounce=True, placeholder="seed=1"), "options"),
            field("drift", choice(drift.kinds(), "drift"), "drift"),
            field("KL", dcc.Slider(-4, 0, 0.05, id="kl", marks=decades, allow_direct_input=False), "kl", "wide"),
            field("weights", dcc.Dropdown(id="weights", multi=True), "weights", "widest"),
            field("clip: low", dcc.Input(id="low", min=0, step="any", **number), "low", "narrow"),
            field("clip: high", dcc.Input(id="high", min=0, step="any", **number), "high", "narrow"),
            field("signal", choice(SIGNALS, "signal"), "signal", "wide"),
            field("n", dcc.Slider(0, 20, 1, id="batch", marks=powers, allow_direct_input=False), "batch", "wide"),
        ], id="controls"),
        html.Div(id="notes", role="status"),
        html.Div(id="facts"),
        html.Div(id="table"),
        html.Div([
            html.Section([html.H2(title), html.P(words), dcc.Graph(id=f"chart-{name}", config={"displaylogo": False})])
            for name, (title, words) in CHARTS.items()
        ], id="charts"),
    ])  # fmt: skip


_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title><link rel="icon" href="data:,">{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""
