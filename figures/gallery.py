"""The gallery: a folder with every figure, its data, and a page with one sentence each, its numbers from the data."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from figures import FIGURES
from figures.data import EXACT

Rows = Sequence[Mapping[str, str]]
PAGE = "README.md"
EXPERIMENT = "../staleness"
"""Where the figures of the staleness experiment are, seen from the page."""
HEAD = """# Gallery

`make figures` draws all of these, from the tables of `testbed sweep` and `testbed experiment staleness`, and writes
this page; the numbers in the sentences are read from the data beside each image (CSV). Every number is exact unless a
figure says otherwise. The look is that of one file, [house.mplstyle](../../figures/house.mplstyle). With other choices
the same numbers are on the page that `testbed explore` opens.
"""
TRAINING = """## Training on old rollouts

From `testbed experiment staleness`; [the whole story](../staleness/README.md).
"""


def write_gallery(drawn: Path, out: Path) -> list[Path]:
    """Copy images and data from where they were drawn, and write the page; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in FIGURES:
        for path in (*sorted(drawn.glob(f"{name}*.csv")), drawn / f"{name}.png", drawn / f"{name}.svg"):
            paths.append(out / path.name)
            if path.resolve() != paths[-1].resolve():
                shutil.copyfile(path, paths[-1])
    page = out / PAGE
    page.write_text(text(out, out.parent / "staleness"), encoding="utf-8")
    return [*paths, page]


def text(folder: Path, experiment: Path) -> str:
    """The page, from the data in its folder and that of the experiment."""
    parts = [HEAD]
    for name in FIGURES:
        parts.append(_entry(name, SENTENCES[name](folder), name))
    parts.append(TRAINING)
    for name, sentence in EXPERIMENT_SENTENCES.items():
        parts.append(_entry(name, sentence(experiment), f"{EXPERIMENT}/{name}"))
    return "\n".join(parts)


def _entry(name: str, sentence: str, path: str) -> str:
    title = name.replace("_", " ").replace("mse", "MSE")
    title = title[:1].upper() + title[1:]
    return f"## {title}\n\n![{title}]({path}.png)\n\n{sentence} ([data]({path}.csv), [vector]({path}.svg))\n"


def _rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _one(rows: Rows, column: str, **wanted: object) -> float:
    """The number of the one row with these values."""
    found = [row for row in rows if all(_same(row[name], value) for name, value in wanted.items())]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows have {wanted}; expected one")
    return float(found[0][column])


def _same(text: str, value: object) -> bool:
    return float(text) == value if isinstance(value, (int, float)) else text == value


def _drift(folder: Path) -> str:
    rows = _rows(folder / "relative_bias_by_drift.csv")
    token, minpro = (_one(rows, "median", signal="target_advantage", weight=w, kl=0.1) for w in ("token", "minpro"))
    worst = max(float(r["greatest"]) for r in rows if (r["signal"], r["weight"]) == ("target_advantage", "prefix"))
    if worst > EXACT:
        raise ValueError(f"the prefix ratio has a relative bias of {worst:g}; expected none")
    return (
        "With the advantage of the policy being trained the prefix ratio is exact at every drift, while the median "
        f"bias at 0.1 nats per token is {token:.2f} of the gradient for the token ratio and {minpro:.2f} for MinPRO."
    )


def _horizon(folder: Path) -> str:
    rows = _rows(folder / "variance_by_horizon.csv")
    column, three = "relative_standard_deviation", ("prefix", "token", "minpro")
    spread = {w: _one(rows, column, weight=w, horizon=1000) for w in three}
    bias = {w: _one(rows, "relative_bias", weight=w, horizon=1000) for w in ("token", "minpro")}
    return (
        f"At a thousand tokens, 0.01 nats each, one trajectory's standard deviation is {spread['prefix']:.1g} times "
        f"the gradient with the prefix ratio, {spread['token']:.2g} times with the token ratio and "
        f"{spread['minpro']:.2g} times with MinPRO, whose bias is then {bias['minpro']:.2g} of it beside the token "
        f"ratio's {bias['token']:.2g}."
    )


def _batch(folder: Path) -> str:
    crossings = _rows(folder / "mse_by_batch_crossovers.csv")
    chosen = {"signal": "target_advantage", "unbiased": "prefix"}
    n = {w: _one(crossings, "trajectories", biased=w, **chosen) for w in ("token", "minpro")}
    return (
        "Unbiased wins in the end: the prefix ratio has less error than the token ratio from batches of "
        f"{n['token']:,.0f} trajectories on, and less than MinPRO from {n['minpro']:,.0f}."
    )


def _front(folder: Path) -> str:
    rows = _rows(folder / "bias_against_spread.csv")
    front = [row["weight"] for row in rows if row["beaten"] == "0"]
    by_bias = sorted(front, key=lambda w: _one(rows, "relative_bias", weight=w))
    beaten = [w for w in ("minpro", "minpro(clip=(0.8, 1.28))", "ppo_clip", "gspo") if w not in front]
    return (
        f"Of {len(rows)} corrections {len(front)} are on the front, from the least bias: {', '.join(by_bias)}; "
        f"{', '.join(beaten)} have both more bias and more spread than one of these, in the median."
    )


