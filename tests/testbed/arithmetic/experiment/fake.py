"""A training run that is made up: what it finds is a formula of its options, so that every table can be foreseen."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from testbed import spelling
from testbed.arithmetic.experiment import Experiment, LengthStudy, Method

SMALL = Experiment(
    name="small",
    methods=(
        Method("MinPRO", ("minpro(clip=(0.8, 1.28))", "minpro(clip=(0.5, 2.0))"), (1e-4, 3e-4), "prefix"),
        Method("GRPO", ("ppo_clip", "ppo_clip(clip=(0.8, 1.28))"), (1e-4, 3e-4)),
        Method("token ratio", ("token",), (1e-4, 2e-4, 3e-4, 1e-3)),
    ),
    staleness=(0, 8),
    tuning_seeds=(100, 101),
    final_seeds=(0, 1, 2),
    training={"steps": 20, "evaluate_every": 5, "signal": "group(size=8)"},
    final_training={"exact_every": 10},
    references=("MinPRO", "GRPO"),
    length=LengthStudy({"short": {"digits": 1}, "long": {"digits": 3}}, seeds=(0, 1), staleness=4),
)
RUNS = 2 * 3 * 4 * 2 + 2 * 3 * 3 + 2 * 2
"""Tuning, final and length."""
COLLAPSE = {"token": 8, "none": 4, "ppo_clip": 64}
"""Weight -> staleness from which a learning rate of 3e-4 or more makes it collapse."""


@dataclass
class FakeRun:
    settings: SimpleNamespace
    log: dict
    collapsed_at: int | None
    collapse: str | None


def train(options):
    """Learns faster with a larger rate; falls back where the weight does not bear the staleness."""
    steps, rate, k = options["steps"], options["learning_rate"], options["staleness"]
    name = spelling.call(options["weight"])[0]
    rng = np.random.default_rng([options["seed"], k, round(1e6 * rate), *options["weight"].encode()])
    step = np.arange(steps + 1)
    accuracy = 0.4 + 0.5 * (1 - np.exp(-step * rate * 3000 / steps)) + 0.02 * rng.standard_normal()
    collapsed_at = None
    if k >= COLLAPSE.get(name, 10**6) and rate >= 3e-4:
        collapsed_at = steps // 2
        accuracy = np.where(step > collapsed_at, accuracy * 0.7 ** (step - collapsed_at), accuracy)
    evaluated = (step % options["evaluate_every"] == 0) | (step == steps)
    exact = options.get("exact_every", 0)
    measured = (step % exact == 0) | (step == steps) if exact else np.zeros(steps + 1, bool)
    accuracy = np.clip(accuracy + 0.01 * rng.standard_normal(steps + 1), 0, 1)
    sparse = np.where(evaluated, accuracy, math.nan)
    log = {
        "step": step.astype(float), "accuracy": sparse, "expected_reward": sparse, "greedy_accuracy": sparse,
        "pass_at_8": 1 - (1 - sparse) ** 8,
        "cosine": np.where(measured, 0.9 / (1 + k / 64) - 0.1 * step / steps + 0.01 * rng.standard_normal(), math.nan),
        "reward": np.where(step == steps, math.nan, accuracy),
        "length": np.full(steps + 1, 2.0 + options.get("task", {}).get("digits", 2)),
        "clip_fraction": np.where(step == steps, math.nan, 0.1),
        "kl_sampled": np.where(step == steps, math.nan, 0.01 * (k + 1)),
    }  # fmt: skip
    if name == "minpro" and "clip" in options["weight"]:
        for t in range(1, 3 + options.get("task", {}).get("digits", 2)):
            log[f"floor_{t}"] = np.where(step < k, 0.0, 1 - 0.9**t) + 0 * step
        log["floor_fraction"] = np.where(step < k, 0.0, 0.2 + 0.01 * rng.standard_normal())
    why = None if collapsed_at is None else "made up"
    return FakeRun(SimpleNamespace(steps=steps), log, collapsed_at, why)


def broken(run, row, value=math.nan):
    """The same run, broken off at this row with a gradient that is not finite."""
    log = {name: column[: row + 1].copy() for name, column in run.log.items()}
    log["accuracy"][-1] = value
    return replace(run, log=log, collapsed_at=row, collapse="the gradient is not finite")


def failing(options):
    """One of the tuning runs raises."""
    if (options["weight"], options["seed"], options["staleness"]) == ("token", 101, 8):
        raise FloatingPointError("on\npurpose")
    return train(options)


def deadly(options):
    """One of the runs kills the process that touches it."""
    if (options["weight"], options["seed"], options["staleness"]) == ("token", 101, 8):
        os._exit(1)
    return train(options)


def slow(options):
    """Long enough for a kill to fall into the middle."""
    import time

    time.sleep(0.02)
    return train(options)


def contents(folder: Path) -> dict[str, bytes]:
    """The files that must not depend on how a run was cut."""
    names = ("runs.csv", "runs.parquet", "curves.csv", "curves.parquet", "runs_columns.csv", "curves_columns.csv")
    return {name: (folder / name).read_bytes() for name in names}
