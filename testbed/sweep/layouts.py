"""Results cell by cell: every number of each correction, or each correction's bias under each drift."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

import theory
from testbed.sweep.columns import mse_column
from testbed.sweep.printing import LONGEST, NUMBER, SHORTEST, WIDTH, number, text_width
from testbed.sweep.summary import EXACT, batch_sizes

Table = Mapping[str, NDArray[Any]]
Line = str | Text

ESTIMATOR = ("signal", "score", "reduction")
PLACE = ("environment", "environment_options")
DRIFT = ("drift", "drift_options", "seed", "kl_target")
_COLUMN = 9
"""The least width of a column of the layout "drifts"; its heads may need more."""
_BIASES = ("relative_bias", "support_bias")
"""Columns whose values below EXACT are rounding; a step or a share can be as small as it likes."""
SAMPLED = " ~"
"""Behind the name of a weight whose numbers are sampled."""


def print_cells(table: Table, layout: str, per: str) -> None:
    """Print a table of `read_table` by one of the layouts "numbers" and "drifts" to standard output."""
    lines: Callable[[Table, str, int], list[Line]] = {"numbers": numbers_lines, "drifts": drifts_lines}[layout]
    width = text_width()
    console = Console(width=width, highlight=False, soft_wrap=True)
    for line in lines(table, per, width):
        console.print(line, markup=False)


def rows_as_data(table: Table) -> list[dict[str, Any]]:
    """The rows for `--json`: NaN and infinities become null."""

    def plain(value: Any) -> Any:
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: plain(column[i]) for name, column in table.items()} for i in range(len(table["status"]))]


def numbers_lines(table: Table, per: str, columns: int = WIDTH) -> list[Line]:
    """One block per environment, drift, divergence and signal; rows are weights, the least error first."""
    batch = max(batch_sizes(table))
    lines: list[Line] = [*_numbers_heading(table, batch, columns)]
    for mine in _groups(table, *PLACE, *DRIFT, *ESTIMATOR):
        first = mine[0]
        lines += ["", *_bold(_title(table, first, per), columns), *_bold(_estimator(table, first), columns)]
        if table["status"][first] != "ok":
            lines += textwrap.wrap(_out_of_reach(table, first), columns)
            continue
        lines += textwrap.wrap(_place(table, first), columns)
        lines += _number_rows(table, mine, batch, columns)
        lines += _errors(table, mine, columns)
        lines += _coupled(table, mine, batch, columns)
    return lines


def _numbers_heading(table: Table, batch: int, columns: int) -> list[str]:
    lines = textwrap.wrap(
        "Rows are corrections c_t of g_hat = sum over tokens of c_t x signal x score, sorted by their error; g is the "
        "true gradient, mu the policy that generated the data. bias: |E[g_hat] - g| / |g|. std: sqrt(trace of the "
        f"covariance) / |g| of one trajectory. mse@{batch}: E|mean of {batch} trajectories - g|^2 / |g|^2. cosine: of "
        "the angle between E[g_hat] and g. step: |E[g_hat]| / |g|, the step taken over the step asked for. E[w], "
        "median w, w = 0: mean, median and share of zeros (masked or clipped away) of c_t over the tokens of mu. All "
        "are exact (a bias of 0 is zero to rounding)" + _how_sampled(table) + "; - is a number that no exact engine "
        "gives there, or that does not exist: an angle to nothing, a bias where g = 0, an mse of a batch that is no "
        "whole number of draws.",
        columns,
    )
    if (old := {str(x) for x in table["old"]} - {""}) and (table["status"] == "ok").any():
        lines += textwrap.wrap(
            f"Corrections that need a third policy take pi_old {', '.join(old)} from mu to pi.", columns
        )
    return lines


def _number_rows(table: Table, mine: list[int], batch: int, columns: int) -> list[Line]:
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
    first = min(LONGEST, max(SHORTEST, columns - len(head)))
    lines: list[Line] = [Text(f"{'':<{first}}{head}", style="dim")]
    for i in sorted(mine, key=lambda i: _last_if_nan(float(table[mse_column(batch)][i]))):
        name = _named(table, i)
        if len(name) >= first:
            lines.append(name)
            name = ""
        line = Text(f"{name:<{first}}")
        for name, column in shown.items():
            value = _per_trajectory(table, i) if name == "std" else float(table[column][i])
            exact = name == "bias" and abs(value) < EXACT and table["engine"][i] != "sampling"
            line.append(f"{_number(column, value):>{width[name]}}", style="bold green" if exact else "")
        lines.append(line)
    return lines


def drifts_lines(table: Table, per: str, columns: int = WIDTH) -> list[Line]:
    """One block per environment and signal; columns are drifts, rows are what they do and each weight's bias."""
    above = {f"KL per {per}": f"kl_{per}", "lost mass": "lost_mass", "support": "support_bias"}
    lines: list[Line] = []
    lines += textwrap.wrap(
        "Columns are drifts: what keeps the policy mu that generates the data from being the policy pi that is "
        "trained. Lost mass: probability under pi of the trajectories that mu cannot generate. Support: what the truth "
        "loses with them, the relative bias |E[g_hat] - g| / |g| that the true prefix ratios keep with target "
        "advantages (term 'support' of theory.decompose). Below: relative bias of each weight with the signal of the "
        "block. All are exact (a bias of 0 is zero to rounding)" + _how_sampled(table) + "; - is a divergence out of "
        "reach, a bias where g = 0, or a cell that failed.",
        columns,
    )
    for mine in _groups(table, *PLACE, *ESTIMATOR):
        one = {name: column[mine] for name, column in table.items()}
        where = _labelled(one["environment"][0], one["environment_options"][0])
        lines += ["", *_bold(f"{where}; {_estimator(one, 0)}", columns)]
        weights = list(dict.fromkeys(one["weight"].tolist()))
        drifts = list(_groups(one, *DRIFT))
        seeds = np.unique(one["seed"][~np.isnan(one["seed"].astype(float))]).size > 1
        first = max(map(len, [*weights, *above])) + len(SAMPLED)
        for k, part in enumerate(_parts([_drift_column(one, cells, seeds) for cells in drifts], columns - first)):
            lines += [""] * (k > 0) + _drift_columns(one, part, weights, above, first)
    return lines


