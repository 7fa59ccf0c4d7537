"""Examples in docstrings are written as a user would type them, after `import numpy as np, theory, testbed`."""

import numpy as np
import pytest

import testbed
import theory
from theory.weights.registry import FAMILIES


@pytest.fixture(autouse=True)
def names_of_examples(request):
    """Examples of README.md import what they use themselves."""
    if isinstance(request.node, pytest.DoctestItem) and request.node.path.suffix == ".py":
        request.node.dtest.globs.update(np=np, theory=theory, testbed=testbed)
    before = dict(FAMILIES)
    yield
    # What an example registers is gone after it.
    for name in FAMILIES.keys() - before.keys():
        del FAMILIES[name]
