"""Which code and libraries a run comes from: a run that was begun by others is not gone on with."""

from __future__ import annotations

from testbed.sweep.provenance import code_fingerprint

SOURCES = (
    "arithmetic/caching.py",
    "arithmetic/exact.py",
    "arithmetic/model.py",
    "arithmetic/network_policy.py",
    "arithmetic/per_trajectory.py",
    "arithmetic/rollout.py",
    "arithmetic/sampling.py",
    "arithmetic/splitting.py",
    "arithmetic/task.py",
    "arithmetic/training",
    "arithmetic/tree.py",
    "arithmetic/trees.py",
    "arithmetic/verifier.py",
    "arithmetic/vocabulary.py",
    "arithmetic/warmup.py",
    "spelling.py",
)
"""The code of testbed that decides a run's numbers."""
LIBRARIES = ("torch",)


def training_code() -> str:
    """A hash of that code, of theory, and of the libraries."""
    return code_fingerprint(SOURCES, LIBRARIES)
