"""A gate on the prefix: tokens whose prefix has drifted too far are dropped, the others carry their own ratio."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.weights.options import bounds_nothing, check_bounds, check_flag
from theory.weights.positions import position
from theory.weights.products import log_minimum
from theory.weights.registry import Array, Card, Factors, register
from theory.weights.tokens import Tokens

STATISTICS = ("geometric", "minimum", "product")


def _check(statistic: str, interval: tuple[float, float], inclusive: bool) -> None:
    if statistic not in STATISTICS:
        raise ValueError(f"statistic is {statistic!r}; expected {', '.join(map(repr, STATISTICS))}")
    check_bounds("interval", interval)
    check_flag("inclusive", inclusive)


def _factors(
    log_ratio: Array, length: int, *, statistic: str, interval: tuple[float, float], inclusive: bool
) -> Factors | None:
    if statistic != "minimum":
        return None
    ratio, (low, high) = np.exp(log_ratio), interval

    def own(stat: Array, advantage: Array) -> Array:
        here = ratio[:, :, None]
        least = np.minimum(stat, here) if inclusive else np.where(np.isinf(stat), 1.0, stat)
        return np.where((least >= low) & (least <= high), here, 0.0)

    # +inf is what the minimum over no token is: a ratio that overflows must not be taken for that.
    return Factors(None, own, key=np.minimum(ratio, np.finfo(np.float64).max))


@register(
    Card(
        name="prefix_mask",
        summary="The token's own ratio where a statistic of its prefix lies in an interval; zero elsewhere.",
        formula="c_t = rho_t 1(low <= x_t <= high), x_t = C_t^(1/t), t counted from 1 over the tokens that count; "
        "with statistic='minimum': min over j <= t of rho_j; with 'product': C_t. With inclusive=False over earlier "
        "tokens only, x = 1 where there is none",
        source="statistic='geometric': reinforce_pro of a fork of OpenRLHF (richardodliu/OpenRLHF); 'minimum': "
        "Prefix-Ratio GRPO (FARS/analemma 2026), a workshop-style report",
        defaults="statistic='geometric' and inclusive=True: reinforce_pro's code; interval=(0.5, 5.0): OpenRLHF's "
        "default thresholds, which it shares.",
        aliases=("reinforce_pro", "OpenRLHF vllm_is_correction_type=reinforce_pro", "Prefix-Ratio GRPO"),
        caution="reinforce_pro multiplies PPO's clipped term by this, over the policy of the start of the update: "
        "`decoupled` with behaviour='prefix_mask'. Whether the minimum of Prefix-Ratio GRPO runs over j <= t or j < t "
        "is not known from public sources: inclusive says which. The product has no known source and is there to "
        "compare. A gate on earlier tokens alone lets baselines drop out, one that looks at the token itself leaks.",
    ),
    factors=_factors,
    baseline_invariant=lambda statistic, interval, inclusive: not inclusive or bounds_nothing(interval),
    check=_check,
)
def prefix_mask(
    tokens: Tokens,
    *,
    statistic: str = "geometric",
    interval: tuple[float, float] = (0.5, 5.0),
    inclusive: bool = True,
) -> Any:
    """c_t = rho_t where the prefix's statistic lies in the interval, else 0."""
    xp, (low, high) = tokens.xp, interval
    x = xp.exp(_log_statistic(tokens, statistic, inclusive))
    return xp.where((x >= low) & (x <= high), tokens.ratio, xp.zeros_like(x))


def _log_statistic(tokens: Tokens, statistic: str, inclusive: bool) -> Any:
    if statistic == "minimum":
        return log_minimum(tokens, inclusive=inclusive)
    log_product = tokens.log_prefix + tokens.log_ratio if inclusive else tokens.log_prefix
    if statistic == "product":
        return log_product
    t = position(tokens)
    count = t if inclusive else tokens.xp.maximum(t - 1.0, tokens.xp.ones_like(t))
    return log_product / count
