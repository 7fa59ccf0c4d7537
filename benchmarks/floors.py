"""Arithmetic floors: operations that an algorithm cannot do without, at the rate this machine multiplies matrices.

A floor leaves out all traffic between arrays, every temporary and every call. It says how much is left to gain at
most, not what can be reached.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.problems import Problem
from benchmarks.timing import clock, matmul_rate


def minpro_recursion(given: Problem) -> tuple[float, float]:
    """(operations, seconds) of MinPRO's forward recursion over K x S cells with P = S A parameters.

    Each step counts a multiplication and an addition per entry of
      E[X] through the transition of every level   2 K S^2 P     a (S', S) times a (S, P) matrix for each of K levels
      E[1] o z arriving at every s'                2 K S^2 A     a tabular score has one entry per (s, a) ...
        ... less its centring                      2 K S^2 A
      <E[X], z> for E|X|^2                         4 K S A
      E[1] of every cell                           2 K S^2 A
      E|X|^2, in which levels need not be kept     2 S^2 A
    """
    S, A = given.process.states, given.process.actions
    P = given.target.parameter_count
    K = 1 + np.unique(given.target.log_probabilities - given.behaviour.log_probabilities).size
    step = 2 * K * S * S * P + 6 * K * S * S * A + 4 * K * S * A + 2 * S * S * A
    operations = float(step * given.process.horizon)
    return operations, operations / matmul_rate((K, S, S), (K, S, P))


def minpro_enumeration(given: Problem, trajectories: int) -> tuple[float, float]:
    """(operations, seconds) of MinPRO on each of N trajectories of T tokens, with a tabular score of S A entries.

      minimum, product, signal, and its place      4 T
      probability, by shared prefixes              1
      centring, S A; |g_hat|^2 and the mean        6 S A

    The rate is that of (rows, S A) times (S A, S A), the shape of a block of estimates.
    """  # fmt: skip
    S, A, T = given.process.states, given.process.actions, given.process.horizon
    operations = float(trajectories) * (4 * T + 1 + 6 * S * A)
    return operations, operations / matmul_rate((4096, S * A), (S * A, S * A))


def sampling(given: Problem, tokens: int) -> tuple[float, float]:
    """(operations, seconds) of drawing tokens: no matrix product, so the two things themselves are timed.

    One uniform number per token, and one search of it in the table of all edges, log2(edges) comparisons.
    """
    edges = given.process.edges.state.size
    rng, table = np.random.default_rng(0), np.linspace(0.0, 1.0, edges)
    chunk = 100_000
    best = clock(lambda: np.searchsorted(table, rng.random(chunk)), 5).best
    return tokens * (1.0 + math.ceil(math.log2(edges))), best / chunk * tokens
