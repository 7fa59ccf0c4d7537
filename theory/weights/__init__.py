"""Importance weights: one small file per family, entered in one registry."""

# Importing a family enters it in the registry.
from theory.weights import cispo, gspo, m2po, masked, minpro, ppo_clip, truncated, unclipped, v_trace  # noqa: F401
from theory.weights.registry import Card, Factors, Parts, Weight, register, weight, weight_cards

__all__ = ["Card", "Factors", "Parts", "Weight", "register", "weight", "weight_cards"]
