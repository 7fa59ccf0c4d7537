"""One run of all claims, shared by the tests."""

import pytest

from testbed.ledger import verify


@pytest.fixture(scope="session")
def ledger():
    return verify(workers=2)


@pytest.fixture(scope="session")
def settled(ledger):
    return {entry.name: entry for entry in ledger}
