"""Where the bias comes from: the terms of the decomposition, stacked, against drift and against position."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import theory
from figures import style
from figures.data import EXACT, Row, write_csv
from theory.decomposition import ORDER

NAME = "bias_terms"
ENVIRONMENT = "brackets"
BASELINE = "expected_return"
KLS = (0.003, 0.01, 0.03, 0.1, 0.3)
KL_BY_POSITION = 0.1
CLIPPED = "minpro(clip=(0.8, 1.28))"
# Each weight with the reduction of its method: GSPO's 1/L belongs to it.
WEIGHTS = {"none": "sum", "token": "sum", "prefix": "sum", "minpro": "sum", CLIPPED: "sum", "gspo": "length_mean"}
WHOLE = "all"

# What is shorter is rounding, and another on every processor.
_ROUNDING = 1e-13
_ROWS = ("relative bias, by term", "share of the bias", "relative bias, by token")


def draw(
    results: Path | None, out: Path, *, kls: Iterable[float] = KLS, weights: Iterable[str] = tuple(WEIGHTS)
) -> list[Path]:
    """Decompose the bias of each weight and draw the terms; no table is read.

    A term is a vector; what is stacked is its signed length along the whole bias at that drift, <term, bias> / |bias|,
    in units of |g|. These lengths add up to the relative bias |bias| / |g|, which the dots show; what points below zero
    cancels other terms. Across the bias the terms cancel each other, so nothing is left out.
    """
    kls, weights = tuple(kls), tuple(weights)
    rows = projections(kls, weights)
    shown = _nearest(kls, KL_BY_POSITION)
    with style.subplots(3, len(weights), (9.6, 7.0), sharey="row") as (figure, axes):
        for column, weight in zip(axes.T, weights, strict=True):
            _plot(column, [row for row in rows if row["weight"] == weight], shown)
            reduction = "" if WEIGHTS[weight] == "sum" else f"\n{WEIGHTS[weight]}"
            column[0].set_title(weight.replace("(", "\n(", 1) + reduction)
        for ax, text in zip(axes[:, 0], _ROWS, strict=True):
            ax.set_ylabel(text)
        for ax in axes[0]:
            ax.tick_params(labelbottom=False)  # the same as below
        for ax in axes[1]:
            ax.set_xlabel("KL, nats per token")
        for ax in axes[2]:
            ax.set_xlabel("position t")
        figure.suptitle(
            f"Where the bias comes from: signal outcome(baseline={BASELINE}), {_environment().label}, noise drift "
            f"(seed 0)\nterms along the bias, in units of |g|, against KL(mu || pi); last row: by token position, "
            f"from 1, at KL = {shown:g}",
            x=0.01,
            ha="left",
        )
        style.legend_below(figure, axes, columns=7)
        return [*style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows)]


def projections(kls: tuple[float, ...] = KLS, weights: tuple[str, ...] = tuple(WEIGHTS)) -> list[Row]:
    """Every term's length along the bias, per weight and divergence, whole and by position.

    `projection` is <term, bias> / (|bias| |g|), `share` is <term, bias> / |bias|^2 and `norm` is |term| / |g|. Where
    there is no bias there is no direction: projections are zero and shares NaN.
    """
    from testbed import drift

    made, shown = _environment(), _nearest(kls, KL_BY_POSITION)
    rows: list[Row] = []
    for kl in kls:
        pair = drift.at("noise", made.process, made.target, kl=kl, seed=0)
        size = float(np.linalg.norm(theory.policy_gradient(made.process, pair.target)))
        for weight in weights:
            found = theory.decompose(made.process, pair.target, pair.behaviour, estimator(weight))
            length = float(np.linalg.norm(found.bias)) / size
            direction = found.bias / (length * size) if length > EXACT else np.zeros_like(found.bias)
            for term in ORDER:
                parts = [(WHOLE, found[term])]
                if kl == shown:
                    parts += [(str(t + 1), vector) for t, vector in enumerate(found.by_position[term])]
                for position, vector in parts:
                    along = float(vector @ direction) / size
                    rows.append({
                        "signal": f"outcome(baseline={BASELINE})", "weight": weight, "reduction": WEIGHTS[weight],
                        "kl_token": kl, "position": position, "term": term, "projection": _told(along),
                        "share": _told(along / length) if length > EXACT else float("nan"),
                        "norm": _told(float(np.linalg.norm(vector)) / size), "relative_bias": length,
                    })  # fmt: skip
    return rows


def _told(value: float) -> float:
    return 0.0 if abs(value) < _ROUNDING else value


def estimator(weight: str) -> theory.Estimator:
    """The estimator that a panel shows."""
    made = theory.weight("minpro", clip=(0.8, 1.28)) if weight == CLIPPED else theory.weight(weight)
    return theory.Estimator(made, theory.signal("outcome", baseline=BASELINE), reduction=WEIGHTS[weight])


def _environment() -> Any:
    from testbed.environments import environment

    return environment(ENVIRONMENT)


def _nearest(kls: tuple[float, ...], kl: float) -> float:
    return min(kls, key=lambda other: abs(np.log(other / kl)))


def _plot(column: Any, rows: list[Row], shown: float) -> None:
    """One weight: the terms by drift, their shares, and by position at one drift."""
    whole = [row for row in rows if row["position"] == WHOLE]
    by_token = [row for row in rows if row["position"] != WHOLE]
    for ax, chosen, key, value in (
        (column[0], whole, "kl_token", "projection"),
        (column[1], whole, "kl_token", "share"),
        (column[2], by_token, "position", "projection"),
    ):
        _stack(ax, chosen, key, value)


def _stack(ax: Any, rows: list[Row], key: str, value: str) -> None:
    """Stacked bars, what is positive upwards and what is negative downwards from zero; a dot at their sum."""
    at = list(dict.fromkeys(row[key] for row in rows))
    x, up, down = np.arange(len(at)), np.zeros(len(at)), np.zeros(len(at))
    for term in ORDER:
        color, hatch = style.TERMS[term]
        height: NDArray[np.float64] = np.array([row[value] for row in rows if row["term"] == term])
        height = np.nan_to_num(height)
        # What cannot be seen is not drawn, except for one bar, which the legend shows in every panel.
        seen, bottom = np.abs(height) > 1e-3, np.where(height >= 0.0, up, down)
        seen[0] |= not seen.any()
        ax.bar(
            x[seen], height[seen], 0.85, bottom[seen], label=term.replace("_", " "), color=color, hatch=hatch,
            edgecolor="white", linewidth=0.0,
        )  # fmt: skip
        up, down = up + np.maximum(height, 0.0), down + np.minimum(height, 0.0)
    ax.plot(x, up + down, "o", color="black", markersize=3.0, label="sum of the terms")
    ax.axhline(0.0, color="black", linewidth=0.8)
    ax.set_xlim(-0.7, len(at) - 0.3)
    every = max(1, -(-len(at) // 5))
    ax.set_xticks(x[::every], [f"{float(label):g}" for label in at[::every]], rotation=45 if key == "kl_token" else 0)
    ax.grid(False, axis="x")
