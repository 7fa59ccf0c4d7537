"""What people run: environments, controlled drift, sweeps, audits. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.environments import Environment, environment, environment_cards
    from testbed.sweep import Choice, Sweep, SweepResult, default_sweep, read_table, run_sweep, summarise

# Public name -> the module that defines it. Lazy (PEP 562), so that `import testbed` costs nothing and the command line
# answers at once: gymnasium, matplotlib and torch are imported by those who need them.
_HOME = {
    "Environment": "testbed.environments",
    "environment": "testbed.environments",
    "environment_cards": "testbed.environments",
    "Choice": "testbed.sweep",
    "Sweep": "testbed.sweep",
    "SweepResult": "testbed.sweep",
    "default_sweep": "testbed.sweep",
    "read_table": "testbed.sweep",
    "run_sweep": "testbed.sweep",
    "summarise": "testbed.sweep",
}

__all__ = [
    "Choice",
    "Environment",
    "Sweep",
    "SweepResult",
    "default_sweep",
    "environment",
    "environment_cards",
    "read_table",
    "run_sweep",
    "summarise",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'testbed' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
