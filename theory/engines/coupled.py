"""Exact moments where the trajectories of a draw depend on each other: every batch of trajectories, once.

The order within a batch does not matter, so batches are multisets of trajectories with their multinomial probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement, islice
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from theory.engines import enumeration
from theory.engines.problem import Problem
from theory.engines.reduce import Draw
from theory.engines.sampling import draw_values
from theory.engines.trajectories import Block, Walk
from theory.estimator import Estimator
from theory.groups import GroupSignal
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]

_BLOCK_NUMBERS = 4_000_000
_ALL = 2**62


def refusal(process: MarkovProcess, behaviour: SoftmaxPolicy, estimator: Estimator, most: int) -> str:
    """Why the batches of an estimator cannot all be visited, with at most `most` trajectories in all; empty where they
    can.
    """
    per_draw = estimator.trajectories_per_draw
    count = enumeration.count_trajectories(process, behaviour)
    # Multisets of per_draw out of count, in logs: the number itself may be beyond any float.
    log_batches = lgamma(count + per_draw) - lgamma(per_draw + 1.0) - lgamma(count) if count < 1e15 else np.inf
    if log_batches + np.log(per_draw) <= np.log(most) + 1e-9:
        return ""
    batches = f"{np.exp(log_batches):.3g}" if log_batches < 690.0 else "over 1e299"
    return (
        f"the coefficients of {estimator.weight.label} depend on all {per_draw} trajectories of a draw, and "
        f"{batches} batches of the {count:.3g} trajectories are more than an exact engine visits; "
        "engine='sampling' can take it"
    )


def draw(problem: Problem, estimator: Estimator, outer: bool) -> Draw:
    """Moments of one draw, over all batches."""
    p, P, per_draw = problem.process, problem.target.parameter_count, estimator.trajectories_per_draw
    rows = _BLOCK_NUMBERS // max(p.states * p.actions, P, 8 * p.horizon)
    mean, second, matrix = np.zeros(P), 0.0, np.zeros((P, P))
    for walk, block, probability in batches(problem, estimator, max(1, rows // per_draw)):
        g = draw_values(walk, block, problem, estimator)
        mean += probability @ g
        second += float(probability @ np.einsum("np,np->n", g, g))
        if outer:
            matrix += (probability[:, None] * g).T @ g
    return Draw(mean[None], np.array([[second]]), matrix[None] if outer else None)


def batches(problem: Problem, estimator: Estimator, most: int) -> Iterator[tuple[Walk, Block, Array]]:
    """Every batch once, `most` at a time, with its probability. A group is drawn from one start state."""
    p, per_draw = problem.process, estimator.trajectories_per_draw
    for walk, block in enumeration.enumerate_blocks(p, problem.behaviour, _ALL):
        if isinstance(estimator.signal, GroupSignal):
            for state in np.unique(block.start):
                chance = float(p.initial[state])
                yield from _multisets(walk, block, np.flatnonzero(block.start == state), chance, per_draw, most)
        else:
            yield from _multisets(walk, block, np.arange(block.start.size), 1.0, per_draw, most)


def _multisets(
    walk: Walk, block: Block, members: NDArray[np.int64], chance: float, size: int, most: int
) -> Iterator[tuple[Walk, Block, Array]]:
    """Batches of these trajectories, which together have probability `chance`; they are drawn given that."""
    log_probability = np.log(block.probability[members] / chance)
    every = combinations_with_replacement(range(members.size), size)
    while chosen := list(islice(every, most)):
        which = np.array(chosen, dtype=np.int64)
        # A multinomial coefficient is size! over the factorials of how often each member occurs; along a sorted row
        # the running count of equal members multiplies up to them.
        run = np.ones(len(which))
        log_orders = np.full(len(which), lgamma(size + 1.0))
        for i in range(1, size):
            run = np.where(which[:, i] == which[:, i - 1], run + 1.0, 1.0)
            log_orders -= np.log(run)
        probability = chance * np.exp(log_orders + log_probability[which].sum(axis=1))
        rows = members[which.reshape(-1)]
        share = np.repeat(probability / size, size)
        drawn = Block(block.start[rows], block.edge[rows], block.acting[rows], block.last_state[rows], share)
        yield walk, drawn, probability
