"""The page: controls, charts and a table. What it shows follows from its address, or from the controls moved."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

from dash import Dash, Input, Output, ctx, dcc, html, no_update

from testbed import drift
from testbed.environments import environment_cards
from testbed.exploring import charts
from testbed.exploring.contents import facts, notes, table
from testbed.exploring.controls import CONTROLS, KLS, SIGNALS, changed, offered, shown_by
from testbed.exploring.numbers import Numbers, causes_of, numbers_of
from testbed.exploring.state import State, from_query, length_option, to_query

CHARTS = {
    "spread": (
        "Bias and variance",
        "How far the expected estimate is from the gradient, and how much that of one trajectory varies.",
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
        "Each token's weight on data of μ: median, 5 to 95 %, and the mean (a cross), exactly, by position. "
        "A weight of zero stands at the lower edge.",
    ),
}  # fmt: skip
ADDRESS = (
    "Options that no control has stand in the address: weights=token;truncated(cap=5), signal=group(size=3), kl=0.042."
)
# Plotly's own buttons would offer to send a chart elsewhere.
_GRAPH = {"displaylogo": False, "modeBarButtons": [["toImage"]]}


def make_app() -> Dash:
    """The application; everything that it serves comes from this machine."""
    wide = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    app = Dash(__name__, title="offpolicy-testbed", update_title=None, serve_locally=True, meta_tags=[wide])
    app.index_string = _INDEX
    app.layout = _layout
    app.callback(
        {
            **{name: Output(name, "value") for name in CONTROLS},
            "no_length": Output("length", "disabled"),
            **{f"{name}_label": Output(f"{name}-label", "children") for name in ("length", "kl", "batch")},
            **{f"{name}_options": Output(name, "options") for name in ("weights", "signal")},
            "search": Output("address", "search"),
            "state": Output("state", "data"),
            **{f"chart_{name}": Output(f"chart-{name}", "figure") for name in CHARTS if name != "causes"},
            **{name: Output(name, "children") for name in ("table", "facts", "notes")},
        },
        {"search": Input("address", "search"), "asked": {name: Input(name, "value") for name in CONTROLS}},
    )(_answer)
    app.callback(
        {"figure": Output("chart-causes", "figure"), "words": Output("causes-words", "children")},
        {"query": Input("state", "data")},
        prevent_initial_call=True,
    )(causes)
    return app


def _answer(search: str | None, asked: dict[str, Any]) -> dict[str, Any]:
    state, wrong = from_query(search or "")
    if ctx.triggered_id not in (None, "address"):
        state, wrong = changed(state, asked)
    try:
        found = answer(state, wrong)
    except Exception as why:
        # Old numbers under new controls would be wrong ones: rather none, and the trace where the command was given.
        traceback.print_exc()
        found = answer(state, wrong, Numbers((), reason=f"this could not be computed: {type(why).__name__}: {why}"))
    # What a control shows already is left alone, so that nothing typed meanwhile is lost.
    return found | {name: no_update for name in CONTROLS if found[name] == asked[name]}


def answer(state: State, wrong: list[str], numbers: Numbers | None = None) -> dict[str, Any]:
    """Everything on the page but the causes, by the names of the outputs."""
    numbers = numbers or numbers_of(state)
    length = length_option(state.environment)
    query = to_query(state)
    return {
        **shown_by(state),
        "no_length": length is None,
        "length_label": f"length ({length})" if length else "length",
        "kl_label": f"KL(μ‖π): {state.kl:.4g} nats per token",
        "batch_label": f"batch size: n = {state.batch:,} trajectories",
        "weights_options": offered(state),
        "signal_options": [*dict.fromkeys((*SIGNALS, state.signal))],
        "search": query,
        "state": query,
        "chart_spread": charts.bias_and_spread(numbers),
        "chart_error": charts.error_by_batch(numbers, state.batch),
        "chart_positions": charts.weight_by_position(numbers),
        "table": table(numbers, state),
        "facts": facts(numbers, state),
        "notes": notes(numbers, state, wrong),
    }


def causes(query: str | None) -> dict[str, Any]:
    """The chart of causes and what is to be said beside it."""
    found = causes_of(from_query(query or "")[0])
    words = dict.fromkeys(f"{c.label}: {c.reason}." for c in found if c.reason)
    return {"figure": charts.causes(found), "words": [html.P(text) for text in words]}


def _layout() -> Any:
    """The controls and places; the callback fills them from the address."""

    def field(name: str, control: Any, width: str = "") -> Any:
        inside = [html.Label(CONTROLS[name], htmlFor=name, id=f"{name}-label"), control]
        # Dropdowns and sliders say their value alone; the group says whose value it is.
        return html.Div(inside, className=f"field {width}", role="group", **{"aria-labelledby": f"{name}-label"})

    def choice(among: Iterable[str], name: str) -> Any:
        return dcc.Dropdown([*among], id=name, clearable=False)

    def text(name: str, such_as: str) -> Any:
        return dcc.Input(id=name, debounce=True, placeholder=such_as)

    def number(name: str, such_as: str = "") -> Any:
        # Any number: what has no meaning is answered by a sentence, as it is in scripts.
        return dcc.Input(id=name, type="number", step="any", debounce=True, placeholder=such_as)

    decades = {i: f"{KLS[i]:g}" for i in range(0, len(KLS), 6)}
    powers = {0: "1", 4: "16", 8: "256", 12: "4k", 16: "65k", 20: "1M"}
    kl = dcc.Slider(0, len(KLS) - 1, 1, id="kl", marks=decades, allow_direct_input=False)
    batch = dcc.Slider(0, 20, 1, id="batch", marks=powers, allow_direct_input=False)
    return html.Main([
        dcc.Location(id="address", refresh=False),
        dcc.Store(id="state"),
        html.H1("What does this correction estimate?"),
        html.P("Exact bias and variance of off-policy policy-gradient estimators: data come from the behaviour policy "
               "μ, the gradient is that of the policy π. The address holds the whole page: share it."),
        html.Div([
            field("environment", choice(environment_cards(), "environment")),
            field("length", number("length"), "narrow"),
            field("options", text("options", "seed=1"), "narrow"),
            field("drift", choice(drift.kinds(), "drift")),
            field("drift_options", text("drift_options", "seed=1"), "narrow"),
            field("kl", kl, "wide"),
            field("weights", dcc.Dropdown(id="weights", multi=True), "widest"),
            field("low", number("low"), "narrow"),
            field("high", number("high", "none"), "narrow"),
            field("signal", choice(SIGNALS, "signal"), "wide"),
            field("batch", batch, "wide"),
            html.P(ADDRESS, className="field all"),
        ], id="controls"),
        html.Div(id="notes", role="status"),
        html.Div(id="facts"),
        html.Div(id="table"),
        html.Div([_section(name, title, words) for name, (title, words) in CHARTS.items()], id="charts"),
    ])  # fmt: skip


def _section(name: str, title: str, words: str) -> Any:
    below = [html.Div(id="causes-words")] if name == "causes" else []
    return html.Section([html.H2(title), html.P(words), *below, dcc.Graph(id=f"chart-{name}", config=_GRAPH)])


_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title><link rel="icon" href="data:,">{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""
