"""Results cell by cell: every number of each correction, or each correction's bias under each drift."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from testbed.sweep.columns import mse_column
from testbed.sweep.printing import NUMBER, WIDTH, number
from testbed.sweep.summary import EXACT, batch_sizes

Table = Mapping[str, NDArray[Any]]
Line = str | Text

ESTIMATOR = ("signal", "score", "reduction")
PLACE = ("environment", "environment_options")
DRIFT = ("drift", "drift_options", "seed", "kl_target")
_NAME = 34
_COLUMN = 9
SAMPLED = " ~"
"""Behind the name of a weight whose numbers are sampled."""


def print_cells(table: Table, layout: str, per: str) -> None:
    """Print a table of `read_table` by one of the layouts "numbers" and "drifts" to standard output."""
    lines: Callable[[Table, str], list[Line]] = {"numbers": numbers_lines, "drifts": drifts_lines}[layout]
    console = Console(width=WIDTH, highlight=False, soft_wrap=True)
    for line in lines(table, per):
        console.print(line, markup=False)


def rows_as_data(table: Table) -> list[dict[str, Any]]:
    """The rows for `--json`: NaN and infinities become null."""

    def plain(value: Any) -> Any:
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: plain(column[i]) for name, column in table.items()} for i in range(len(table["status"]))]


def numbers_lines(table: Table, per: str) -> list[Line]:
    """One block per environment, drift, divergence and signal; rows are weights, the least error first."""
    batch = max(batch_sizes(table))
    lines: list[Line] = [*_numbers_heading(table, batch)]
    for mine in _groups(table, *PLACE, *DRIFT, *ESTIMATOR):
        first = mine[0]
        lines += ["", Text(_title(table, first, per), style="bold")]
        lines.append(Text(_estimator(table, first), style="bold"))
        if table["status"][first] != "ok":
            lines.append(f"out of reach: this drift can give {number(table['kl_maximum'][first])} nats at the most")
            continue
        lines += textwrap.wrap(_place(table, first), WIDTH)
        lines += _number_rows(table, mine, batch)
        lines += _errors(table, mine)
    return lines


def _numbers_heading(table: Table, batch: int) -> list[str]:
    lines = textwrap.wrap(
        "Rows are corrections c_t of g_hat = sum over tokens of c_t x signal x score, sorted by their error; g is the "
        "true gradient, mu the policy that generated the data. bias: |E[g_hat] - g| / |g|. std: sqrt(trace of the "
        f"covariance) / |g| of one trajectory. mse@{batch}: E|mean of {batch} trajectories - g|^2 / |g|^2. cosine: of "
        "the angle between E[g_hat] and g. step: |E[g_hat]| / |g|, the step taken over the step asked for. E[w], "
        "median w, w = 0: mean, median and share of zeros (masked or clipped away) of c_t over the tokens of mu. All "
        "are exact (0 is zero to rounding)" + _how_sampled(table) + "; - is a number no exact engine gives there.",
        WIDTH,
    )
    if (old := {str(x) for x in table["old"]} - {""}) and (table["status"] == "ok").any():
        lines += textwrap.wrap(
            f"Corrections that need a third policy take pi_old {', '.join(old)} from mu to pi.", WIDTH
        )
    return lines


def _number_rows(table: Table, mine: list[int], batch: int) -> list[Line]:
    shown = {
        "bias": "relative_bias",
        "std": "relative_standard_deviation",
        f"mse@{batch}": mse_column(batch),
        "cosine": "cosine",
        "step": "effective_step",
        "E[w]": "mean_weight",
        "median w": "median_weight",
        "w = 0": "share_zero_weight",
    }
    width = {name: max(NUMBER, len(name) + 1) for name in shown}
    head = "".join(f"{name:>{width[name]}}" for name in shown)
    lines: list[Line] = [Text(f"{'':<{_NAME}}{head}", style="dim")]
    for i in sorted(mine, key=lambda i: _last_if_nan(float(table[mse_column(batch)][i]))):
        line = Text(f"{_named(table, i):<{_NAME}}")
        for name, column in shown.items():
            value = _per_trajectory(table, i) if name == "std" else float(table[column][i])
            exact = name == "bias" and abs(value) < EXACT and table["engine"][i] != "sampling"
            line.append(f"{number(value):>{width[name]}}", style="bold green" if exact else "")
        lines.append(line)
    return lines


def drifts_lines(table: Table, per: str) -> list[Line]:
    """One block per environment and signal; columns are drifts, rows are what they do and each weight's bias."""
    above = {f"KL per {per}": f"kl_{per}", "lost mass": "lost_mass", "support": "support_bias"}
    lines: list[Line] = []
    lines += textwrap.wrap(
        "Columns are drifts: what keeps the policy mu that generates the data from being the policy pi that is "
        "trained. Lost mass: probability under pi of the trajectories that mu cannot generate. Support: what the truth "
        "loses with them, the relative bias |E[g_hat] - g| / |g| that the true prefix ratios keep with target "
        "advantages (term 'support' of theory.decompose). Below: relative bias of each weight with the signal of the "
        "block. All are exact (0 is zero to rounding)" + _how_sampled(table) + "; - is a divergence out of reach.",
        WIDTH,
    )
    for mine in _groups(table, *PLACE, *ESTIMATOR):
        one = {name: column[mine] for name, column in table.items()}
        where = _labelled(one["environment"][0], one["environment_options"][0])
        lines += ["", Text(f"{where}; {_estimator(one, 0)}", style="bold")]
        weights = list(dict.fromkeys(one["weight"].tolist()))
        drifts = list(_groups(one, *DRIFT))
        seeds = np.unique(one["seed"][~np.isnan(one["seed"].astype(float))]).size > 1
        first = max(map(len, [*weights, *above])) + len(SAMPLED)
        at_once = max(1, (WIDTH - first) // _COLUMN)
        for start in range(0, len(drifts), at_once):
            part = drifts[start : start + at_once]
            lines += [""] * (start > 0) + _drift_columns(one, part, weights, above, first, seeds)
    return lines


def _drift_columns(
    one: Table, part: list[list[int]], weights: list[str], above: Mapping[str, str], first: int, seeds: bool
) -> list[Line]:
    heads = [_head(one, cells[0], seeds) for cells in part]
    height = max(map(len, heads))
    lines: list[Line] = []
    for k in range(height):
        head = "".join(f"{column[k] if k < len(column) else '':>{_COLUMN}}" for column in heads)
        lines.append(Text(f"{'':<{first}}{head}", style="dim"))
    for name, column in above.items():
        lines.append(Text(f"{name:<{first}}" + "".join(f"{number(one[column][c[0]]):>{_COLUMN}}" for c in part), "dim"))
    for weight in weights:
        cells = [next((i for i in c if one["weight"][i] == weight), None) for c in part]
        sampled = any(i is not None and one["engine"][i] == "sampling" for i in cells)
        line = Text(f"{weight + SAMPLED * sampled:<{first}}")
        for i in cells:
            bias = math.nan if i is None else float(one["relative_bias"][i])
            line.append(f"{number(bias):>{_COLUMN}}", style="bold green" if abs(bias) < EXACT and not sampled else "")
        lines.append(line)
    return lines


def _head(one: Table, i: int, seeds: bool) -> list[str]:
    """The lines above a column: the kind, its options one by one, what it was solved for."""
    options = [text for text in str(one["drift_options"][i]).split(", ") if text]
    lines = [str(one["drift"][i]), *(text.removeprefix("format=") for text in options)]
    lines += [f"KL {one['kl_target'][i]:g}"] if not np.isnan(one["kl_target"][i]) else []
    lines += [f"seed {one['seed'][i]:.0f}"] if seeds and not np.isnan(float(one["seed"][i])) else []
    return [line if len(line) < _COLUMN else line[: _COLUMN - 2] + "…" for line in lines]


def _groups(table: Table, *names: str) -> Iterator[list[int]]:
    """Indices of the rows that agree in these columns, in the order of their first appearance."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(zip(*(map(str, table[name].tolist()) for name in names), strict=True)):
        groups.setdefault(key, []).append(i)
    return iter(groups.values())


def _title(table: Table, i: int, per: str) -> str:
    where = _labelled(table["environment"][i], table["environment_options"][i])
    drift = _labelled(table["drift"][i], table["drift_options"][i])
    seed = "" if np.isnan(float(table["seed"][i])) else f" (seed {table['seed'][i]:.0f})"
    kl = "" if np.isnan(table["kl_target"][i]) else f", KL {table['kl_target'][i]:g} per {per}"
    return f"{where}, {drift} drift{seed}{kl}"


def _place(table: Table, i: int) -> str:
    lost = table["lost_mass"][i]
    return (
        f"T = {table['horizon'][i]:.0f}, KL(mu || pi) {number(table['kl_token'][i])} nats per token, "
        f"{number(table['kl_sequence'][i])} per sequence; effective sample size of sequence ratios "
        f"{number(table['ess_sequence'][i])}; |g| = {number(table['gradient_norm'][i])}"
        + (f"; lost mass {number(lost)}, support {number(table['support_bias'][i])}" if lost > 0.0 else "")
    )


def _estimator(table: Table, i: int) -> str:
    score, reduction = str(table["score"][i]), str(table["reduction"][i])
    parts = [f"signal {table['signal'][i]}"]
    parts += [] if score == "own" else [f"{score} score"]
    parts += [] if reduction == "sum" else [f"reduction {reduction}"]
    return ", ".join(parts)


def _labelled(name: Any, options: Any) -> str:
    return f"{name}({options})" if options else str(name)


def _named(table: Table, i: int) -> str:
    mark = SAMPLED if table["engine"][i] == "sampling" else ""
    name, room = str(table["weight"][i]), _NAME - 1 - len(mark)
    return (name if len(name) <= room else name[: room - 1] + "…") + mark


def _per_trajectory(table: Table, i: int) -> float:
    return float(table["relative_standard_deviation"][i] * table["trajectories_per_draw"][i] ** 0.5)


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else float(value)


def _how_sampled(table: Table) -> str:
    sampled = table["engine"] == "sampling"
    if not sampled.any():
        return ""
    trajectories = float(np.median(table["draws"][sampled] * table["trajectories_per_draw"][sampled]))
    return f" but those of rows with{SAMPLED}, which are of {trajectories:,.0f} sampled trajectories"


def _errors(table: Table, mine: list[int]) -> list[Line]:
    """What a sampled bias is worth."""
    sampled = [i for i in mine if table["engine"][i] == "sampling"]
    if not sampled:
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = table["standard_error"] / table["gradient_norm"]
    text = f"{SAMPLED.strip()} standard error of the mean over |g|, below which a bias is not told from none: "
    text += ", ".join(f"{table['weight'][i]} {number(float(errors[i]))}" for i in sampled)
    return [*textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
