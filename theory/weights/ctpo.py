"""CTPO: the cumulative ratio under PPO's clip, with bounds that widen along the sequence."""

from __future__ import annotations

import math
from typing import Any

from theory import checks
from theory.weights.clipping import has_gradient
from theory.weights.options import check_cap, check_flag, check_number
from theory.weights.positions import position
from theory.weights.registry import Card, Parts, register
from theory.weights.tokens import Tokens

_LARGEST_LOG_RATIO = 20.0


def _check(
    epsilon_low: float, epsilon_high: float, power: float, epsilon_dual: float | None, cap: float, normalised: bool
) -> None:
    checks.non_negative("epsilon_low", epsilon_low)
    checks.non_negative("epsilon_high", epsilon_high)
    check_number("power", power, "an exponent of the position")
    if epsilon_dual is not None:
        checks.non_negative("epsilon_dual", epsilon_dual)
    check_cap("cap", cap)
    check_flag("normalised", normalised)


@register(
    Card(
        name="ctpo",
        summary="The cumulative ratio under PPO's clip and dual clip, whose bounds widen with the position.",
        formula="c_t = C_t, C_t = P_t rho_t with log-ratios clamped to [-20, 20], but 0 where A_t > 0 and C_t > "
        "exp(epsilon_high t^power), where A_t < 0 and C_t < exp(-epsilon_low t^power) or C_t > exp(epsilon_dual "
        "t^power), and where C_t > cap; t counted from 1 over the tokens that count. With normalised: C_t^(1/t) in the "
        "place of C_t",
        source="CTPO, Zhang et al. 2026, arXiv 2605.07331, in the form of its authors' code, whose gradient runs "
        "through token t alone",
        defaults="epsilon_low=0.025, epsilon_high=0.05, power=0.5 and epsilon_dual=0.05: the scripts of the authors' "
        "code; the bounds of the ratio itself are exp(-epsilon_low t^power), exp(epsilon_high t^power) and "
        "exp(epsilon_dual t^power). cap=exp(10), the code's. normalised=False; its geometric-mean variant is "
        "normalised=True, power=-0.5.",
        aliases=("CTPO", "CTPO-LA", "length-adaptive CTPO"),
        caution="The paper calls it unbiased; that holds with the advantage of the target policy only, and before "
        "anything is clipped (`prefix`). As the log-ratio is clamped, an action that the target never takes has weight "
        "e^-20, not 0. Above cap a token is dropped, where other weights keep the cap: the code bounds a logarithm "
        "inside the graph, so that above it there is no gradient; at the defaults the clips come first for up to "
        "40,000 tokens. With epsilon_dual equal to epsilon_high both signs of the advantage lose their gradient above "
        "the same bound.",
    ),
    uses_advantage=True,
    check=_check,
    parts=Parts("full"),
)
def ctpo(
    tokens: Tokens,
    *,
    epsilon_low: float = 0.025,
    epsilon_high: float = 0.05,
    power: float = 0.5,
    epsilon_dual: float | None = 0.05,
    cap: float = math.exp(10.0),
    normalised: bool = False,
) -> Any:
    """c_t = C_t where the objective, clipped at bounds of the position, has a gradient, else 0."""
    xp, t = tokens.xp, position(tokens)
    log_ratio = xp.clip(tokens.log_ratio, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    log_cumulative = xp.cumulative_sum(log_ratio, axis=1)
    ratio = xp.exp(log_cumulative / t if normalised else log_cumulative)
    scale = t**power

    def bound(slope: float) -> Any:
        # A slope of zero is a bound of 1, also where the power overflows.
        return xp.exp(slope * scale) if slope else xp.ones_like(scale)

    threshold = None if epsilon_dual is None else bound(epsilon_dual)
    kept = has_gradient(ratio, tokens.advantage, bound(-epsilon_low), bound(epsilon_high), threshold)
    return xp.where(kept & (ratio <= cap), ratio, xp.zeros_like(ratio))
