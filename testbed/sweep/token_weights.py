"""What the weights of the single tokens look like under the behaviour policy, exactly: mean, median, share of zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import theory
from theory.diagnostic.coefficients import weight_statistics
from theory.engines.enumeration import count_trajectories, enumerate_blocks
from theory.engines.problem import Problem, checked_ratios
from theory.engines.trajectories import Block, Walk, coefficients, token_signals
from theory.policy import Ratios
from theory.signals import Ones, ResolvedSignal, resolve
from theory.value_functions import occupancies

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
    share: NDArray[np.float64]
    """Of each token that acts, (number of them,); sums to one."""


def tokens_of(
    process: theory.MarkovProcess, target: theory.SoftmaxPolicy, behaviour: theory.SoftmaxPolicy, **beside: Any
) -> Tokens | None:
    """All tokens, or None where there are too many; `beside` are `old` and `lag`, as for `theory.moments`."""
    if count_trajectories(process, behaviour) > MOST_TRAJECTORIES:
        return None
    [(walk, block)] = enumerate_blocks(process, behaviour, most_rows=2 * MOST_TRAJECTORIES)
    table = checked_ratios(process, target, behaviour, True, **beside)
    share = np.broadcast_to(block.probability[:, None], block.acting.shape)[block.acting]
    return Tokens(process, target, behaviour, walk, block, table, share / share.sum())


@lru_cache(maxsize=64)
def token_weights(tokens: Tokens, weight: theory.Weight, signal: Any) -> TokenWeights:
    """Statistics of a weight; `signal` decides them only where the weight looks at the sign of the advantage.

    NaN where the sign is that of a group-relative advantage, or of one minus a baseline that has to be solved for. Each
    trajectory is a draw of its own: of weights that couple a batch this is what they are in a batch of one.
    """
    t, advantage = tokens, None
    signals: tuple[ResolvedSignal, ...] = ()
    if weight.uses_advantage:
        if not _has_sign(signal):
            return UNKNOWN
        signals = (resolve(signal, t.process, t.target, t.behaviour),)
    problem = Problem(t.process, t.target, t.behaviour, t.ratios, weight, signals)
    if signals:
        advantage = token_signals(t.walk, t.block, problem)[0]
    c = coefficients(t.walk, t.block, problem, advantage)[t.block.acting]
    order = np.argsort(c, kind="stable")
    # Half of the tokens, less the rounding of their sum.
    middle = int(np.searchsorted(np.cumsum(tokens.share[order]), 0.5 - 1e-12))
    return TokenWeights(
        mean=float(tokens.share @ c),
        median=float(c[order[min(middle, order.size - 1)]]) if order.size else math.nan,
        share_zero=float(tokens.share[c == 0.0].sum()),
    )


def expected_token_weights(
    process: theory.MarkovProcess,
    target: theory.SoftmaxPolicy,
    behaviour: theory.SoftmaxPolicy,
    weight: theory.Weight,
    signal: Any,
    beside: Mapping[str, Any],
) -> TokenWeights:
    """Mean and share of zeros at any length, for weights that the recursion can take; a median it cannot give."""
    resolved = ResolvedSignal("table", Ones())
    if weight.uses_advantage:
        if not _has_sign(signal):
            return UNKNOWN
        resolved = resolve(signal, process, target, behaviour)
    table = checked_ratios(process, target, behaviour, True, **beside)
    visits = np.where(process.absorbing, 0.0, occupancies(process, behaviour)[:-1])
    found = weight_statistics(Problem(process, target, behaviour, table, weight, (resolved,)), float(visits.sum()))
    if not found:
        return UNKNOWN
    return TokenWeights(found["weight_mean"], math.nan, found["weight_share_zero"])


def _has_sign(signal: Any) -> bool:
    """Whether a signal's sign is known token by token before any group or baseline is solved for."""
    return isinstance(signal, theory.Signal) and signal.baseline != "optimal"
