"""Sweeps: plain settings, resumable tasks, one tidy table."""

from testbed.sweep.choices import Choice
from testbed.sweep.columns import Column, columns
from testbed.sweep.running import Failure, SweepResult, run_sweep
from testbed.sweep.settings import Sweep, default_sweep
from testbed.sweep.summary import Summary, summarise
from testbed.sweep.table import read_table

__all__ = [
    "Choice",
    "Column",
    "Failure",
    "Summary",
    "Sweep",
    "SweepResult",
    "columns",
    "default_sweep",
    "read_table",
    "run_sweep",
    "summarise",
]
