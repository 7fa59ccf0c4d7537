"""What the weights of the single tokens look like under the behaviour policy, exactly: mean, median, share of zeros."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import theory
from theory.engines.enumeration import count_trajectories, enumerate_blocks
from theory.engines.problem import Problem
from theory.engines.trajectories import Block, Walk, token_signals
from theory.policy import Ratios, ratios
from theory.signals import resolve

# Larger trees are left out (NaN): these columns are a by-product and must not cost more than the moments.
MOST_TRAJECTORIES = 50_000


class TokenWeights(NamedTuple):
    """Statistics of c_t over the tokens that mu generates: each token counts with its probability, over E_mu[L]."""

    mean: float
    """E_mu[sum over t of c_t] / E_mu[L]."""
    median: float
    """The smallest weight that at least half of the tokens do not exceed."""
    share_zero: float
    """Share of tokens with weight zero: masked or clipped away."""


UNKNOWN = TokenWeights(math.nan, math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Every token of every trajectory of a pair of policies."""

    process: theory.MarkovProcess
    target: theory.SoftmaxPolicy
    behaviour: theory.SoftmaxPolicy
    walk: Walk
    block: Block
    ratios: Ratios
    log_ratio: NDArray[np.float64]
    share: NDArray[np.float64]
    """Of each token that acts, (number of them,); sums to one."""


def tokens_of(
    process: theory.MarkovProcess, target: theory.SoftmaxPolicy, behaviour: theory.SoftmaxPolicy
) -> Tokens | None:
    """All tokens, or None where there are too many."""
    if count_trajectories(process, behaviour) > MOST_TRAJECTORIES:
        return None
    [(walk, block)] = enumerate_blocks(process, behaviour, most_rows=2 * MOST_TRAJECTORIES)
    table = ratios(target, behaviour)
    log_ratio = np.where(block.acting, table.log_ratio[walk.state[block.edge], walk.action[block.edge]], 0.0)
    share = np.broadcast_to(block.probability[:, None], block.acting.shape)[block.acting]
    return Tokens(process, target, behaviour, walk, block, table, log_ratio, share / share.sum())


@lru_cache(maxsize=64)
def token_weights(tokens: Tokens, weight: theory.Weight, signal: Any) -> TokenWeights:
    """Statistics of a weight; `signal` decides them only where the weight looks at the sign of the advantage.

    NaN where the sign is that of a group-relative advantage, or of one minus a baseline that has to be solved for.
    """
    advantage = None
    if weight.uses_advantage:
        if not isinstance(signal, theory.Signal) or signal.baseline == "optimal":
            return UNKNOWN
        t = tokens
        problem = Problem(
            t.process,
            t.target,
            t.behaviour,
            t.ratios,
            weight,
            (resolve(signal, t.process, t.target, t.behaviour),),
            False,
        )
        advantage = token_signals(t.walk, t.block, problem)[0]
    coefficients = weight.coefficients_of_each(tokens.log_ratio, tokens.block.acting, advantage)[tokens.block.acting]
    order = np.argsort(coefficients, kind="stable")
    # Half of the tokens, less the rounding of their sum.
    middle = int(np.searchsorted(np.cumsum(tokens.share[order]), 0.5 - 1e-12))
    return TokenWeights(
        mean=float(tokens.share @ coefficients),
        median=float(coefficients[order[min(middle, order.size - 1)]]) if order.size else math.nan,
        share_zero=float(tokens.share[coefficients == 0.0].sum()),
    )