class _DriftColumn(NamedTuple):
    head: list[str]
    cells: list[int]
    width: int


def _drift_column(one: Table, cells: list[int], seeds: bool) -> _DriftColumn:
    # A head is never cut: what is left of two drifts could be the same.
    head = _head(one, cells[0], seeds)
    return _DriftColumn(head, cells, max(_COLUMN, *(len(line) + 1 for line in head)))


def _parts(columns: list[_DriftColumn], room: int) -> list[list[_DriftColumn]]:
    """Neighbours, as many as fit beside each other."""
    parts: list[list[_DriftColumn]] = []
    for column in columns:
        if parts and sum(c.width for c in parts[-1]) + column.width <= room:
            parts[-1].append(column)
        else:
            parts.append([column])
    return parts


def _drift_columns(
    one: Table, part: list[_DriftColumn], weights: list[str], above: Mapping[str, str], first: int
) -> list[Line]:
    lines: list[Line] = []
    for k in range(max(len(column.head) for column in part)):
        head = "".join(f"{c.head[k] if k < len(c.head) else '':>{c.width}}" for c in part)
        lines.append(Text(f"{'':<{first}}{head}", style="dim"))
    for name, column in above.items():
        values = "".join(f"{_number(column, one[column][c.cells[0]]):>{c.width}}" for c in part)
        lines.append(Text(f"{name:<{first}}{values}", "dim"))
    for weight in weights:
        cells = [next((i for i in c.cells if one["weight"][i] == weight), None) for c in part]
        sampled = any(i is not None and one["engine"][i] == "sampling" for i in cells)
        line = Text(f"{weight + SAMPLED * sampled:<{first}}")
        for c, i in zip(part, cells, strict=True):
            bias = math.nan if i is None else float(one["relative_bias"][i])
            line.append(f"{number(bias):>{c.width}}", style="bold green" if abs(bias) < EXACT and not sampled else "")
        lines.append(line)
    return lines


