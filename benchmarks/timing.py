"""Clocks, peak memory, and how fast this machine multiplies matrices."""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Seconds(NamedTuple):
    """Times of several runs of the same thing.

    What is compared is processor time: with one thread it is what the wall clock shows on an idle core, and it stays
    what it is when others use the machine.
    """

    best: float
    """The least disturbed run, in seconds of processor time."""
    median: float
    """The median run, in seconds of processor time."""
    wall: float
    """The shortest run by the wall clock."""
    runs: int


def clock(function: Callable[[], Any], runs: int) -> Seconds:
    """Time a function, after one run that is not counted where there is more than one."""
    if runs > 1:
        function()
    times = []
    for _ in range(runs):
        wall, start = time.perf_counter(), time.process_time()
        function()
        times.append((time.process_time() - start, time.perf_counter() - wall))
    return seconds_of(times)


def seconds_of(times: Sequence[tuple[float, float]]) -> Seconds:
    """What runs took, of (processor time, wall clock) of each."""
    processor, walls = zip(*times, strict=True)
    return Seconds(min(processor), statistics.median(processor), min(walls), len(times))


def peak_memory() -> float:
    """Most bytes that this process has held so far.

    Linux counts what the parent held before it started this process into ru_maxrss; the kernel's own high-water mark
    of the process is free of that, and is taken where there is one.
    """
    status = Path("/proc/self/status")
    mark = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if mark:
        return float(mark[1]) * 1024.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def matmul_rate(
    left: tuple[int, ...], right: tuple[int, ...], runs: int = 5, dtype: type[np.floating[Any]] = np.float64
) -> float:
    """Floating-point operations per second of np.matmul on arrays of these shapes, 2 m n k each."""
    a, b = np.ones(left, dtype), np.ones(right, dtype)
    operations = 2.0 * np.prod(left[:-2]) * left[-2] * left[-1] * right[-1]
    repeats = max(1, int(2e7 / operations))
    out = np.matmul(a, b)

    def several() -> None:
        for _ in range(repeats):
            np.matmul(a, b, out=out)

    return repeats * operations / clock(several, runs).best
