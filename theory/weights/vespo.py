"""VESPO: a bump of the sequence ratio, with its own width for each sign of the advantage."""

from __future__ import annotations

from typing import Any

from theory import checks
from theory.weights.registry import SEQUENCE, Card, register
from theory.weights.tokens import Tokens

_FAR = 20.0  # e^20 is a weight of zero at the default options


def _check(**options: float) -> None:
    for name, value in options.items():
        checks.non_negative(name, value)


@register(
    Card(
        name="vespo",
        summary="A power of the sequence ratio times a decaying exponential of it: 1 at W = 1, and zero far above.",
        formula="c_t = W^k exp(lambda (1 - W)), with k_positive and lambda_positive where A_t >= 0, with k_negative "
        "and lambda_negative where A_t < 0; log rho_t and log W each cut to between -20 and 20",
        source="VESPO, arXiv 2602.10693, in the form of its authors' code",
        defaults="k_positive=2.0, lambda_positive=3.0, k_negative=3.0, lambda_negative=2.0: the defaults of the "
        "authors' code and of TRL (the code's docstrings print other numbers).",
        aliases=(
            "variational sequence-level soft policy optimization",
            "TRL loss_type=vespo, vespo_k_pos=k_positive, vespo_lambda_pos=lambda_positive, ...",
        ),
        caution="Largest at W = k / lambda: below 1 for positive advantages (2/3), above it for negative ones (3/2). "
        "W is the product of the ratios, without a root, so on long sequences most weights are near zero. The sign is "
        "that of each token's own signal; the code takes the sequence's. The cut of single tokens shows where one "
        "log-ratio is beyond 20 and others make up for it.",
    ),
    uses_advantage=True,
    check=_check,
    parts=SEQUENCE,
)
def vespo(
    tokens: Tokens,
    *,
    k_positive: float = 2.0,
    lambda_positive: float = 3.0,
    k_negative: float = 3.0,
    lambda_negative: float = 2.0,
) -> Any:
    """c_t = W^k exp(lambda (1 - W))."""
    xp = tokens.xp
    each = xp.clip(tokens.log_ratio, -_FAR, _FAR)
    log_w = xp.clip(xp.sum(each, axis=1, keepdims=True), -_FAR, _FAR)
    positive = xp.exp(k_positive * log_w - lambda_positive * xp.expm1(log_w))
    negative = xp.exp(k_negative * log_w - lambda_negative * xp.expm1(log_w))
    return xp.where(tokens.advantage < 0, negative, positive)
