"""TRM: whole responses kept while the policies are close at all of their states."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_limit
from theory.weights.registry import Card, register
from theory.weights.sequence_mask import statistic_of
from theory.weights.tokens import Tokens


def _check(largest: float | None, mean: float | None) -> None:
    check_limit("largest", largest, "a bound of the largest divergence", optional=True)
    check_limit("mean", mean, "a bound of the mean divergence", optional=True)


def _bounds(largest: float | None, mean: float | None) -> dict[str, float]:
    """statistic -> its bound, for those that have one."""
    return {name: b for name, b in (("largest_kl", largest), ("mean_kl", mean)) if b is not None}


@register(
    Card(
        name="trm",
        summary="Every token's own ratio in a response whose divergences are all small; nothing in any other response.",
        formula="c_t = rho_t 1(max over j of D_j <= largest) 1(mean over j of D_j <= mean), D_j = KL(mu(.|s_j) || "
        "pi(.|s_j)); a bound of None is no bound",
        source="TRM, arXiv 2512.23075",
        defaults="largest=0.05 (TRM-Max) and mean=0.001 (TRM-Avg): the paper's, both at once.",
        aliases=("TRM-Max (mean=None)", "TRM-Avg (largest=None)", "trust region masking"),
        caution="The divergence is exact and of the whole distribution at each state the response visits, in nats, not "
        "an estimate from its tokens. A response is dropped for what comes after a token too, so baselines leak. The "
        "ratios of what is kept are not bounded: only their states' divergences are. One bound alone is "
        "`sequence_mask` with statistic='largest_kl' or 'mean_kl' and tokens='token'.",
    ),
    baseline_invariant=lambda largest, mean: all(map(math.isinf, _bounds(largest, mean).values())),
    check=_check,
    needs=("kl",),
)
def trm(tokens: Tokens, *, largest: float | None = 0.05, mean: float | None = 0.001) -> Any:
    """c_t = rho_t where the response's largest and mean divergence are within their bounds, else 0."""
    xp, result = tokens.xp, tokens.ratio
    for statistic, bound in _bounds(largest, mean).items():
        result = xp.where(statistic_of(tokens, statistic) <= bound, result, xp.zeros_like(result))
    return result
