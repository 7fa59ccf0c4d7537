"""Tasks: one cell of a sweep's grid is one task, known by a hash of its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from testbed.sweep import building
from testbed.sweep.choices import Choice, canonical
from testbed.sweep.settings import Sweep

# Part of every key: raise it when what a cell stores changes its meaning.
SCHEMA = 3

# Cells of one pair of policies travel together, so that the environment and the solved drift are built once; a kill
# loses at most one such batch per worker.
BATCH = 24


@dataclass(frozen=True)
class Pair:
    """What decides the process and its two policies."""

    environment: Choice
    drift: Choice
    kl: float | None
    """None where the policies are given, or the drift says how strong it is."""
    per: str
    old: str = "none"
    """What stands for the policy of the start of the update."""

    @property
    def seed(self) -> int | None:
        """The seed of a random drift; None where nothing is drawn."""
        return self.drift.options.get("seed")


@dataclass(frozen=True)
class Cell:
    """The settings of one task."""

    pair: Pair
    weight: Choice
    signal: Choice
    score: str
    reduction: Choice
    trajectories: tuple[int, ...]
    engine: str
    sampled_trajectories: int
    sampling_seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """As JSON has it; what the key is a hash of."""
        return {
            "environment": self.pair.environment.plain,
            "drift": self.pair.drift.plain,
            "kl": self.pair.kl,
            "per": self.pair.per,
            "weight": self.weight.plain,
            "signal": self.signal.plain,
            "score": self.score,
            "reduction": self.reduction.plain,
            "trajectories": self.trajectories,
            "engine": self.engine,
            "old": self.pair.old,
            "sampled_trajectories": self.sampled_trajectories,
            "sampling_seed": self.sampling_seed,
        }

    @property
    def key(self) -> str:
        """SHA-256 of the schema and the settings."""
        return hashlib.sha256(canonical({"schema": SCHEMA, **self.settings}).encode()).hexdigest()

    @property
    def label(self) -> str:
        """One line for a person."""
        kl = "" if self.pair.kl is None else f" at KL {self.pair.kl:g} per {self.pair.per}"
        where = f"{self.pair.environment.label}, {self.pair.drift.label}{kl}"
        return f"{self.weight.label} x {self.signal.label} in {where}"


def pairs(sweep: Sweep) -> Iterator[Pair]:
    """Every process with its pair of policies, in the order of the settings."""
    for environment, drift in product(sweep.environments, sweep.drifts):
        if drift.name == building.GIVEN:
            if building.environment_of(environment).behaviour is not None:
                yield Pair(environment, drift, None, sweep.per, sweep.old)
            continue
        kind = drift.without("kl")
        random = building.takes_seed(drift.name) and "seed" not in drift.options
        levels = (None,) if building.said_strength(drift) else drift.options.get("kl", sweep.kl)
        for kl, seed in product(levels, sweep.seeds if random else (None,)):
            seeded = kind if seed is None else kind.with_options(seed=seed)
            yield Pair(environment, seeded, None if kl is None else float(kl), sweep.per, sweep.old)


def cells(sweep: Sweep) -> list[Cell]:
    """Every cell, in the order of the table.

    Raises:
        ValueError: there is none.
    """
    inner = list(product(sweep.signals, sweep.weights, sweep.scores, sweep.reductions))
    everything = [
        Cell(
            pair,
            weight,
            signal,
            score.name,
            reduction,
            sweep.trajectories,
            sweep.engine,
            sweep.sampled_trajectories,
            sweep.sampling_seed,
        )
        for pair in pairs(sweep)
        for signal, weight, score, reduction in inner
    ]
    if not everything:
        raise ValueError(
            f"the sweep has no task: no environment here brings a behaviour policy of its own, which drift "
            f"{building.GIVEN!r} needs"
        )
    return everything


def batches(todo: list[Cell]) -> list[list[Cell]]:
    """Neighbouring cells of one pair, at most BATCH of them."""
    result: list[list[Cell]] = []
    for cell in todo:
        if result and result[-1][0].pair == cell.pair and len(result[-1]) < BATCH:
            result[-1].append(cell)
        else:
            result.append([cell])
    return result
