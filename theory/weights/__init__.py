"""Importance weights: one small file per family, entered in one registry."""

# Importing a family enters it in the registry.
from theory.weights import (  # noqa: F401
    aspo,
    cispo,
    cppo,
    ctpo,
    decoupled,
    dppo,
    drpo,
    gmpo,
    gspo,
    log_ratio_mask,
    m2po,
    marginalised,
    masked,
    minpro,
    mixed_ratio,
    nfpo,
    off_policy_sequence_mask,
    pnpo,
    ppo_clip,
    prefix_mask,
    retrace,
    sapo,
    self_normalised,
    sequence_mask,
    topr,
    trm,
    truncated,
    unclipped,
    v_trace,
    vespo,
    window,
)
from theory.weights.registry import Card, Factors, Parts, Weight, register, weight, weight_cards

__all__ = ["Card", "Factors", "Parts", "Weight", "register", "weight", "weight_cards"]
