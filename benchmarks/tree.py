"""A million trajectories, enumerated in a process of its own, whose memory is then its alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import theory
from benchmarks import floors, twins
from benchmarks.problems import million_trajectories
from benchmarks.report import Row
from benchmarks.timing import Seconds, clock, peak_memory

ESTIMATOR = theory.Estimator(weight="minpro", signal="target_advantage")


def run(quick: bool) -> list[Row]:
    """Time and peak memory."""
    length, twin_length, runs = (7, 4, 1) if quick else (10, 7, 3)
    given, sample = million_trajectories(length), million_trajectories(twin_length)
    # One process for the memory of a single run, which later runs would not lower.
    (_, peak), (seconds, _) = _child(length, 1), _child(length, runs)
    share = 4 ** (length - twin_length) * length / twin_length
    twin = clock(lambda: twins.enumeration(sample), 1).best * share
    operations, floor = floors.minpro_enumeration(given, 4**length)
    name = f"{4**length:,} trajectories of {length}, enumerated"
    return [
        Row(
            name, given.label, seconds.best, "s", 3.0, seconds=seconds, twin=twin, floor=floor, operations=operations,
            twin_note=f"timed on {4**twin_length:,} trajectories of {twin_length}, scaled by the tokens, {share:.0f}",
        ),
        Row("the same, peak memory of the process", given.label, peak / 1e9, "GB", 2.0),
    ]  # fmt: skip


def _child(length: int, runs: int) -> tuple[Seconds, float]:
    command = [sys.executable, "-m", "benchmarks.tree", str(length), str(runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    seconds, peak = json.loads(done.stdout)
    return Seconds(*seconds), float(peak)


def measure(length: int, runs: int) -> tuple[Seconds, float]:
    """What the child process reports: times, and the most bytes it held, Python and its libraries included."""
    given = million_trajectories(length)
    seconds = clock(
        lambda: theory.moments(given.process, given.target, given.behaviour, ESTIMATOR, engine="enumeration"), runs
    )
    return seconds, peak_memory()


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
