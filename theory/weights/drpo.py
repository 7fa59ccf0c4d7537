"""DRPO: a quadratic penalty on the shift of the token's probability in the place of DPPO's mask."""

from __future__ import annotations

from typing import Any

from theory.weights.options import check_positive
from theory.weights.registry import Card, register
from theory.weights.sampled_token import sampled_token
from theory.weights.tokens import Tokens


@register(
    Card(
        name="drpo",
        summary="The token's own ratio, times a factor that falls as the update has moved the token's probability.",
        formula="c_t = rho_t (1 - sign(A_t) (pi - mu) / epsilon), pi and mu the two probabilities of the sampled "
        "token: the gradient of A rho - |A| mu (rho - 1)^2 / (2 epsilon), as mu (rho - 1) = pi - mu",
        source="DRPO, 'Rethinking the Divergence Regularization in LLM RL', arXiv 2606.09821",
        defaults="epsilon=12.5: the paper's threshold (its section 4) and the default of its authors' code (UniRL, "
        "drpo_epsilon).",
        aliases=("divergence regularized policy optimization", "UniRL DRPO, drpo_epsilon=epsilon"),
        caution="The paper's bounded factor 1 - sign(A (rho - 1)) |pi - mu| / delta is this one with delta = epsilon, "
        "and stands beside rho: the coefficient itself is rho times it, not bounded by it. At 12.5 the factor stays "
        "within 0.92 and 1.08, since |pi - mu| <= 1, so the default is close to `token`; only epsilon below 1 can turn "
        "the sign. Same name, different thing: decoupled reward policy optimization (arXiv 2510.04474). Without mu in "
        "the penalty the objective is SPO's.",
    ),
    uses_advantage=True,
    local=True,
    check=lambda epsilon: check_positive("epsilon", epsilon, "the probability shift at which the update stops"),
    needs=("log_probability",),
)
def drpo(tokens: Tokens, *, epsilon: float = 12.5) -> Any:
    """c_t = rho_t (1 - sign(A_t) (pi - mu) / epsilon)."""
    xp, ratio = tokens.xp, tokens.ratio
    factor = 1.0 - xp.sign(tokens.advantage) * sampled_token(tokens).shift / epsilon
    # A factor of zero is zero also where the ratio overflows.
    return xp.where(factor == 0, xp.zeros_like(ratio), ratio) * factor