def _position(folder: Path) -> str:
    rows = _rows(folder / "weight_by_position.csv")
    first, last = (_one(rows, "median", weight="minpro", position=t) for t in (1, 1000))
    floor = _one(rows, "share_at_floor", weight="minpro(clip=(0.8, 1.28))", position=1000)
    prefix = _one(rows, "median", weight="prefix", position=1000)
    return (
        f"MinPRO's median weight sinks from {first:.2f} at the first token to {last:.2f} at the thousandth, where "
        f"{100 * floor:.0f} % of the tokens stand at the floor of its clip; the prefix ratio's median is {prefix:.1g}, "
        "and its mean 1."
    )


def _causes(folder: Path) -> str:
    rows = _rows(folder / "bias_terms.csv")
    drifts = sorted({float(r["kl_token"]) for r in rows})
    near, far = min(drifts, key=lambda kl: abs(kl - 0.1)), drifts[-1]

    def of(weight: str, column: str, kl: float, term: str) -> float:
        wanted = {"weight": weight, "reduction": "sum", "kl_token": kl, "position": "all", "term": term}
        return _one(rows, column, **wanted)

    prefix, token = (of(weight, "relative_bias", near, "occupancy") for weight in ("prefix", "token"))
    return (
        f"With outcomes even the prefix ratio is off, by {prefix:.2f} of the gradient at {near:g} nats per token, "
        "because the rollouts go on with the old policy (continuation), and so is the token ratio, by "
        f"{token:.2f}; what the latter leaves out, the earlier tokens' distribution (occupancy), is "
        f"{100 * of('token', 'share', near, 'occupancy'):.0f} % of its bias there and "
        f"{100 * of('token', 'share', far, 'occupancy'):.0f} % at {far:g}."
    )


def _curves(folder: Path) -> str:
    rows = _rows(folder / "learning_curves.csv")
    last, three = max(int(r["step"]) for r in rows), ("token ratio", "MinPRO", "no correction")
    ends = {m: 100 * _one(rows, "mean", staleness=128, method=m, step=last) for m in three}
    return (
        f"With rollouts 128 updates old the token ratio ends at {ends['token ratio']:.1f} %, MinPRO with its clip at "
        f"{ends['MinPRO']:.1f} %, and no correction at {ends['no correction']:.1f} %, each at the learning rate that "
        "it had chosen."
    )


def _cosines(folder: Path) -> str:
    rows = _rows(folder / "cosine_along_training.csv")
    last, three = max(int(r["step"]) for r in rows), ("token ratio", "GSPO", "GRPO")
    ends = {m: _one(rows, "mean", staleness=128, method=m, step=last) for m in three}
    return (
        "At the end of training with rollouts 128 updates old the expected gradient's cosine to the true one is "
        f"{ends['token ratio']:.2f} for the token ratio, {ends['GSPO']:.2f} for GSPO, which learns at least as well, "
        f"and {ends['GRPO']:.2f} for GRPO."
    )


def _rates(folder: Path) -> str:
    rows = _rows(folder / "accuracy_by_learning_rate.csv")
    four = ("token", "minpro", "ppo_clip(clip=(0.8, 1.2))", "gspo(clip=(0.8, 1.2))")
    token, minpro, grpo, gspo = (100 * _one(rows, "mean", staleness=32, weight=w, learning_rate=8e-4) for w in four)
    return (
        "At the highest learning rate and with rollouts 32 updates old the token ratio and MinPRO without a clip end "
        f"at {token:.0f} % and {minpro:.0f} %, far below the base model's {100 * float(rows[0]['base']):.0f} %; GRPO "
        f"and GSPO, which mask what is far from its rollout, at {grpo:.0f} % and {gspo:.0f} %."
    )


def _floors(folder: Path) -> str:
    rows, exact = _rows(folder / "floor_by_length.csv"), _rows(folder / "floor_by_length_exact.csv")
    task = [r for r in rows if r["task"] == "2-digit addition" and r["position"] != "all"]
    first, last = (100 * float(task[place]["share"]) for place in (0, -1))
    far = {t: 100 * _one(exact, "share", kl_token=0.01, position=t) for t in (1, 10, 1000)}
    return (
        f"In 2-digit addition {first:.0f} % of the first tokens and {last:.0f} % of the last stand at the floor of "
        f"MinPRO's clip; of independent tokens that are 0.01 nats away {far[1]:.0f} % of the first do, {far[10]:.0f} % "
        f"of the tenth and {far[1000]:.0f} % of the thousandth, exactly."
    )


SENTENCES: dict[str, Callable[[Path], str]] = {
    "relative_bias_by_drift": _drift,
    "variance_by_horizon": _horizon,
    "mse_by_batch": _batch,
    "bias_against_spread": _front,
    "weight_by_position": _position,
    "bias_terms": _causes,
}
"""Per figure of a sweep, its sentence from the data in a folder."""
EXPERIMENT_SENTENCES: dict[str, Callable[[Path], str]] = {
    "learning_curves": _curves,
    "accuracy_by_learning_rate": _rates,
    "cosine_along_training": _cosines,
    "floor_by_length": _floors,
}
