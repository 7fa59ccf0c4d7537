"""Processes from the tables that Gymnasium's toy environments carry."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from testbed.environments.tables import transition_table
from theory import MarkovProcess


class _Rows(NamedTuple):
    """The table as flat arrays, one entry per listed transition."""

    state: NDArray[np.int64]
    action: NDArray[np.int64]
    next_state: NDArray[np.int64]
    probability: NDArray[np.float64]
    reward: NDArray[np.float64]
    ends: NDArray[np.bool_]


def from_gymnasium(env: Any, *, horizon: int, discount: float = 1.0, initial: ArrayLike | None = None) -> MarkovProcess:
    """The process that `env.unwrapped.P` describes: P[s][a] is a list of (probability, next state, reward, terminated).

    States keep their numbers. A state that is only ever entered with `terminated` becomes absorbing where it stands. A
    state that is entered both ways (or in which an episode may start) stays as it is, and its terminated entries
    lead to an absorbing copy, numbered after the original states. The reward of a terminated transition is paid on
    that step; there is no terminal reward.

    Transitions of one (s, a) to the same next state are summed, and pay the mean of their rewards weighted by
    probability. Values and gradients are unchanged by that; where the rewards differ (slippery CliffWalking, at the
    start beside the cliff), the variance of the return loses the part that only they explain.

    Args:
        env: a Gymnasium environment with a table.
        horizon: T >= 1.
        discount: in [0, 1].
        initial: (S,), over the original states; default `env.unwrapped.initial_state_distrib`, or `isd`.

    Raises:
        ValueError: there is no table (Blackjack), or no start distribution.
    """
    bare = getattr(env, "unwrapped", env)
    table = getattr(bare, "P", None)
    if table is None:
        raise ValueError(
            f"{type(bare).__name__} carries no transition table `P`, so it has no exact process; "
            "FrozenLake, CliffWalking and Taxi do, Blackjack does not"
        )
    S, A = len(table), len(table[0])
    if initial is None:
        initial = getattr(bare, "initial_state_distrib", getattr(bare, "isd", None))
    if initial is None:
        raise ValueError(f"{type(bare).__name__} carries no start distribution; pass initial, an array of shape ({S},)")
    start = np.asarray(initial, np.float64)
    if start.shape != (S,):
        raise ValueError(f"initial has shape {start.shape}; expected ({S},), as P has {S} states")
    rows = _rows_of(table, S, A)
    acts, copied = _endings(rows, start)
    # Rows of states that do not act are leftovers of the table, sometimes empty: a loop stands in for them.
    rows = _kept(rows, acts[rows.state])
    size = S + copied.size
    number = np.arange(S)
    number[copied] = np.arange(S, size)
    next_state = np.where(rows.ends, number[rows.next_state], rows.next_state)
    absorbing = np.concatenate([~acts, np.ones(copied.size, bool)])
    loops = np.repeat(np.flatnonzero(absorbing), A)
    transition = transition_table(
        np.concatenate([rows.state, loops]),
        np.concatenate([rows.action, np.tile(np.arange(A), loops.size // A)]),
        np.concatenate([next_state, loops]),
        np.concatenate([rows.probability, np.ones(loops.size)]),
        size,
        A,
    )
    return MarkovProcess(
        initial=np.concatenate([start, np.zeros(copied.size)]),
        transition=transition,
        reward=_rewards(rows, next_state, size, A),
        horizon=horizon,
        absorbing=absorbing,
        discount=discount,
    )


def _rows_of(table: Any, S: int, A: int) -> _Rows:
    listed = [
        (s, a, int(s_next), float(p), float(r), bool(ends))
        for s in range(S)
        for a in range(A)
        for p, s_next, r, ends in table[s][a]
        if p > 0
    ]
    return _Rows._make(np.array(column) for column in zip(*listed, strict=True))


def _kept(rows: _Rows, keep: NDArray[np.bool_]) -> _Rows:
    return _Rows._make(column[keep] for column in rows)


def _endings(rows: _Rows, start: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which states act, (S,) bool, and the numbers of those that need an absorbing copy beside them.

    States act if an episode can start there, if no transition ends there, or if an acting state leads there without
    ending. What the rows of other states say must not count as a way in.
    """
    entered_ending = np.zeros(start.size, bool)
    entered_ending[rows.next_state[rows.ends]] = True
    acts = (start > 0) | ~entered_ending
    while True:
        reached = acts.copy()
        reached[rows.next_state[~rows.ends & acts[rows.state]]] = True
        if (reached == acts).all():
            return acts, np.flatnonzero(acts & entered_ending)
        acts = reached


def _rewards(rows: _Rows, next_state: NDArray[np.int64], S: int, A: int) -> NDArray[np.float64]:
    """(S, A) where the reward is the same for all next states, else (S, A, S)."""
    by_action = np.zeros((S, A))
    by_action[rows.state, rows.action] = rows.reward
    if (by_action[rows.state, rows.action] == rows.reward).all():
        return by_action
    where = (rows.state, rows.action, next_state)
    mass, paid = np.zeros((S, A, S)), np.zeros((S, A, S))
    np.add.at(mass, where, rows.probability)
    np.add.at(paid, where, rows.probability * rows.reward)
    return np.divide(paid, mass, out=np.zeros_like(paid), where=mass > 0)
