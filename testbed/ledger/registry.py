"""All claims, found in the folder `claims`: a new claim is a new file there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from testbed.ledger import claims as folder
from testbed.ledger.record import Claim
from theory import checks


@cache
def claim_names() -> tuple[str, ...]:
    """The names of all claims, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__)))


def claim(name: str) -> Claim:
    """A claim by its name.

    >>> testbed.claim("truncated_sequence_ratio_is_unbiased").recorded.verdict
    'fails'

    Raises:
        ValueError: an unknown name; the message has the nearest known one.
    """
    known = checks.known_name("claim", name, claim_names())
    found = importlib.import_module(f"{folder.__name__}.{known}").CLAIM
    assert isinstance(found, Claim)
    return found
