"""What people run: environments, controlled drift, sweeps, audits. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.auditing import FINDINGS, Audit, Finding, audit
    from testbed.baseline_choice.exact import BaselineErrors, baseline_errors
    from testbed.baseline_choice.regret import BaselineRegret, RegretSummary, baseline_regrets, regret_table
    from testbed.environments import Environment, environment, environment_cards
    from testbed.ledger import Claim, Settled, claim, claim_names, verify
    from testbed.per_agent import AgentMoments, agent_gradients, agent_moments, drift_agents, joint_policy
    from testbed.prediction.cells import PredictionCell, prediction_cells
    from testbed.prediction.counterexample import BlindSpot, blind_spot
    from testbed.prediction.ranking import DiagnosticPrediction, diagnostic_ranking
    from testbed.sweep import Choice, Sweep, SweepResult, default_sweep, read_table, run_sweep, summarise
    from testbed.versions import MixedVersions, mixed_versions

# Public name -> the module that defines it. Lazy (PEP 562), so that `import testbed` costs nothing and the command line
# answers at once: gymnasium, matplotlib and torch are imported by those who need them.
_HOME = {
    "FINDINGS": "testbed.auditing",
    "Audit": "testbed.auditing",
    "Finding": "testbed.auditing",
    "audit": "testbed.auditing",
    "BaselineErrors": "testbed.baseline_choice.exact",
    "baseline_errors": "testbed.baseline_choice.exact",
    "BaselineRegret": "testbed.baseline_choice.regret",
    "RegretSummary": "testbed.baseline_choice.regret",
    "baseline_regrets": "testbed.baseline_choice.regret",
    "MixedVersions": "testbed.versions",
    "mixed_versions": "testbed.versions",
    "regret_table": "testbed.baseline_choice.regret",
    "Environment": "testbed.environments",
    "environment": "testbed.environments",
    "environment_cards": "testbed.environments",
    "Claim": "testbed.ledger",
    "Settled": "testbed.ledger",
    "claim": "testbed.ledger",
    "claim_names": "testbed.ledger",
    "verify": "testbed.ledger",
    "AgentMoments": "testbed.per_agent",
    "agent_gradients": "testbed.per_agent",
    "agent_moments": "testbed.per_agent",
    "drift_agents": "testbed.per_agent",
    "joint_policy": "testbed.per_agent",
    "BlindSpot": "testbed.prediction.counterexample",
    "blind_spot": "testbed.prediction.counterexample",
    "DiagnosticPrediction": "testbed.prediction.ranking",
    "diagnostic_ranking": "testbed.prediction.ranking",
    "PredictionCell": "testbed.prediction.cells",
    "prediction_cells": "testbed.prediction.cells",
    "Choice": "testbed.sweep",
    "Sweep": "testbed.sweep",
    "SweepResult": "testbed.sweep",
    "default_sweep": "testbed.sweep",
    "read_table": "testbed.sweep",
    "run_sweep": "testbed.sweep",
    "summarise": "testbed.sweep",
}

__all__ = [
    "FINDINGS",
    "AgentMoments",
    "Audit",
    "BaselineErrors",
    "BaselineRegret",
    "BlindSpot",
    "Choice",
    "Claim",
    "DiagnosticPrediction",
    "Environment",
    "Finding",
    "MixedVersions",
    "PredictionCell",
    "RegretSummary",
    "Settled",
    "Sweep",
    "SweepResult",
    "agent_gradients",
    "agent_moments",
    "audit",
    "baseline_errors",
    "baseline_regrets",
    "blind_spot",
    "claim",
    "claim_names",
    "default_sweep",
    "diagnostic_ranking",
    "drift_agents",
    "environment",
    "environment_cards",
    "joint_policy",
    "mixed_versions",
    "prediction_cells",
    "read_table",
    "regret_table",
    "run_sweep",
    "summarise",
    "verify",
]


_MODULES = ("drift", "environments")
"""Modules of public names of their own, so that `testbed.drift.at` needs no import beside that of testbed."""


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name in _MODULES:
        return importlib.import_module(f"testbed.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'testbed' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
