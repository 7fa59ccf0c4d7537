"""The ratio of a window of the prefix: the token and the few before it."""

from __future__ import annotations

from typing import Any

from theory import checks
from theory.weights.positions import windowed_sum
from theory.weights.products import product_factors
from theory.weights.registry import Array, Card, Factors, Parts, register
from theory.weights.tokens import Tokens


def _factors(log_ratio: Array, length: int, *, size: int) -> Factors | None:
    return product_factors(log_ratio, length, Parts()) if size == 0 else None


def _check(size: int) -> None:
    checks.whole_number("size", size, 0, "earlier tokens")


@register(
    Card(
        name="window",
        summary="The ratios of the token and of the few before it: a prefix ratio that forgets.",
        formula="c_t = rho_t x product over t - size <= j < t of rho_j",
        source="the window option of SC-GRPO's state weights, a third party's repository",
        defaults="size=5, SC-GRPO's k.",
        aliases=("windowed prefix ratio",),
        caution="For sequences of up to size + 1 tokens it is `prefix`; size=0 is `token`. SC-GRPO clips the ratios to "
        "(0.8, 1.2) before it multiplies them and keeps the weight within (0.2, 5); here they are raw.",
    ),
    factors=_factors,
    # What stands beside the token's own ratio is a function of earlier tokens alone.
    baseline_invariant=True,
    check=_check,
    parts=lambda size: Parts("full" if size else "none"),
)
def window(tokens: Tokens, *, size: int = 5) -> Any:
    """c_t = product over t - size <= j <= t of rho_j."""
    return tokens.xp.exp(windowed_sum(tokens, tokens.log_ratio, int(size) + 1))
