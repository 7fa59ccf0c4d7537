"""Exact mathematics of off-policy policy gradients."""

from theory.gradient import performance_difference, policy_gradient
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.value_functions import Values, values
from theory.weights.registry import Card, Weight, weight, weight_cards

__all__ = [
    "Card",
    "MarkovProcess",
    "SoftmaxPolicy",
    "Values",
    "Weight",
    "performance_difference",
    "policy_gradient",
    "values",
    "weight",
    "weight_cards",
]
