"""The charts of the page: from numbers to plotly figures, in the colours that the printed figures have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

# The page has the colours of the printed figures.
from figures.style import FAVOURITES, TERMS, look
from testbed.exploring.numbers import Causes, Numbers, WeightNumbers

GREATEST_BATCH = 2**20
EXACT = 1e-10
"""Relative biases below this are rounding."""
LEAST_MARKS, MOST_MARKS = 3, 9
"""Of a logarithmic axis."""
_OTHERS = ("#56B4E9", "#882255", "#117733", "#999933", "#332288", "#44AA99", "#AA4499", "#661100")
"""Of weights that have no colour of their own in print, by their place."""
_PLAIN = {
    "template": "plotly_white", "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 64, "r": 16, "t": 70, "b": 48}, "height": 350, "uirevision": "same",
}  # fmt: skip


_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "font": {"size": 12}}


def bias_and_spread(numbers: Numbers) -> go.Figure:
    """Relative bias beside relative standard deviation of one trajectory, a bar per weight."""
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=("relative bias", "relative std. dev."),
    )  # fmt: skip
    known = _known(numbers)
    colors = [_color(w.label, known) for w in known]
    for column, values in enumerate(([_bias(w) for w in known], [w.relative_std for w in known]), 1):
        figure.add_trace(
            go.Bar(
                x=values, y=[w.label for w in known], orientation="h", marker_color=colors, showlegend=False,
                text=[shown(v) for v in values], textposition="auto", textangle=0,
                hovertemplate="%{y}: %{x:.4g}<extra></extra>",
            ),
            1, column,
        )  # fmt: skip
    figure.update_layout(**{**_PLAIN, "margin": {"l": 8, "r": 16, "t": 36, "b": 48}})
    _one_row_each(figure, known)
    figure.update_xaxes(title="|E[ĝ] - g| / |g|", title_standoff=6, rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="√tr Cov[ĝ] / |g|", title_standoff=6, rangemode="tozero", row=1, col=2)
    figure.update_annotations(font_size=13)
    return _said_if_empty(figure, known)


def causes(several: Sequence[Causes]) -> go.Figure:
    """How long each cause's part of the bias is, grouped by weight, with the whole bias as a mark."""
    known = [c for c in several if c.terms]
    labels = [c.label for c in known]
    figure = go.Figure()
    for name in dict.fromkeys(name for c in known for name, _ in c.terms):
        lengths = [dict(c.terms).get(name, 0.0) for c in known]
        if max(lengths, default=0.0) > EXACT:
            figure.add_trace(
                go.Bar(
                    name=name, y=labels, x=lengths, orientation="h", marker_color=TERMS[name][0],
                    hovertemplate=f"{name}: %{{x:.4g}}<extra>%{{y}}</extra>",
                )
            )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            name="the whole bias", y=labels, x=[_bias(c) for c in known], mode="markers",
            marker={"symbol": "line-ns-open", "size": 26, "color": "#222", "line": {"width": 3}},
            hovertemplate="whole bias: %{x:.4g}<extra>%{y}</extra>",
        )
    )  # fmt: skip
    figure.update_layout(**_PLAIN, barmode="group", legend=_LEGEND)
    figure.update_layout(margin={"l": 8, "r": 16, "t": 50, "b": 48})
    figure.update_xaxes(title="length of the part over |g|", rangemode="tozero")
    _one_row_each(figure, known)
    return _said_if_empty(figure, known)


def error_by_batch(numbers: Numbers, batch: int) -> go.Figure:
    """Relative mean squared error against the batch size, with the places where the winner changes."""
    figure, known = go.Figure(), _known(numbers)
    sizes = np.geomspace(1, GREATEST_BATCH, 161)
    for w in known:
        figure.add_trace(
            go.Scatter(
                name=w.label, x=sizes, y=[w.relative_mse(n) for n in sizes], mode="lines",
                line={"color": _color(w.label, known), "width": 2.2},
                hovertemplate="n = %{x:.4g}: %{y:.4g}<extra>%{fullData.name}</extra>",
            )
        )  # fmt: skip
    # The first one wins from the start.
    crossings = [(n, name) for n, name in numbers.winners()[1:] if n <= GREATEST_BATCH]
    best = {w.label: w for w in known}
    figure.add_trace(
        go.Scatter(
            name="the winner changes",
            x=[n for n, _ in crossings], y=[best[name].relative_mse(n) for n, name in crossings],
            mode="markers", marker={"symbol": "circle-open", "size": 11, "color": "#222", "line": {"width": 2}},
            hovertemplate="from n = %{x:.5g}<extra></extra>", showlegend=bool(crossings),
        )
    )  # fmt: skip
    if known:
        figure.add_vline(x=batch, line={"color": "#888", "dash": "dot"})
    figure.update_layout(**_PLAIN, legend=_LEGEND)
    figure.update_xaxes(title="batch size n, trajectories", type="log", dtick=1)
    figure.update_yaxes(
        title="E|average - g|² / |g|²",
        type="log",
        **_ticks([w.relative_mse(n) for w in known for n in (max(w.least_batch, 1), GREATEST_BATCH)]),
    )
    return _said_if_empty(figure, known)


