"""The house style: how each weight looks in every figure, and how a figure is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STYLE_FILE = Path(__file__).with_name("house.mplstyle")

# Okabe & Ito's colours. One weight has one look in all figures: colour for the screen, line and marker for grey print.
_LOOKS: dict[str, tuple[str, Any, str]] = {
    "none": ("#7F7F7F", (0, (1, 1.2)), "x"),
    "token": ("#E69F00", (0, (5, 1.5)), "s"),
    "prefix": ("#0072B2", "-", "o"),
    "sequence": ("#000000", (0, (6, 1.5, 1, 1.5)), "D"),
    "minpro": ("#D55E00", "-", "^"),
    "minpro(clip=(0.8, 1.28))": ("#CC79A7", (0, (3, 1)), "v"),
    "v_trace": ("#009E73", (0, (6, 1.5, 1, 1.5, 1, 1.5)), "P"),
}
FAVOURITES = tuple(_LOOKS)
"""The weights of the headline figures, in the order of their legends."""
TERMS = {
    "support": ("#000000", ""),
    "occupancy": ("#0072B2", ""),
    "action": ("#E69F00", "////"),
    "continuation": ("#56B4E9", ""),
    "truncation": ("#D55E00", "\\\\\\\\"),
    "baseline_leak": ("#009E73", "...."),
    "reduction": ("#CC79A7", "xxxx"),
}
"""Cause of a bias -> its colour, and a hatch for grey print."""
_OTHERS = (
    ("#56B4E9", "-", "*"),
    ("#0072B2", (0, (2, 1)), "<"),
    ("#009E73", "-", ">"),
    ("#CC79A7", (0, (1, 1)), "h"),
    ("#000000", (0, (2, 2)), "d"),
)


def look(weight: str, among: Iterable[str] = ()) -> dict[str, Any]:
    """Colour, line style and marker of a weight; one without a look of its own gets one by its place in `among`."""
    if weight in _LOOKS:
        color, linestyle, marker = _LOOKS[weight]
    else:
        strangers = [w for w in among if w not in _LOOKS]
        place = strangers.index(weight) if weight in strangers else 0
        color, linestyle, marker = _OTHERS[place % len(_OTHERS)]
    return {"color": color, "linestyle": linestyle, "marker": marker}


def chosen(available: Iterable[str], favourites: Iterable[str], most: int) -> list[str]:
    """The favourites that are available, then the others in their order, at most `most`.

    >>> chosen(["gspo", "token", "m2po"], ["minpro", "token"], 2)
    ['token', 'gspo']
    """
    known = list(dict.fromkeys(available))
    first = [name for name in favourites if name in known]
    return [*first, *(name for name in known if name not in first)][:most]


@contextmanager
def subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure in house style and its (rows, columns) axes; closed at the end.

    No window and no global state: drawing from a notebook or a worker leaves the caller's matplotlib as it was.
    """
    from matplotlib import style as looks
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with looks.context(STYLE_FILE):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Any, out: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg. The same figure gives the same bytes: neither holds a date."""
    out.mkdir(parents=True, exist_ok=True)
    png, svg = out / f"{name}.png", out / f"{name}.svg"
    figure.savefig(png, metadata={"Software": None})
    figure.set_layout_engine("none")  # what was laid out once need not be again
    figure.savefig(svg, metadata={"Date": None})
    return [png, svg]


def legend_below(figure: Any, axes: Any, columns: int) -> None:
    """One legend for all panels, under them, where it covers no data."""
    entries: dict[str, Any] = {}
    for ax in axes.flat:
        handles, labels = ax.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries.setdefault(label, handle)
    order = chosen(entries, FAVOURITES, len(entries))
    figure.legend([entries[label] for label in order], order, loc="outside lower center", ncols=columns)


def log_axis(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each decade, for an axis of few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