def _head(one: Table, i: int, seeds: bool) -> list[str]:
    """The lines above a column: the kind, its options one by one, what it was solved for."""
    options = [text for text in str(one["drift_options"][i]).split(", ") if text]
    lines = [str(one["drift"][i]), *map(_option, options)]
    lines += [f"KL {one['kl_target'][i]:.15g}"] if not np.isnan(one["kl_target"][i]) else []
    lines += [f"seed {one['seed'][i]:.0f}"] if seeds and not np.isnan(float(one["seed"][i])) else []
    return lines


def _option(text: str) -> str:
    """A format is not all that a cast to it does: only its mantissa bits are."""
    return f"{text.removeprefix('format=')} mantissa" if text.startswith("format=") else text


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
    kl = "" if np.isnan(table["kl_target"][i]) else f", KL {table['kl_target'][i]:.15g} per {per}"
    return f"{where}, {drift} drift{seed}{kl}"


def _place(table: Table, i: int) -> str:
    def shown(column: str) -> str:
        return _number(column, float(table[column][i]))

    lost = f"; lost mass {shown('lost_mass')}, support {shown('support_bias')}" if table["lost_mass"][i] > 0.0 else ""
    return (
        f"T = {table['horizon'][i]:.0f}, KL(mu || pi) {shown('kl_token')} nats per token, {shown('kl_sequence')} per "
        f"sequence; effective sample size of sequence ratios {shown('ess_sequence')}; |g| = {shown('gradient_norm')}"
        f"{lost}"
    )


def _out_of_reach(table: Table, i: int) -> str:
    below, above = (_number(name, float(table[name][i])) for name in ("kl_below", "kl_above"))
    if np.isnan(table["kl_above"][i]):
        return f"out of reach: this drift can give {below} nats at the most"
    return f"out of reach: this drift goes in steps, the nearest are {below} and {above} nats"


def _estimator(table: Table, i: int) -> str:
    score, reduction = str(table["score"][i]), str(table["reduction"][i])
    parts = [f"signal {table['signal'][i]}"]
    parts += [] if score == "own" else [f"{score} score"]
    parts += [] if reduction == "sum" else [f"reduction {reduction}"]
    return ", ".join(parts)


def _bold(text: str, columns: int) -> list[Text]:
    return [Text(line, style="bold") for line in textwrap.wrap(text, columns)]


def _labelled(name: Any, options: Any) -> str:
    return f"{name}({options})" if options else str(name)


def _named(table: Table, i: int) -> str:
    return str(table["weight"][i]) + (SAMPLED if table["engine"][i] == "sampling" else "")


def _number(column: str, value: float) -> str:
    return number(value) if column in _BIASES else number(value, zero=0.0)


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


def _errors(table: Table, mine: list[int], columns: int) -> list[Line]:
    """What a sampled bias is worth."""
    sampled = [i for i in mine if table["engine"][i] == "sampling"]
    if not sampled:
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = table["standard_error"] / table["gradient_norm"]
    text = f"{SAMPLED.strip()} standard error of the mean over |g|, below which a bias is not told from none: "
    text += ", ".join(f"{table['weight'][i]} {_sampled_error(float(errors[i]))}" for i in sampled)
    return [*textwrap.wrap(text, columns, subsequent_indent="  ")]


def _sampled_error(error: float) -> str:
    return "unknown (its draws were all the same)" if error == 0.0 else number(error, zero=0.0)


def _coupled(table: Table, mine: list[int], batch: int, columns: int) -> list[Line]:
    """A weight that looks at the other trajectories of a batch is another one in a batch of another size."""
    cards = theory.weight_cards()
    rows = [i for i in mine if (card := cards.get(_family(table, i))) is not None and card.couples_batch]
    lines: list[Line] = []
    for size in sorted({int(table["trajectories_per_draw"][i]) for i in rows} - {batch}):
        names = [str(table["weight"][i]) for i in rows if table["trajectories_per_draw"][i] == size]
        lines += textwrap.wrap(
            f"{', '.join(names)}: coefficients depend on all trajectories of a draw, here {size}; mse@{batch} is of "
            f"the mean of such draws, not of one draw of {batch}.",
            columns, subsequent_indent="  ",
        )  # fmt: skip
    return lines


def _family(table: Table, i: int) -> str:
    return str(table["weight"][i]).partition("(")[0]
