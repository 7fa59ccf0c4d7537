"""Diagnostics beside exact errors, for many pairs of policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import theory
from testbed import drift
from testbed.environments import environment

# Small enough for milliseconds per cell; the two-token counterexample stands apart, see `blind_spot`.
ENVIRONMENTS = (
    "brackets", "chain", "digit_addition", "frozen_lake", "garnet", "keyword", "modular_sum", "parity",
)  # fmt: skip
DRIFTS = ("noise", "staleness", "temperature", "mixture")


@dataclass(frozen=True)
class PredictionCell:
    """One pair of policies: its diagnostics and the exact errors of the estimator."""

    environment: str
    drift: str
    kl: float
    """KL(mu || pi) per token, asked for and reached, in nats."""
    seed: int | None
    diagnostics: theory.Diagnostics
    relative_bias: float
    cosine: float
    relative_mse: float


def prediction_cells(
    weight: Any = "token",
    signal: Any = "outcome",
    *,
    environments: Sequence[str] = ENVIRONMENTS,
    drifts: Sequence[str] = DRIFTS,
    kl: Sequence[float] = (0.01, 0.05, 0.2),
    seeds: Sequence[int] = (0, 1),
    trajectories: int = 64,
) -> list[PredictionCell]:
    """Diagnostics beside exact errors for every environment x drift x KL (x seed, where the drift draws one).

    Left out: what a drift cannot reach, what no exact engine can take, and a true gradient of zero.

    Raises:
        ValueError: an unknown name.
    """
    estimator = theory.Estimator(weight, signal)
    result = []
    for name in environments:
        task = environment(name)
        for kind in drifts:
            for size in kl:
                for seed in seeds if kind == "noise" else (None,):
                    options: dict[str, Any] = {} if seed is None else {"seed": seed}
                    try:
                        pair = drift.at(kind, task.process, task.target, size, **options)
                    except drift.UnreachableError:
                        continue
                    cell = _cell(task.process, pair, estimator, trajectories)
                    if cell is not None:
                        result.append(replace(cell, environment=name, seed=seed))
    return result


def _cell(
    process: theory.MarkovProcess, pair: drift.Drifted, estimator: theory.Estimator, trajectories: int
) -> PredictionCell | None:
    m = theory.moments(process, pair.target, pair.behaviour, estimator, trajectories=2, missing_support="allow")
    scale = float(m.gradient @ m.gradient)
    if m.engine == "sampling" or not scale > 0.0:
        return None
    diagnostics = theory.diagnostics(process, pair.target, pair.behaviour, estimator.weight, signal=estimator.signal)
    mse = m.mean_squared_error(trajectories) / scale
    return PredictionCell("", pair.kind, pair.kl, None, diagnostics, m.relative_bias, m.cosine, mse)
