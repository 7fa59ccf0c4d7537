"""An audit as plain numbers, lists and names, for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from testbed.auditing.matching import Match
from testbed.auditing.record import Audit


def as_dict(audit: Audit) -> dict[str, Any]:
    """Every field, without the loss itself."""
    m = audit.moments
    moments = {
        "mean": m.mean, "gradient": m.gradient, "bias": m.bias, "variance": m.variance,
        "relative_bias": m.relative_bias, "cosine": m.cosine, "effective_step": m.effective_step,
        "lost_mass": m.lost_mass,
        "engine": m.engine, "trajectories_per_draw": m.trajectories_per_draw, "draws": m.draws,
        "standard_error": m.standard_error, "variance_standard_error": m.variance_standard_error,
    }  # fmt: skip
    result = {
        "loss": audit.loss,
        "takes": audit.takes,
        "options": audit.options,
        "setting": audit.setting,
        "moments": moments,
        "baseline_leak": audit.baseline_leak,
        "relative_leak": audit.relative_leak,
        "causes": audit.causes,
        "equals": [_match(match) for match in audit.equals],
        "nearest": _match(audit.nearest),
        "presets": audit.presets,
        "per_token_advantages": audit.per_token_advantages,
        "tokens": [asdict(token) for token in audit.tokens],
        "mask": _fields(audit.mask),
        "advantages": _fields(audit.advantages),
        "level": _fields(audit.level),
        "coupling": audit.coupling and {**asdict(audit.coupling), "couples": audit.coupling.couples},
        "micro_batches": _fields(audit.micro_batches),
        "robustness": [
            {"name": case.name, "finite": case.finite, "outcome": case.outcome, "sequence": case.sequence,
             "token": case.token} for case in audit.robustness
        ],
        "findings": [
            {"identifier": f.identifier, "fault": f.fault, "sentence": f.sentence, "evidence": dict(f.evidence)}
            for f in audit.findings
        ],
        "tried": audit.tried,
        "expected": _match(audit.expected),
    }  # fmt: skip
    return {name: _plain(value) for name, value in result.items()}


def _fields(record: Any) -> dict[str, Any] | None:
    return None if record is None else asdict(record)


def _match(match: Match | None) -> dict[str, Any] | None:
    if match is None:
        return None
    return {
        "name": match.weight.name, "options": match.weight.options, "anchor": match.anchor, "score": match.score,
        "reduction": match.reduction, "constant": match.constant, "equal": match.equal, "label": match.label,
        "tolerance": match.tolerance,
        "distance": match.distance, "largest_difference": match.largest,
        "first_difference": None if match.difference is None else asdict(match.difference),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
