"""The ledger: statements that are made about off-policy corrections, each settled by exact numbers."""

from testbed.ledger.record import VERDICTS, Claim, Finding, Recorded, Sampled, Search, Table, deviations
from testbed.ledger.registry import claim, claim_names
from testbed.ledger.running import Settled, settle, verify
from testbed.ledger.writing import write_ledger

__all__ = [
    "VERDICTS",
    "Claim",
    "Finding",
    "Recorded",
    "Sampled",
    "Search",
    "Settled",
    "Table",
    "claim",
    "claim_names",
    "deviations",
    "settle",
    "verify",
    "write_ledger",
]
