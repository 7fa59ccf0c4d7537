"""Products of ratios over a part of the sequence: none, token, prefix, suffix, sequence, and the geometric mean."""

from __future__ import annotations

from typing import Any

from theory.weights.products import product, product_factors
from theory.weights.registry import ROOT, SEQUENCE, Card, Parts, register
from theory.weights.tokens import Tokens

_NO_OPTIONS = "No options."


def _register(parts: Parts, card: Card, *, baseline_invariant: bool = False) -> None:
    """Enter the product of these parts in the registry."""

    def function(tokens: Tokens) -> Any:
        return product(tokens, parts)

    register(
        card,
        factors=lambda log_ratio, length: product_factors(log_ratio, length, parts),
        by_length="root" in parts,
        baseline_invariant=baseline_invariant,
        parts=parts,
    )(function)


_register(
    Parts("none", "none", "none"),
    Card(
        name="none",
        summary="No correction: rollouts are used as if the trained policy had generated them.",
        formula="c_t = 1",
        source="REINFORCE (Williams 1992) on reused data; the ablation of TIC-GRPO, arXiv 2508.02833",
        defaults=_NO_OPTIONS,
        aliases=("AsymRE (signal outcome with a number as its baseline)",),
        caution="Its baselines do not drop out: under mu, E[z_t | s_t] is not zero.",
    ),
)
_register(
    Parts("none", "full", "none"),
    Card(
        name="token",
        summary="The token's own ratio: corrects the action, not the prefix it stands on nor what follows.",
        formula="c_t = rho_t",
        source="the surrogate of TRPO (Schulman et al. 2015, arXiv 1502.05477, eq. 3) and PPO (2017, arXiv 1707.06347, "
        "eq. 6)",
        defaults=_NO_OPTIONS,
        aliases=("token IS", "vanilla-IS"),
    ),
    baseline_invariant=True,
)
_register(
    Parts("full", "full", "none"),
    Card(
        name="prefix",
        summary="The ratio of the whole prefix up to and including the token.",
        formula="c_t = P_t rho_t = product over j <= t of rho_j",
        source="per-decision importance sampling (Precup, Sutton & Singh 2000); MinPRO's theorem, arXiv 2601.22718; "
        "CTPO, arXiv 2605.07331",
        defaults=_NO_OPTIONS,
        unbiased_for=(
            ("target_advantage", "own"),
            ("target_advantage", "cumulative"),
            ("target_action_value", "own"),
            ("behaviour_advantage", "cumulative"),
            ("reward", "cumulative"),
        ),
        aliases=("cumulative token ratio", "per-decision importance sampling", "PDIS"),
        caution="Exact with the advantage of the target policy only; with an outcome or the advantage of the behaviour "
        "policy the continuation is the behaviour policy's. Per-decision importance sampling is this weight with the "
        "signal 'reward' and the cumulative score; divided by the batch's mean it is `self_normalised` with "
        "level='prefix'.",
    ),
    baseline_invariant=True,
)
_register(
    Parts("none", "full", "full"),
    Card(
        name="suffix",
        summary="The ratio of the token and of everything after it: the continuation is corrected, the prefix is not.",
        formula="c_t = rho_t S_t = product over j >= t of rho_j",
        source="the cell g01 of the 33modeling study; the limit of NFPO, arXiv 2605.20865, for long windows",
        defaults=_NO_OPTIONS,
    ),
    baseline_invariant=True,
)
_register(
    SEQUENCE,
    Card(
        name="sequence",
        summary="The ratio of the whole sequence, the same for all of its tokens.",
        formula="c_t = W = P_t rho_t S_t",
        source="trajectory importance sampling (Precup, Sutton & Singh 2000)",
        defaults=_NO_OPTIONS,
        unbiased_for=(
            ("target_advantage", "own"),
            ("target_advantage", "cumulative"),
            ("target_action_value", "own"),
            ("reward_to_go", "own"),
            ("outcome", "own"),
            ("behaviour_advantage", "cumulative"),
            ("reward", "cumulative"),
        ),
        aliases=("seq IS", "trajectory importance sampling"),
        caution="'Sequence' means this product in some libraries and its geometric mean in others.",
    ),
    baseline_invariant=True,
)
_register(
    ROOT,
    Card(
        name="geometric",
        summary="The geometric mean of the sequence's ratios; not a density ratio for any length above 1.",
        formula="c_t = W^(1/L)",
        source="the ratio of GSPO, arXiv 2507.18071, without its clip",
        defaults=_NO_OPTIONS,
        caution="Called a sequence ratio by several libraries.",
    ),
)
