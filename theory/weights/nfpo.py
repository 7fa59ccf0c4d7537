"""NFPO's forward trace: the ratio of the token and of the few after it."""

from __future__ import annotations

from typing import Any

from theory import checks
from theory.weights.positions import windowed_sum
from theory.weights.products import product_factors
from theory.weights.registry import Array, Card, Factors, Parts, register
from theory.weights.tokens import Tokens


def _factors(log_ratio: Array, length: int, *, steps: int) -> Factors | None:
    return product_factors(log_ratio, length, Parts()) if steps == 1 else None


def _check(steps: int) -> None:
    checks.whole_number("steps", steps, 1, "tokens")


@register(
    Card(
        name="nfpo",
        summary="The ratios of the token and of the few after it: the continuation is corrected for some steps.",
        formula="c_t = rho_t x product over t < j <= t + steps - 1 of rho_j",
        source="NFPO, Yoon et al. 2026, arXiv 2605.20865: the structure of its N-step trace, read off the surrogate "
        "identity that it starts from",
        defaults="steps=2, the smallest number that differs from the token ratio: no default of the paper is known.",
        aliases=("NFPO", "N-step forward trace"),
        caution="The paper masks this product by a rule that is not known from public sources: here nothing is masked. "
        "steps=1 is `token`; from steps >= L on it is `suffix`. It corrects what follows a token, not the prefix it "
        "stands on.",
    ),
    factors=_factors,
    # The ratios of later tokens integrate to one, whatever their number.
    baseline_invariant=True,
    check=_check,
    parts=lambda steps: Parts("none", "full", "full" if steps > 1 else "none"),
)
def nfpo(tokens: Tokens, *, steps: int = 2) -> Any:
    """c_t = product over t <= j <= t + steps - 1 of rho_j."""
    xp = tokens.xp
    mirrored = tokens._replace(mask=xp.flip(tokens.mask, axis=1))
    return xp.exp(xp.flip(windowed_sum(mirrored, xp.flip(tokens.log_ratio, axis=1), int(steps)), axis=1))
