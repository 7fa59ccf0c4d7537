"""What one cell computes. This is the part that runs in worker processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import theory
from testbed import drift
from testbed.sweep import building
from testbed.sweep.columns import mse_column
from testbed.sweep.tasks import Cell, Pair
from testbed.sweep.token_weights import (
    UNKNOWN,
    Tokens,
    TokenWeights,
    expected_token_weights,
    token_weights,
    tokens_of,
)

# Beyond this many moves (a few hundredths of a second) the total variation of trajectories is left NaN.
TOTAL_VARIATION_MOVES = 500_000


class Outcome(NamedTuple):
    """What became of one task."""

    key: str
    values: Mapping[str, Any] | None
    """Column -> value; None where the task failed."""
    error: str | None
    """One sentence; None where the task succeeded."""
    seconds: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """A process with its pair of policies, shared by the cells that differ in the estimator only."""

    process: theory.MarkovProcess
    target: theory.SoftmaxPolicy
    behaviour: theory.SoftmaxPolicy | None
    """None where the drift cannot give the divergence."""
    values: Mapping[str, Any]
    beside: Mapping[str, Any] = field(default_factory=dict)
    """`old` and `lag` for weights that look at them, or nothing."""
    tokens: Tokens | None = None
    """Every token, where they are few enough."""


def compute(batch: list[Cell]) -> list[Outcome]:
    """The outcome of each cell; an exception in one does not touch the others."""
    # Two threads on small matrices are slower than one, and a sum in another order would change the last digit.
    with threadpool_limits(limits=1):
        return [_outcome(cell) for cell in batch]


def _outcome(cell: Cell) -> Outcome:
    start = perf_counter()
    try:
        values, error = cell_values(cell), None
    except Exception as problem:  # whatever it is, it is this cell's alone
        values, error = None, " ".join(f"{type(problem).__name__}: {problem}".split())
    return Outcome(cell.key, values, error, perf_counter() - start)


def cell_values(cell: Cell) -> dict[str, Any]:
    """The row of one cell, settings included; NaN where a number does not exist."""
    prepared = _prepared(cell.pair)
    weight, signal = _weight_of(cell.weight), building.signal_of(cell.signal)
    reduction = building.reduction_of(cell.reduction)
    names = {
        "environment": cell.pair.environment.name,
        "environment_options": cell.pair.environment.options_text,
        "drift": cell.pair.drift.name,
        "drift_options": cell.pair.drift.without("seed").options_text,
        "weight": weight.label,
        "signal": signal.label,
        "score": cell.score,
        "reduction": cell.reduction.label,
        "old": "" if cell.pair.old == "none" else cell.pair.old,
        "seed": cell.pair.seed,
        "kl_target": cell.pair.kl,
    }
    row = {**names, **prepared.values}
    if prepared.behaviour is None:
        return row
    estimator = theory.Estimator(weight=weight, signal=signal, score=cell.score, reduction=reduction)  # type: ignore[arg-type]
    m = theory.moments(
        prepared.process, prepared.target, prepared.behaviour, estimator, engine=cell.engine, missing_support="allow",
        trajectories=cell.sampled_trajectories, seed=cell.sampling_seed, **prepared.beside,
    )  # fmt: skip
    return {
        **row,
        **moment_values(m, cell.trajectories),
        **_weight_values(prepared, weight, signal, m.trajectories_per_draw),
    }


def moment_values(m: theory.Moments, trajectories: tuple[int, ...]) -> dict[str, Any]:
    """The columns that come from an estimator's moments."""
    gradient, mean = float(np.linalg.norm(m.gradient)), float(np.linalg.norm(m.mean))
    scale = gradient if gradient > 0.0 else np.nan
    error = 0.0 if m.standard_error is None else float(np.linalg.norm(m.standard_error))
    return {
        "engine": m.engine,
        "gradient_norm": gradient,
        "mean_norm": mean,
        "bias_norm": float(np.linalg.norm(m.bias)),
        "relative_bias": float(m.relative_bias),
        "cosine": float(m.cosine),
        "effective_step": m.effective_step,
        "variance": float(m.variance),
        # A variance of zero can come out as -1e-18.
        "relative_standard_deviation": max(float(m.variance), 0.0) ** 0.5 / scale,
        "trajectories_per_draw": m.trajectories_per_draw,
        "standard_error": error,
        "lost_mass": m.lost_mass,
        "draws": m.draws,
        **{mse_column(n): _relative_error(m, n, scale) for n in trajectories},
    }


