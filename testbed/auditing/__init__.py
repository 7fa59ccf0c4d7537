"""Bring your own loss: its exact expected gradient, the named estimator it equals, and its mistakes."""

from testbed.auditing.findings import FINDINGS
from testbed.auditing.record import Audit, Finding
from testbed.auditing.running import audit

__all__ = ["FINDINGS", "Audit", "Finding", "audit"]