def weight_by_position(numbers: Numbers) -> go.Figure:
    """Median, 5 to 95 % and mean of each weight at each position, on data of mu."""
    known = [w for w in _known(numbers) if w.positions]
    figure = go.Figure()
    shift = 0.7 / max(len(known), 1)
    lowest = _lowest(known)
    for i, w in enumerate(known):
        rows = np.array(w.positions)
        places = np.arange(1, len(rows) + 1) + (i - (len(known) - 1) / 2) * shift
        # A logarithmic axis has no place for zero: it stands at the lower edge, and hovering tells.
        low, middle, high, mean = np.where(rows > 0.0, rows, lowest).T
        color = _color(w.label, known)
        figure.add_trace(
            go.Scatter(
                name=w.label, x=places, y=middle, mode="markers", marker={"color": color, "size": 7},
                error_y={
                    "type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low,
                    "color": color, "thickness": 1.5, "width": 2,
                },
                customdata=rows, hovertemplate="median %{customdata[1]:.4g}, 5 % %{customdata[0]:.4g}, 95 % "
                "%{customdata[2]:.4g}, mean %{customdata[3]:.4g}<extra>%{fullData.name}</extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=places, y=mean, mode="markers", showlegend=False, hoverinfo="skip",
                marker={"color": color, "symbol": "x-thin", "size": 7, "line": {"width": 1.6, "color": color}},
            )
        )  # fmt: skip
    figure.update_layout(**_PLAIN, legend=_LEGEND)
    figure.update_xaxes(title="position t of the token, from 1", dtick=1 if numbers.horizon <= 20 else None)
    # The lower edge counts where something stands there.
    everything = [value or lowest for w in known for row in w.positions for value in row]
    figure.update_yaxes(title="weight c_t under μ", type="log", **_ticks(everything))
    return _said_if_empty(figure, known)


def shown(value: float) -> str:
    """A number as the page has it: four digits; what is exact up to rounding is 0.

    >>> shown(0.63144), shown(1e-14), shown(float("nan")), shown(float("inf")), shown(31234.5)
    ('0.6314', '0', 'undefined', 'beyond float64', '3.123e+04')
    """
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "beyond float64"
    return "0" if abs(value) < EXACT else f"{value:.4g}"


def _one_row_each(figure: go.Figure, known: Sequence[Any]) -> None:
    figure.update_yaxes(range=[len(known) - 0.4, -0.6], automargin=True)


def _known(numbers: Numbers) -> list[WeightNumbers]:
    return [w for w in numbers.weights if not w.reason]


def _bias(w: WeightNumbers | Causes) -> float:
    return 0.0 if w.relative_bias < EXACT else w.relative_bias


def _color(label: str, known: Sequence[WeightNumbers]) -> str:
    if label in FAVOURITES:
        return str(look(label)["color"])
    return _OTHERS[[w.label for w in known if w.label not in FAVOURITES].index(label) % len(_OTHERS)]


def _said_if_empty(figure: go.Figure, known: Sequence[Any]) -> go.Figure:
    if not known:
        figure.add_annotation(text="nothing to show", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
    return figure


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    """Marks of a logarithmic axis, in full (Plotly's own say 5 where they mean 0.5): decades, or finer ones."""
    positive = [value for value in values if 0.0 < value < math.inf]
    if not positive:
        return {}
    low, high = min(positive), max(positive)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1.0,), (1.0, 2.0, 5.0), range(1, 10), np.arange(10, 100) / 10):
        marks = [float(f"{digit * 10.0**k:.3g}") for k in decades for digit in digits]
        marks = [mark for mark in marks if low <= mark <= high]
        if len(marks) >= LEAST_MARKS:
            break
    marks = marks[:: math.ceil(len(marks) / MOST_MARKS)] if marks else []
    return {"tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]} if marks else {}


def _lowest(known: Sequence[WeightNumbers]) -> float:
    """Where zeros stand: below everything else."""
    values = [value for w in known for row in w.positions for value in row if 0.0 < value < math.inf]
    return min(values, default=1.0) / 2.0
