"""M2PO: PPO's clip with bounds that the batch sets, by a budget for the second moment of its log-ratios."""

from __future__ import annotations

from typing import Any

from theory.weights.clipping import has_gradient
from theory.weights.options import bounds_nothing, check_budget, check_trust_region
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(budget: float, clip: tuple[float, float]) -> None:
    check_budget("budget", budget)
    check_trust_region("clip", clip)


@register(
    Card(
        name="m2po",
        summary="PPO's clip, as wide as a budget for the mean squared log-ratio of the batch's harmful tokens allows.",
        formula="c_t = rho_t, but 0 where A_t > 0 and rho_t > high, and where A_t < 0 and rho_t < low, with low = "
        "min(clip[0], e^-tau), high = max(clip[1], e^tau), tau the largest with: mean over harmful tokens of "
        "min(l_t^2, tau^2) <= budget",
        source="M2PO, Zheng et al. 2025, arXiv 2510.01161, in the form of its authors' code",
        defaults="budget=0.04, the paper's; clip=(0.7, 1.5), the narrowest bounds, those of the authors' code.",
        aliases=("M2PO", "second-moment trust policy optimization"),
        caution="Couples the batch: a trajectory alone gets the bounds of a batch of one. The reading taken here: "
        "harmful are the tokens with A > 0, rho > 1 or A < 0, rho < 1, and both the sum and the count of the mean are "
        "theirs (a mean over all tokens would be looser). Without a harmful token nothing is clipped. The paper's text "
        "and AReaL instead drop the largest tokens until the mean of the rest is within budget.",
    ),
    uses_advantage=True,
    baseline_invariant=lambda budget, clip: bounds_nothing(clip),
    couples_batch=True,
    check=_check,
)
def m2po(tokens: Tokens, *, budget: float = 0.04, clip: tuple[float, float] = (0.7, 1.5)) -> Any:
    """c_t = rho_t where the objective, clipped at the batch's own bounds, has a gradient, else 0."""
    xp, ratio, advantage = tokens.xp, tokens.ratio, tokens.advantage
    harmful = ((advantage > 0) & (tokens.log_ratio > 0)) | ((advantage < 0) & (tokens.log_ratio < 0))
    square = xp.where(harmful, tokens.log_ratio**2, xp.zeros_like(ratio))
    tau = tokens.each_sequence(largest_threshold(xp, tokens.by_batch(square), tokens.by_batch(harmful), budget))
    low = xp.clip(xp.exp(-tau), None, clip[0])
    high = xp.clip(xp.exp(tau), clip[1], None)
    return xp.where(has_gradient(ratio, advantage, low, high), ratio, xp.zeros_like(ratio))


def largest_threshold(xp: Any, square: Any, harmful: Any, budget: float) -> Any:
    """The largest tau with sum of min(square, tau^2) <= budget * (number of harmful tokens), per row, shape (B, 1).

    `square` is (B, M), zero where not harmful, +inf allowed; tau is +inf where the budget does not bind.
    """
    width = square.shape[1]
    ordered = xp.sort(square, axis=1)
    allowed = budget * xp.sum(xp.astype(harmful, square.dtype), axis=1, keepdims=True)
    smaller = xp.concat([xp.zeros_like(ordered[:, :1]), xp.cumulative_sum(ordered, axis=1)[:, :-1]], axis=1)
    not_smaller = width - xp.cumulative_sum(xp.ones_like(ordered), axis=1) + 1.0
    # With tau^2 at the k-th smallest square, the capped squares sum to smaller_k + (number not smaller) square_k. That
    # grows with k: the squares that fit are the first ones, and the rest share what these leave of the budget.
    fits = smaller + not_smaller * ordered <= allowed
    spent = xp.sum(xp.where(fits, ordered, xp.zeros_like(ordered)), axis=1, keepdims=True)
    rest = width - xp.sum(xp.astype(fits, square.dtype), axis=1, keepdims=True)
    share = (allowed - spent) / xp.maximum(rest, xp.ones_like(rest))
    return xp.where(rest > 0, xp.sqrt(xp.clip(share, 0.0, None)), xp.full_like(rest, float("inf")))
