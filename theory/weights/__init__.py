"""Importance weights: one small file per family, entered in one registry."""

from theory.weights import minpro, unclipped
from theory.weights.registry import Card, Factors, Weight, weight, weight_cards

__all__ = ["Card", "Factors", "Weight", "weight", "weight_cards"]
