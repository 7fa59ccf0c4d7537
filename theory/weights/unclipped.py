"""Products of ratios over a part of the sequence: none, token, prefix, suffix, sequence, and the geometric mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.weights.registry import ROOT, SEQUENCE, Array, Card, Factors, Parts, constant_own, register
from theory.weights.tokens import Tokens

_NO_OPTIONS = "No options."


def _none(log_ratio: Array, length: int) -> Factors:
    return Factors(before=None, own=constant_own(np.ones_like(log_ratio)))


def _token(log_ratio: Array, length: int) -> Factors:
    return Factors(before=None, own=constant_own(np.exp(log_ratio)))


def _prefix(log_ratio: Array, length: int) -> Factors:
    ratio = np.exp(log_ratio)
    return Factors(before=ratio, own=constant_own(ratio))


def _suffix(log_ratio: Array, length: int) -> Factors:
    ratio = np.exp(log_ratio)
    return Factors(before=None, own=constant_own(ratio), after=ratio)


def _sequence(log_ratio: Array, length: int) -> Factors:
    ratio = np.exp(log_ratio)
    return Factors(before=ratio, own=constant_own(ratio), after=ratio)


def _geometric(log_ratio: Array, length: int) -> Factors:
    root = np.exp(log_ratio / length)
    return Factors(before=root, own=constant_own(root), after=root)


@register(
    Card(
        name="none",
        summary="No correction: rollouts are used as if the trained policy had generated them.",
        formula="c_t = 1",
        source="REINFORCE (Williams 1992) on reused data; the ablation of TIC-GRPO, arXiv 2508.02833",
        defaults=_NO_OPTIONS,
        caution="Its baselines do not drop out: under mu, E[z_t | s_t] is not zero.",
    ),
    factors=_none,
    parts=Parts("none", "none", "none"),
)
def none(tokens: Tokens) -> Any:
    """c_t = 1."""
    return tokens.xp.ones_like(tokens.log_ratio)


@register(
    Card(
        name="token",
        summary="The token's own ratio: corrects the action, not the prefix it stands on nor what follows.",
        formula="c_t = rho_t",
        source="the surrogate of TRPO (Schulman et al. 2015, arXiv 1502.05477, eq. 3) and PPO (2017, arXiv 1707.06347, "
        "eq. 6)",
        defaults=_NO_OPTIONS,
        aliases=("token IS", "vanilla-IS"),
    ),
    factors=_token,
    baseline_invariant=True,
)
def token(tokens: Tokens) -> Any:
    """c_t = rho_t."""
    return tokens.ratio


@register(
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
        aliases=("cumulative token ratio", "per-decision importance sampling"),
        caution="Exact with the advantage of the target policy only; with an outcome or the advantage of the behaviour "
        "policy the continuation is the behaviour policy's.",
    ),
    factors=_prefix,
    baseline_invariant=True,
    parts=Parts("full", "full", "none"),
)
def prefix(tokens: Tokens) -> Any:
    """c_t = P_t rho_t."""
    return tokens.xp.exp(tokens.log_prefix + tokens.log_ratio)


@register(
    Card(
        name="suffix",
        summary="The ratio of the token and of everything after it: the continuation is corrected, the prefix is not.",
        formula="c_t = rho_t S_t = product over j >= t of rho_j",
        source="the cell g01 of the 33modeling study; the limit of NFPO, arXiv 2605.20865, for long windows",
        defaults=_NO_OPTIONS,
    ),
    factors=_suffix,
    baseline_invariant=True,
    parts=Parts("none", "full", "full"),
)
def suffix(tokens: Tokens) -> Any:
    """c_t = rho_t S_t."""
    return tokens.xp.exp(tokens.log_ratio + tokens.log_suffix)


@register(
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
    factors=_sequence,
    baseline_invariant=True,
    parts=SEQUENCE,
)
def sequence(tokens: Tokens) -> Any:
    """c_t = W."""
    return tokens.sequence_ratio


@register(
    Card(
        name="geometric",
        summary="The geometric mean of the sequence's ratios; not a density ratio for any length above 1.",
        formula="c_t = W^(1/L)",
        source="the ratio of GSPO, arXiv 2507.18071, without its clip",
        defaults=_NO_OPTIONS,
        caution="Called a sequence ratio by several libraries.",
    ),
    factors=_geometric,
    by_length=True,
    parts=ROOT,
)
def geometric(tokens: Tokens) -> Any:
    """c_t = W^(1/L)."""
    return tokens.geometric_mean
