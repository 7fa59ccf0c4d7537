"""Exact mathematics of off-policy policy gradients."""

from theory.baselines import OptimalBaseline, baseline_moments, optimal_baseline
from theory.critic.bound import EfficiencyBound, efficiency_bound
from theory.critic.cards import CriticCard, critic_cards
from theory.critic.choice import critic_moments
from theory.critic.gradients import action_value_gradient
from theory.critic.tables import noisy_critic
from theory.decomposition import Decomposition, decompose
from theory.diagnostic.cards import DiagnosticCard, diagnostic_cards
from theory.diagnostic.exact import diagnostics
from theory.diagnostic.record import Diagnostics
from theory.diagnostic.sampled import sampled_diagnostics
from theory.divergence import Divergences, SequenceDivergences, TokenDivergences, divergences, renyi_divergence
from theory.engines.choice import ENGINES, moments
from theory.engines.record import Moments
from theory.estimator import Estimator, Reduction, reduction
from theory.gradient import performance_difference, policy_gradient
from theory.groups import GroupSignal, group
from theory.invariance import BaselineLeak, ValueContribution, WorstBaseline, baseline_leak, value_contribution
from theory.penalties import KLPenalty, kl_penalty
from theory.policy import SoftmaxPolicy
from theory.presets.record import Preset
from theory.presets.registry import preset, preset_cards
from theory.process import MarkovProcess
from theory.signals import Signal, SignalCard, signal, signal_cards
from theory.value_functions import Values, values
from theory.variance_split import GroupVariance, group_variance
from theory.weights.needs import NEEDS
from theory.weights.registry import Card, Factors, Parts, Weight, register, weight, weight_cards

__all__ = [
    "ENGINES",
    "NEEDS",
    "BaselineLeak",
    "Card",
    "CriticCard",
    "Decomposition",
    "DiagnosticCard",
    "Diagnostics",
    "Divergences",
    "EfficiencyBound",
    "Estimator",
    "Factors",
    "GroupSignal",
    "GroupVariance",
    "KLPenalty",
    "MarkovProcess",
    "Moments",
    "OptimalBaseline",
    "Parts",
    "Preset",
    "Reduction",
    "SequenceDivergences",
    "Signal",
    "SignalCard",
    "SoftmaxPolicy",
    "TokenDivergences",
    "ValueContribution",
    "Values",
    "Weight",
    "WorstBaseline",
    "action_value_gradient",
    "baseline_leak",
    "baseline_moments",
    "critic_cards",
    "critic_moments",
    "decompose",
    "diagnostic_cards",
    "diagnostics",
    "divergences",
    "efficiency_bound",
    "group",
    "group_variance",
    "kl_penalty",
    "moments",
    "noisy_critic",
    "optimal_baseline",
    "performance_difference",
    "policy_gradient",
    "preset",
    "preset_cards",
    "reduction",
    "register",
    "renyi_divergence",
    "sampled_diagnostics",
    "signal",
    "signal_cards",
    "value_contribution",
    "values",
    "weight",
    "weight_cards",
]
