"""`theory.diagnostics`: what a dashboard's statistics tend to as its batch grows, computed exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.diagnostic.coefficients import weight_statistics
from theory.diagnostic.record import Diagnostics
from theory.diagnostic.sequences import Sequences
from theory.diagnostic.tokens import checked_clip, effective_sample_size, token_statistics
from theory.engines.problem import Problem, checked_ratios
from theory.engines.recursion import possible_lengths
from theory.policy import Ratios, SoftmaxPolicy
from theory.process import MarkovProcess
from theory.signals import Ones, ResolvedSignal, Signal, resolve, signal
from theory.value_functions import occupancies
from theory.weights.registry import weight as weight_by_name

Array = NDArray[np.float64]


def diagnostics(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    weight: Any = "token",
    *,
    signal: Any = "target_advantage",
    clip: tuple[float, float] = (0.8, 1.2),
) -> Diagnostics:
    """Every statistic that dashboards log of a batch, as its exact value for an infinite batch from mu.

    Averages over tokens are E_mu[sum over t < L of f_t] / E_mu[L], by occupancy; products and extremes over sequences
    are forward and backward recursions over states; statistics of the weight come from the cells of the moments'
    recursion, or from enumeration. What neither can take is NaN. `theory.diagnostic_cards()` has the formulas.

    All are what mu's data can show: where mu lacks the target's support, nothing here sees what is missing, and
    `theory.divergences` tells the lost mass. A ratio of zero makes the divergences infinite.

    Args:
        process: the environment.
        target: pi.
        behaviour: mu; it need not have the target's support.
        weight: of the statistics whose names begin with `weight_`: a name, or `theory.weight(name, **options)`.
        signal: whose sign the weight looks at, for weights that do; NaN for group-relative ones and optimal baselines.
        clip: bounds of the ratio of a token, for the clip fractions.

    >>> coin = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 0.0]], horizon=2)
    >>> d = theory.diagnostics(coin, theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy(np.log([[0.8, 0.2]])))
    >>> round(d.ratio_effective_sample_size, 6), round(d.largest_ratio_mean, 6)  # 1 / (.25/.8 + .25/.2); .625, else 2.5
    (0.64, 1.3)

    Raises:
        ValueError: shapes disagree, an unknown name, or a clip that is no interval.
    """
    bounds, chosen = checked_clip(clip), weight_by_name(weight)
    table = checked_ratios(process, target, behaviour, allow_missing_support=True)
    resolved = _sign(process, target, behaviour, signal) if chosen.uses_advantage else ResolvedSignal("table", Ones())
    sequences = Sequences.of(process, behaviour)
    if sequences is None:
        return Diagnostics()
    visits = np.where(process.absorbing, 0.0, occupancies(process, behaviour)[:-1].sum(axis=0))
    tokens = float(visits.sum())
    share = visits[:, None] * behaviour.probabilities / tokens

    def average(f: Array) -> float:
        return float(share[share > 0.0] @ f[share > 0.0])

    values = token_statistics(table.log_ratio, average, bounds)
    values |= {
        "entropy_target": _entropy(target, visits) / tokens,
        "entropy_behaviour": _entropy(behaviour, visits) / tokens,
        "cross_entropy": average(-target.log_probabilities),
        "length_mean": tokens / float(process.initial[~process.absorbing].sum()),
    }
    values |= _of_sequences(sequences, target, behaviour, table)
    values["sequence_kl_k1"] = values["kl_k1"] * values["length_mean"]
    values["sequence_kl_k3"] = values["sequence_ratio_mean"] - 1.0 + values["sequence_kl_k1"]
    if resolved is not None:
        problem = Problem(process, target, behaviour, table, chosen, (resolved,))
        values |= weight_statistics(problem, tokens)
    return Diagnostics(**values)


def _sign(process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, of: Any) -> ResolvedSignal | None:
    chosen = of if not isinstance(of, str) else signal(of)
    if not isinstance(chosen, Signal) or chosen.baseline == "optimal":
        return None
    return resolve(chosen, process, target, behaviour)


def _entropy(policy: SoftmaxPolicy, visits: Array) -> float:
    p = policy.probabilities
    return float(visits @ -np.where(p > 0.0, p * np.where(p > 0.0, policy.log_probabilities, 0.0), 0.0).sum(axis=1))


def _of_sequences(s: Sequences, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, table: Ratios) -> dict[str, float]:
    log_ratio = s.on_edges(table.log_ratio)
    with np.errstate(over="ignore"):
        ratio = np.exp(log_ratio)
        mean, second = s.expected_products(np.stack([ratio, ratio**2]))
        sums = s.largest_sum(log_ratio), -s.largest_sum(-log_ratio)
        largest, smallest = np.exp(sums)
    lengths = possible_lengths(Problem(s.process, target, behaviour, table, weight_by_name("token"), ()))
    logs = [log_ratio, 2.0 * log_ratio, -log_ratio, -s.on_edges(target.log_probabilities)]
    logs.append(-s.on_edges(behaviour.log_probabilities))
    powers = s.expected_powers(np.stack(logs), lengths[lengths > 0])
    low, high = s.range_of(log_ratio)
    return {
        "ratio_maximum": float(np.exp(high)),
        "ratio_minimum": float(np.exp(low)),
        "log_ratio_absolute_maximum": max(abs(low), abs(high)),
        "sequence_ratio_mean": float(mean),
        "sequence_ratio_effective_sample_size": effective_sample_size(float(mean), float(second)),
        "sequence_ratio_chi_square": float(second) - 1.0,
        "sequence_ratio_maximum": float(largest),
        "sequence_ratio_minimum": float(smallest),
        "geometric_ratio_mean": float(powers[0]),
        "geometric_chi_square": float(powers[1]) - 1.0,
        "perplexity_ratio": float(powers[2]),
        "perplexity_target": float(powers[3]),
        "perplexity_behaviour": float(powers[4]),
        "largest_ratio_mean": s.expected_maximum(ratio),
        "smallest_ratio_mean": -s.expected_maximum(-ratio),
    }
