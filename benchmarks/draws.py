"""Tokens per second of sampling, against a Gymnasium vector environment that is stepped with the same policy."""

from __future__ import annotations

import gymnasium
import numpy as np

import theory
from benchmarks import floors, twins
from benchmarks.problems import Problem, long_horizon
from benchmarks.report import Row
from benchmarks.timing import clock
from testbed.environments.process_env import ProcessEnv
from theory.engines.sampling import sample_block
from theory.engines.trajectories import Walk

HORIZON, COPIES, FASTER = 100, 64, 10.0
ESTIMATOR = theory.Estimator(weight="minpro", signal="target_advantage")


def run(quick: bool) -> list[Row]:
    """Drawing alone, and drawing with the estimator of every trajectory on top."""
    trajectories, episodes, runs = (2_000, 1, 2) if quick else (50_000, 10, 5)
    given = long_horizon(HORIZON)
    tokens, stepped = trajectories * HORIZON, episodes * COPIES * HORIZON
    gymnasium_rate = stepped / clock(lambda: step_vector_env(given, episodes), runs).best
    twin = 100 * HORIZON / clock(lambda: twins.sampling(given, 100), runs).best
    operations, floor = floors.sampling(given, tokens)
    rows = []
    for name, function in (
        ("sampling, tokens drawn", lambda: draw(given, trajectories)),
        ("sampling, tokens drawn and estimated", lambda: estimate(given, trajectories)),
    ):
        seconds = clock(function, runs)
        rows.append(
            Row(
                name, f"{given.label}, {trajectories:,} trajectories; target {FASTER:g} x a SyncVectorEnv of {COPIES} "
                f"ProcessEnv, {gymnasium_rate:,.0f} tokens/s",
                tokens / seconds.best, "tokens/s", FASTER * gymnasium_rate, higher_is_better=True,
                seconds=seconds, twin=twin, twin_note="timed on 100 trajectories", floor=tokens / floor,
                operations=operations,
            )
        )  # fmt: skip
    return rows


def draw(given: Problem, trajectories: int) -> int:
    """Draw trajectories under mu with the sampling engine; returns the tokens drawn."""
    walk, rng, tokens = Walk(given.process, given.behaviour), np.random.default_rng(0), 0
    for first in range(0, trajectories, 10_000):
        n = min(10_000, trajectories - first)
        start = rng.choice(given.process.states, size=n, p=given.process.initial)
        tokens += int(sample_block(walk, start, rng).acting.sum())
    return tokens


def estimate(given: Problem, trajectories: int) -> theory.Moments:
    """Sampled moments: draws, weights, signals and scores."""
    return theory.moments(
        given.process, given.target, given.behaviour, ESTIMATOR, engine="sampling", trajectories=trajectories
    )


def step_vector_env(given: Problem, episodes: int) -> int:
    """Step `COPIES` environments through whole episodes, with actions of mu; returns the tokens taken."""
    rng, cumulative = np.random.default_rng(0), np.cumsum(given.behaviour.probabilities, axis=1)
    last = given.process.actions - 1
    envs = gymnasium.vector.SyncVectorEnv([lambda: ProcessEnv(given.process)] * COPIES)
    try:
        state, _ = envs.reset(seed=0)
        tokens = ended = 0
        # An environment whose episode has ended is reset in the step after it, which takes no token.
        fresh = np.zeros(COPIES, dtype=bool)
        while ended < episodes * COPIES:
            action = np.minimum((rng.random(COPIES)[:, None] > cumulative[state]).sum(axis=1), last)
            state, _, terminated, _, _ = envs.step(action)
            tokens += int((~fresh).sum())
            ended += int(terminated.sum())
            fresh = terminated
    finally:
        envs.close()
    return tokens
