"""PNPO: the geometric mean of the ratios so far, inside a gate that narrows along the sequence."""

from __future__ import annotations

from typing import Any

from theory import checks
from theory.weights.options import check_flag
from theory.weights.positions import position
from theory.weights.registry import Card, Parts, register
from theory.weights.tokens import Tokens


def _check(epsilon_low: float, epsilon_high: float, gate: bool) -> None:
    checks.non_negative("epsilon_low", epsilon_low)
    checks.non_negative("epsilon_high", epsilon_high)
    check_flag("gate", gate)


@register(
    Card(
        name="pnpo",
        summary="The geometric mean of the ratios so far, where it lies in a gate that narrows along the sequence.",
        formula="c_t = w_t 1(1 - epsilon_low h <= w_t <= 1 + epsilon_high h), w_t = C_t^(1/t), h = sqrt(L/t), t "
        "counted from 1 over the tokens that count; without the gate c_t = w_t",
        source="PNPO, Zhang et al. 2026, arXiv 2608.01418",
        defaults="epsilon_low=7e-4, epsilon_high=9.5e-4 and gate=True, the paper's.",
        aliases=("PNPO", "TEPO Sentence Prefix IS (gate=False)", "Sentence Prefix IS"),
        caution="Biased on purpose: w_t is no density ratio for t > 1. It is `token` at the first token and "
        "`geometric` at the last. The gate looks at no advantage, and a token outside does not close it for later "
        "ones. Tokens outside still count in the mean over tokens. What `theory.decompose` calls truncation holds the "
        "root and the gate.",
    ),
    check=_check,
    parts=Parts("full"),
)
def pnpo(tokens: Tokens, *, epsilon_low: float = 7e-4, epsilon_high: float = 9.5e-4, gate: bool = True) -> Any:
    """c_t = C_t^(1/t) inside the gate, else 0."""
    xp, t = tokens.xp, position(tokens)
    mean = xp.exp((tokens.log_prefix + tokens.log_ratio) / t)
    if not gate:
        return mean
    h = xp.sqrt(tokens.length / t)
    return xp.where((mean >= 1.0 - epsilon_low * h) & (mean <= 1.0 + epsilon_high * h), mean, xp.zeros_like(mean))