def _weight_values(
    prepared: Prepared, weight: theory.Weight, signal: Any, trajectories_per_draw: int
) -> dict[str, float]:
    of_signal = signal if weight.uses_advantage else None
    if weight.family.couples_batch and trajectories_per_draw > 1:
        # What a token weighs then depends on the other trajectories of the draw, and `Tokens` has one at a time.
        found = UNKNOWN
    elif prepared.tokens is None:
        found = _expected_weights(prepared, weight, of_signal)
    else:
        found = token_weights(prepared.tokens, weight, of_signal)
    return {"mean_weight": found.mean, "median_weight": found.median, "share_zero_weight": found.share_zero}


@lru_cache(maxsize=64)
def _expected_weights(prepared: Prepared, weight: theory.Weight, signal: Any) -> TokenWeights:
    p, behaviour = prepared, prepared.behaviour
    assert behaviour is not None
    return expected_token_weights(p.process, p.target, behaviour, weight, signal, p.beside)


def _relative_error(m: theory.Moments, trajectories: int, scale: float) -> float:
    # There is no part of a group or of a coupled batch.
    whole = trajectories % m.trajectories_per_draw == 0
    return m.mean_squared_error(trajectories=trajectories) / scale**2 if whole else math.nan


# One object per weight, so that its statistics are cached by identity.
_weight_of = lru_cache(maxsize=64)(building.weight_of)


@lru_cache(maxsize=8)
def _prepared(pair: Pair) -> Prepared:
    built = building.environment_of(pair.environment)
    process, policy = built.process, built.target
    sizes: dict[str, Any] = {
        "horizon": process.horizon,
        "states": process.states,
        "actions": process.actions,
        "parameters": policy.parameter_count,
    }
    if pair.drift.name == building.GIVEN:
        assert built.behaviour is not None, "only environments with a behaviour policy have cells of this drift"
        return _with_divergences(process, policy, built.behaviour, {**sizes, "strength": math.nan}, pair.old)
    kind, options = pair.drift.name, pair.drift.options
    try:
        if pair.kl is None:
            drifted = drift.measured(kind, process, policy, per=pair.per, **options)
        else:
            drifted = drift.at(kind, process, policy, kl=pair.kl, per=pair.per, **options)
    except drift.UnreachableError as error:
        above = math.nan if error.above is None else error.above[1]
        reach = {"kl_maximum": error.maximum, "kl_below": error.below[1], "kl_above": above}
        return Prepared(process, policy, None, {**sizes, "status": "unreachable", **reach})
    sizes |= {"strength": drifted.strength}
    return _with_divergences(process, drifted.target, drifted.behaviour, sizes, pair.old)


def _with_divergences(
    process: theory.MarkovProcess,
    target: theory.SoftmaxPolicy,
    behaviour: theory.SoftmaxPolicy,
    values: dict[str, Any],
    old: str,
) -> Prepared:
    d = theory.divergences(process, target, behaviour, moves=TOTAL_VARIATION_MOVES)
    values |= {
        "status": "ok",
        "kl_token": d.token.kl_behaviour_target,
        "kl_sequence": d.sequence.kl_behaviour_target,
        "expected_return_target": theory.values(process, target).expected_return,
        "expected_return_behaviour": theory.values(process, behaviour).expected_return,
        "total_variation_sequence": d.sequence.total_variation,
        "chi_square_token": d.token.chi_square,
        "chi_square_sequence": d.sequence.chi_square,
        "ess_token": d.token.effective_sample_size,
        "ess_sequence": d.sequence.effective_sample_size,
        "support_bias": _support_bias(process, target, behaviour) if d.sequence.lost_mass > 0.0 else 0.0,
    }
    plain = {k: v if isinstance(v, (str, int)) else float(v) for k, v in values.items()}
    beside = building.beside(old, target, behaviour)
    return Prepared(process, target, behaviour, plain, beside, tokens_of(process, target, behaviour, **beside))


def _support_bias(
    process: theory.MarkovProcess, target: theory.SoftmaxPolicy, behaviour: theory.SoftmaxPolicy
) -> float:
    """Size of the term "support" of `theory.decompose`, over |g|."""
    true = theory.Estimator("prefix", "target_advantage")
    return theory.moments(process, target, behaviour, true, missing_support="allow").relative_bias
