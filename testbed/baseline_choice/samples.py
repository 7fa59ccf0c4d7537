"""What one batch tells of the baselines: the sample variance of each, and an estimate of the optimal constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import theory
from theory.engines.problem import Problem, checked_ratios
from theory.engines.sampling import sample_block
from theory.engines.trajectories import Walk, returns, score_weights, token_signals
from theory.signals import Ones, ResolvedSignal, Signal, resolve

Array = NDArray[np.float64]

# Random partitions of a batch into groups over which the leave-one-out variance is averaged.
_PARTITIONS = 8


@dataclass(frozen=True, eq=False)
class Batch:
    """N trajectories from mu, as the vectors that all candidates are made of."""

    returns: Array
    """(N,)"""
    plain: Array
    """(N, P): without a baseline."""
    valued: dict[str, Array]
    """(N, P) each: minus the exact values of the target or of the behaviour policy."""
    unit: Array
    """(N, P): with the constant signal one."""
    by_state: Array
    """(S, N, P): with the signal that is one in a state."""

    def part(self, rows: Any) -> Batch:
        """Some of the trajectories."""
        valued = {name: x[rows] for name, x in self.valued.items()}
        return Batch(self.returns[rows], self.plain[rows], valued, self.unit[rows], self.by_state[:, rows])


class Estimates(NamedTuple):
    """What one batch says."""

    variances: dict[str, float]
    """Candidate -> estimated variance of one trajectory's estimator."""
    constant: float
    """The estimated optimal constant."""


def draw_batches(
    process: theory.MarkovProcess,
    target: theory.SoftmaxPolicy,
    behaviour: theory.SoftmaxPolicy,
    weight: theory.Weight,
    trajectories: int,
    batches: int,
    rng: np.random.Generator,
) -> list[Batch]:
    """Independent batches from mu."""
    walk, n = Walk(process, behaviour), trajectories * batches
    start = rng.choice(process.states, size=n, p=process.initial / process.initial.sum())
    block = sample_block(walk, start, rng)
    states = np.flatnonzero(~process.absorbing)
    named = [Signal("outcome"), Signal("outcome", "target_value"), Signal("outcome", "behaviour_value")]
    signals = [resolve(s, process, target, behaviour) for s in named]
    signals.append(ResolvedSignal("table", Ones()))
    signals += [ResolvedSignal("table", Ones(states=np.eye(process.states)[s])) for s in states]
    ratios = checked_ratios(process, target, behaviour, allow_missing_support=False)
    # One signal at a time: all tables of score weights together would be too many numbers.
    vectors = []
    for signal in signals:
        problem = Problem(process, target, behaviour, ratios, weight, (signal,))
        vectors.append(
            target.combine_scores(score_weights(walk, block, problem, token_signals(walk, block, problem))[0])
        )
    valued = {"target_value": vectors[1], "behaviour_value": vectors[2]}
    everything = Batch(returns(walk, block), vectors[0], valued, vectors[3], np.stack(vectors[4:]))
    return [everything.part(slice(i, i + trajectories)) for i in range(0, n, trajectories)]


def estimates(batch: Batch, fitted_on: Batch, group_size: int, rng: np.random.Generator) -> Estimates:
    """Sample variances of the candidates on one batch, with the baselines that are estimated fitted on another (or on
    the same one, which flatters those with many numbers).

    The bias is in none of them: a batch from mu has the same law whatever the true gradient is.
    """
    constant = _solve(fitted_on.unit[None], fitted_on.plain)
    states = _solve(fitted_on.by_state, fitted_on.plain)
    values = {
        "none": batch.plain,
        "expected_return": batch.plain - fitted_on.returns.mean() * batch.unit,
        **batch.valued,
        "optimal_constant": batch.plain - constant[0] * batch.unit,
        "optimal_per_state": batch.plain - np.tensordot(states, batch.by_state, 1),
    }
    variances = {name: trace_of_covariance(x) for name, x in values.items()}
    if batch.returns.size >= 2 * group_size:
        variances["leave_one_out"] = _leave_one_out(batch, group_size, rng)
    return Estimates(variances, float(constant[0]))


def trace_of_covariance(x: Array) -> float:
    """Unbiased estimate from (N, P) draws."""
    return float(x.var(axis=0, ddof=1).sum())


def _solve(units: Array, plain: Array) -> Array:
    """Numbers b that minimise the sample variance of plain - sum over i of b_i units_i."""
    centred = (units - units.mean(axis=1, keepdims=True)).reshape(len(units), -1)
    aim = (plain - plain.mean(axis=0)).reshape(-1)
    return np.asarray(np.linalg.lstsq(centred @ centred.T, centred @ aim, rcond=1e-10)[0])


def _leave_one_out(batch: Batch, size: int, rng: np.random.Generator) -> float:
    """Variance per trajectory of groups within the batch, averaged over random partitions."""
    n = batch.returns.size // size * size
    found = []
    for _ in range(_PARTITIONS):
        order = rng.permutation(batch.returns.size)[:n].reshape(-1, size)
        advantage = theory.group(size, "leave_one_out", "none").advantages(batch.returns[order])
        groups = np.einsum("gi,gip->gp", advantage, batch.unit[order]) / size
        found.append(size * trace_of_covariance(groups))
    return float(np.mean(found))
