"""What people run: environments, controlled drift, sweeps, audits. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.environments import Environment, environment, environment_cards

# Public name -> the module that defines it. Lazy (PEP 562), so that `import testbed` costs nothing and the command line
# answers at once: gymnasium, matplotlib and torch are imported by those who need them.
_HOME = {
    "Environment": "testbed.environments",
    "environment": "testbed.environments",
    "environment_cards": "testbed.environments",
}

__all__ = ["Environment", "environment", "environment_cards"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'testbed' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
