"""Tasks: one training run each, known by a hash of its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any

from testbed.arithmetic.experiment.settings import Experiment, LengthStudy, Method
from testbed.sweep.choices import canonical

# Part of every key: raise it when what a run stores changes its meaning.
SCHEMA = 1

TUNING, FINAL, LENGTH = "tuning", "final", "length"
"""Stages, in the order in which tables have them."""


@dataclass(frozen=True)
class Task:
    """One training run."""

    stage: str
    """TUNING, FINAL or LENGTH: what it is for; the same run gives the same numbers in each."""
    name: str
    """Of the method, or of the length study's task."""
    training: Mapping[str, Any]
    """Options of `Training`."""

    @property
    def key(self) -> str:
        """SHA-256 of the schema and the settings of the run; the stage enters because it decides what is kept."""
        content = {"schema": SCHEMA, "stage": self.stage, "training": self.training}
        return hashlib.sha256(canonical(content).encode()).hexdigest()

    @property
    def label(self) -> str:
        """For messages."""
        t = self.training
        return (
            f"{self.stage} {self.name}: {t['weight']}, K={t['staleness']}, lr={t['learning_rate']:g}, seed={t['seed']}"
        )

    @property
    def names(self) -> dict[str, Any]:
        """The columns that say which run it is."""
        t = self.training
        return {
            "stage": self.stage,
            "name": self.name,
            "weight": t["weight"],
            "staleness": t["staleness"],
            "learning_rate": t["learning_rate"],
            "seed": t["seed"],
        }


def tuning_tasks(experiment: Experiment) -> list[Task]:
    """Every configuration of every method at each staleness, with the method's tuning seeds."""
    return [
        _task(experiment, TUNING, method, weight, rate, k, seed)
        for k, method in product(experiment.staleness, experiment.methods)
        for weight, rate in method.configurations
        for seed in experiment.tuning_seeds_of(method)
    ]


def final_tasks(experiment: Experiment, chosen: Mapping[tuple[str, int], tuple[str, float]]) -> list[Task]:
    """The chosen configuration, (method, K) -> (weight, learning rate), of each method with the final seeds."""
    return [
        _task(experiment, FINAL, method, *chosen[method.name, k], k, seed, experiment.final_training)
        for k, method in product(experiment.staleness, experiment.methods)
        for seed in experiment.final_seeds
    ]


def length_tasks(experiment: Experiment) -> list[Task]:
    """The length study's weight on each of its tasks, with each of its seeds; none where there is no such study."""
    study = experiment.length
    if study is None:
        return []
    return [
        Task(LENGTH, name, _options(experiment, study, task, seed))
        for name, task in study.tasks.items()
        for seed in study.seeds
    ]


def task_count(experiment: Experiment) -> int:
    """Of all stages."""
    cells = len(experiment.staleness) * len(experiment.methods)
    return len(tuning_tasks(experiment)) + cells * len(experiment.final_seeds) + len(length_tasks(experiment))


def _task(
    experiment: Experiment,
    stage: str,
    method: Method,
    weight: str,
    rate: float,
    staleness: int,
    seed: int,
    also: Mapping[str, Any] = MappingProxyType({}),
) -> Task:
    grid = {"weight": weight, "learning_rate": rate, "staleness": staleness, "seed": seed}
    return Task(stage, method.name, _plain({**experiment.training, **also, **grid}))


def _options(experiment: Experiment, study: LengthStudy, task: Mapping[str, Any], seed: int) -> dict[str, Any]:
    grid = {
        "task": task, "weight": study.weight, "learning_rate": study.learning_rate, "staleness": study.staleness,
        "seed": seed,
    }  # fmt: skip
    own = {key: value for key, value in task.items() if key in PER_TASK}
    grid["task"] = {key: value for key, value in task.items() if key not in PER_TASK}
    return _plain({**experiment.training, **study.training, **grid, **own})


PER_TASK = ("warm_up", "steps", "tree_prompts", "evaluate_every", "exact_every", "learning_rate")
"""Options of training that a task of the length study may set beside its own fields."""


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it, so that a key does not depend on whether a list was a tuple."""
    found: dict[str, Any] = json.loads(json.dumps(options))
    return found
