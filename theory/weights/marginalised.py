"""Marginalised importance sampling: the ratio of the state's probabilities in the place of the prefix ratio."""

from __future__ import annotations

from typing import Any

from theory.weights.registry import Card, Parts, register
from theory.weights.tokens import Tokens


@register(
    Card(
        name="marginalised",
        summary="How much likelier the state is under the target, times the token's own ratio.",
        formula="c_t = d^pi_t(s_t) / d^mu_t(s_t) x rho_t",
        source="Liu et al. 2018, arXiv 1810.12429; Xie et al. 2019, arXiv 1906.03393; for policy gradients Liu et al. "
        "2019, arXiv 1904.08473",
        defaults="No options.",
        unbiased_for=(
            ("target_advantage", "own"),
            ("target_advantage", "cumulative"),
            ("target_action_value", "own"),
        ),
        aliases=("MIS over states", "marginalized importance sampling", "state-marginal importance sampling"),
        caution="The ratio is the mean of the prefix ratio given the state: it saves variance where prefixes meet in "
        "a state, and nothing in a token tree, where it is the prefix ratio. Here it is exact; in practice it is "
        "learned. Exact for what depends on the state and action alone, so not for the cumulative score with the "
        "advantage of the behaviour policy or with rewards, which `prefix` is exact for.",
    ),
    needs=("state_ratio",),
    local=True,
    baseline_invariant=True,
    parts=Parts("full"),
)
def marginalised(tokens: Tokens) -> Any:
    """c_t = state ratio x rho_t."""
    state_ratio = tokens.given["state_ratio"]
    # A state that the target never visits has weight 0 whatever the token's ratio, also where that overflows.
    return state_ratio * tokens.xp.where(state_ratio == 0.0, state_ratio, tokens.ratio)
