"""`testbed train`: settings from a file and options, a bar, a table of what was measured, and where it lies."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from testbed import spelling
from testbed.arithmetic.caching import is_cached
from testbed.arithmetic.training.folder import RUN
from testbed.arithmetic.training.provenance import training_code
from testbed.arithmetic.training.running import TrainingRun, train
from testbed.arithmetic.training.settings import Training
from testbed.arithmetic.training.state import FILE as CHECKPOINT
from testbed.sweep.choices import canonical

EXACT_CHECKPOINTS = 4
_SHOWN = {
    "step": ("update", "{:.0f}"),
    "expected_reward": ("reward", "{:.3f}"),
    "accuracy": ("pass@1", "{:.3f}"),
    "pass_at_8": ("pass@8", "{:.3f}"),
    "entropy": ("entropy", "{:.3f}"),
    "kl_behaviour_policy": ("KL(mu||pi)", "{:.4f}"),
    "ess": ("ESS", "{:.3f}"),
    "clip_fraction": ("altered", "{:.3f}"),
    "relative_bias": ("bias", "{:.3f}"),
    "cosine": ("cosine", "{:.4f}"),
    "effective_step": ("step", "{:.3f}"),
    "relative_standard_deviation": ("std", "{:.2f}"),
}
_MOST_ROWS = 16
# These are spelled with options, and are not Python literals.
_TEXTS = ("weight", "signal", "score", "reduction")


def train_command(
    file: Path | None,
    chosen: dict[str, Any],
    others: Sequence[str],
    out: Path | None,
    *,
    exact: bool,
    device: str,
    as_json: bool,
) -> int:
    """Train as the command line asks for it. Returns the exit status."""
    settings = settings_of(file, chosen, others, exact=exact)
    _check_device(device)
    # Runs of equal settings share a folder, so that the same command goes on where it was.
    key = hashlib.sha256(canonical([settings.plain, device, training_code()]).encode()).hexdigest()[:8]
    folder = out or Path("results") / "train" / f"{settings.estimator.weight.name}-K{settings.staleness}-{key}"
    torch.set_num_threads(1)
    began, before = time.perf_counter(), (folder / RUN).exists()
    if not is_cached(settings.task, settings.config, settings.warm_up):
        _say("warming up the base model, once")
    try:
        with _progress() as progress:
            run = train(settings, folder=folder, device=device, progress=progress)
    except KeyboardInterrupt:
        kept = (folder / CHECKPOINT).exists()
        _say(f"interrupted; the same command goes on from the last checkpoint in {folder}" if kept else "interrupted")
        return 130
    if as_json:
        print(json.dumps(_data(run, folder), indent=2, allow_nan=False))
    else:
        _print(run)
    sys.stdout.flush()
    made = "read from" if before else f"{run.updates} updates in {time.perf_counter() - began:.1f} s;"
    _say(f"{made} {folder}")
    return 0


def settings_of(file: Path | None, chosen: dict[str, Any], others: Sequence[str], *, exact: bool) -> Training:
    """Settings of a TOML file, changed by options; `others` are `name=value`, with a dot into a table.

    Raises:
        ValueError: a file that is no TOML, or what `Training` raises.
    """
    data: dict[str, Any] = {}
    if file is not None:
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except ValueError as why:
            raise ValueError(f"{str(file)!r} is no TOML: {why}") from None
    given = {**{name: value for name, value in chosen.items() if value is not None}, **_pairs(others)}
    for name, value in given.items():
        table, dot, inner = name.partition(".")
        if dot:
            if not isinstance(data.get(table, {}), dict):
                raise ValueError(f"{table} is {data[table]!r}; expected a table, of which {inner} is a setting")
            data[table] = {**data.get(table, {}), inner: value}
        else:
            data[name] = value
    settings = Training.from_plain(data)
    if not exact:
        return settings
    every = data.get("exact_every") or max(1, settings.steps // EXACT_CHECKPOINTS)
    return Training.from_plain({**data, "exact_every": every, "exact_variance": True})


def _pairs(others: Sequence[str]) -> dict[str, Any]:
    result = {}
    for pair in others:
        name, equals, value = pair.partition("=")
        if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
            raise ValueError(f"--set is {pair!r}; expected name=value, such as prompts=16 or task.digits=1")
        result[name.strip()] = value.strip() if name.strip() in _TEXTS else spelling.literal(value)
    return result


def _check_device(device: str) -> None:
    try:
        # A generator, because there are devices that hold tensors and cannot sample.
        torch.rand(1, device=device, generator=torch.Generator(device))
    except (RuntimeError, AssertionError, NotImplementedError) as why:
        reason = str(why).strip().split("\n")[0]
        raise ValueError(
            f"device {device!r} cannot be used here: {reason}; expected one that can, such as cpu"
        ) from why


def _print(run: TrainingRun) -> None:
    settings, log = run.settings, run.log
    K, last = settings.staleness, settings.steps - 1
    age = f"{K} updates old" if last >= K else f"of the base model, at most {last} updates old"
    say = [settings.estimator.label, f"rollouts {age}, {_task(settings)}"]
    rows = [i for i in range(len(log["step"])) if not math.isnan(log["accuracy"][i])]
    if len(rows) > _MOST_ROWS:
        every = -(-len(rows) // _MOST_ROWS)
        exact = {i for i in rows if not math.isnan(log["cosine"][i])}
        rows = [i for n, i in enumerate(rows) if n % every == 0 or i in exact or n + 1 == len(rows)]
    shown = {name: how for name, how in _SHOWN.items() if not all(math.isnan(log[name][i]) for i in rows)}
    cells = [[title for title, _ in shown.values()]]
    cells += [["-" if math.isnan(x) else form.format(x) for x, form in _row(log, shown, i)] for i in rows]
    widths = [max(len(line[c]) for line in cells) for c in range(len(shown))]
    say += ["", *("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in cells), ""]
    say.append("reward, pass@k: exact, on held-out prompts.")
    if settings.tree_prompts:
        say.append(
            f"entropy, KL, ESS: exact, on {settings.tree_prompts} of them; nats per token; ESS of sequence ratios."
        )
    say.append("altered: share of the update's tokens whose coefficient is not the product of ratios it starts from.")
    if "cosine" in shown:
        say.append(
            f"bias, cosine, step, std: exact, of a draw of the estimator, on {settings.exact_prompts} training prompts."
        )
    if run.refused is not None:
        say.append(f"bias, cosine: not known, {run.refused}.")
    if run.collapsed_at is None:
        say.append("The run has not collapsed.")
    else:
        say.append(f"The run collapsed, first seen after update {run.collapsed_at}: {run.collapse}.")
    if run.stopped is not None:
        say.append(f"It ended after update {run.updates}: {run.stopped}.")
    print("\n".join(say))


def _row(log: dict[str, Any], shown: dict[str, tuple[str, str]], i: int) -> Iterator[tuple[float, str]]:
    for name, (_, form) in shown.items():
        yield float(log[name][i]), form


def _task(settings: Training) -> str:
    task = settings.task
    modulus = "" if task.modulus is None else f" modulo {task.modulus}"
    return f"{task.operation.replace('_', ' ')}{modulus} of {task.digits} digits"


def _data(run: TrainingRun, folder: Path) -> dict[str, Any]:
    rows = [
        {name: float(values[i]) if math.isfinite(values[i]) else None for name, values in run.log.items()}
        for i in range(len(run.log["step"]))
    ]
    return {
        "settings": run.settings.plain, "updates": run.updates, "collapsed_at": run.collapsed_at,
        "collapse": run.collapse, "stopped": run.stopped, "refused": run.refused, "folder": str(folder), "rows": rows,
    }  # fmt: skip


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("train", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say(message: str) -> None:
    print(message, file=sys.stderr)
