"""Transition tables from lists of edges, and the number of trajectories of a process."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import ArrayLike, NDArray

from theory import MarkovProcess

# Above this many numbers (2 MB) nearly all entries of our tables are zero, and the engines gain from CSR.
DENSE_LIMIT = 250_000


def transition_table(
    state: ArrayLike, action: ArrayLike, next_state: ArrayLike, probability: ArrayLike, S: int, A: int
) -> Any:
    """P(s'|s,a) from a list of edges; repeated edges are summed.

    Returns:
        Dense (S, A, S), or CSR of shape (S*A, S) with row s*A + a where the dense one had more than 250,000 numbers.
    """
    row = np.asarray(state, np.int64) * A + np.asarray(action, np.int64)
    entries = (np.asarray(probability, np.float64), (row, np.asarray(next_state, np.int64)))
    table = sparse.coo_array(entries, shape=(S * A, S)).tocsr()
    return table if S * A * S > DENSE_LIMIT else table.toarray().reshape(S, A, S)


def deterministic_table(successor: ArrayLike) -> Any:
    """P(s'|s,a) = 1 where s' = successor[s, a], from an (S, A) array of states: appending a token."""
    next_state = np.asarray(successor, np.int64)
    S, A = next_state.shape
    state, action = np.indices((S, A)).reshape(2, -1)
    return transition_table(state, action, next_state.reshape(-1), np.ones(S * A), S, A)


def point_mass(S: int, state: int = 0) -> NDArray[np.float64]:
    """The start distribution (S,) that is certain of one state."""
    certain = np.zeros(S)
    certain[state] = 1.0
    return certain


def trajectory_count(process: MarkovProcess) -> int:
    """How many sequences s_0, a_0, s_1, a_1, ... of positive transition probability the process has.

    N_T(s) = 1, and N_t(s) = sum over a and s' with P(s'|s,a) > 0 of N_{t+1}(s'); 1 in absorbing states.
    Python integers: the count of a long episode overflows 64 bits.

    >>> trajectory_count(testbed.environment("parity", horizon=10).process)
    1024
    """
    pairs = list(zip(process.edges.state.tolist(), process.edges.next_state.tolist(), strict=True))
    ended = process.absorbing.tolist()
    count = [1] * process.states
    for _ in range(process.horizon):
        earlier = [int(end) for end in ended]
        for state, next_state in pairs:
            earlier[state] += count[next_state]
        count = earlier
    return sum(count[state] for state in np.flatnonzero(process.initial))
