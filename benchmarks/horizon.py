"""MinPRO's mean and variance over long horizons, by the recursion."""

from __future__ import annotations

import theory
from benchmarks import floors, twins
from benchmarks.problems import Problem, long_horizon
from benchmarks.report import Row
from benchmarks.timing import clock

ESTIMATOR = theory.Estimator(weight="minpro", signal="target_advantage")


def run(quick: bool) -> list[Row]:
    """T = 1000 against its target, and whether ten times the horizon takes ten times as long."""
    short, long, twin_horizon, runs = (100, 1000, 20, 2) if quick else (1000, 10_000, 100, 7)
    given = long_horizon(short)
    seconds = clock(lambda: _moments(given), runs)
    sample = long_horizon(twin_horizon)
    # A step costs the twin the same at every t once all minima have occurred, which takes a few steps.
    twin = clock(lambda: twins.recursion(sample), 1).best * short / twin_horizon
    operations, floor = floors.minpro_recursion(given)
    ten_times = long_horizon(long)
    longer = clock(lambda: _moments(ten_times), 1 if quick else 3)
    return [
        Row(
            f"MinPRO mean and variance, T = {short:,}", given.label, seconds.best, "s", 0.5,
            seconds=seconds, twin=twin,
            twin_note=f"timed at T = {twin_horizon} and scaled by {short / twin_horizon:g}",
            floor=floor, operations=operations,
        ),
        Row(
            f"the same, T = {long:,}: time over that of T = {short:,}", ten_times.label, longer.best / seconds.best, "",
            1.2 * long / short, seconds=longer, floor=long / short,
        ),
    ]  # fmt: skip


def _moments(given: Problem) -> theory.Moments:
    return theory.moments(given.process, given.target, given.behaviour, ESTIMATOR, engine="recursion")
