"""Exact statistics of a weight's coefficients over the tokens of mu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.diagnostic.tokens import deviation, effective_sample_size
from theory.engines.enumeration import count_trajectories, enumerate_blocks
from theory.engines.expected import exact_engine, expected_coefficients
from theory.engines.problem import EngineRefusal, Problem
from theory.engines.trajectories import coefficients, token_signals
from theory.weights.registry import Factors, Weight

Array = NDArray[np.float64]
Map = Callable[[Any], Any]

# Larger trees are left out: a diagnostic must not cost more than the moments it stands beside.
MOST_TRAJECTORIES = 200_000
_BLOCK_ROWS = 50_000


def weight_statistics(problem: Problem, tokens: float) -> dict[str, float]:
    """Mean, deviation, effective sample size and share of zeros of c; `tokens` is E_mu[L].

    By the recursion where the weight factorises: c^2 and 1{c != 0} factorise as c does, factor by factor. Otherwise by
    enumeration, and empty where the tree is too large or a weight's coefficients depend on the rest of a batch.
    """
    if problem.weight.family.couples_batch:
        return {}
    small = count_trajectories(problem.process, problem.behaviour) <= MOST_TRAJECTORIES
    try:
        engine = exact_engine(problem, "auto")
    except EngineRefusal:
        return {}
    result = {"weight_share_sequences_zero": _share_sequences_zero(problem)} if small else {}
    if engine == "enumeration" and not small:
        return {}
    maps: list[Map] = [lambda c: c, lambda c: c**2, lambda c: (c != 0.0) * 1.0]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, second, used = (
            float(expected_coefficients(replace(problem, weight=mapped(problem.weight, f)), engine).sum()) / tokens
            for f in maps
        )
    return {
        **result,
        "weight_mean": mean,
        "weight_std": deviation(mean, second),
        "weight_effective_sample_size": effective_sample_size(mean, second),
        # Rounding of the sum of all chances is no masked token.
        "weight_share_zero": 0.0 if abs(1.0 - used) < 1e-12 else 1.0 - used,
    }


def mapped(weight: Weight, function: Map) -> Weight:
    """The weight with coefficients function(c), for a function with function(x y) = function(x) function(y)."""
    family = weight.family

    def values(tokens: Any, **options: Any) -> Any:
        return function(family.function(tokens, **options))

    def factors(log_ratio: Array, length: int, *given: Any, **options: Any) -> Factors | None:
        f = None if family.factors is None else family.factors(log_ratio, length, *given, **options)
        if f is None:
            return None
        own, of_step = f.own, f.own_of_step
        return Factors(
            None if f.before is None else function(f.before),
            lambda stat, advantage: function(own(stat, advantage)),
            None if f.after is None else function(f.after),
            f.key,
            None if of_step is None else lambda t, stat, advantage: function(of_step(t, stat, advantage)),
        )

    return Weight(replace(family, function=values, factors=factors), weight.options)


def _share_sequences_zero(problem: Problem) -> float:
    zero = total = 0.0
    for walk, block in enumerate_blocks(problem.process, problem.behaviour, _BLOCK_ROWS):
        advantage = token_signals(walk, block, problem)[0] if problem.weight.uses_advantage else None
        c = coefficients(walk, block, problem, advantage)
        has_token = block.acting.any(axis=1)
        zero += float(block.probability[has_token & (c == 0.0).all(axis=1)].sum())
        total += float(block.probability[has_token].sum())
    return zero / total
