"""The finite-horizon Markov process as arrays, checked at the door."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from theory import checks

Array = NDArray[np.float64]


class Edges(NamedTuple):
    """Every transition of positive probability out of a state that acts, by state, action, next state."""

    state: NDArray[np.int64]
    action: NDArray[np.int64]
    next_state: NDArray[np.int64]
    probability: Array
    """P(s'|s,a), positive."""
    reward: Array
    """r(s,a,s'), without the terminal reward."""


@dataclass(frozen=True, eq=False)
class MarkovProcess:
    """A Markov decision process with S states, A actions and a horizon of T steps.

    An episode starts in s_0 ~ initial. At step t = 0..T-1, in a state that is not absorbing, an action is taken,
    `reward` is paid and the next state is drawn. The episode ends when an absorbing state is entered or after T steps;
    then `terminal_reward` of the state reached is paid once. With L the number of steps taken, the return is

        sum over t < L of discount^t r(s_t, a_t, s_{t+1})  +  discount^L terminal_reward(s_L).

    An episode that starts in an absorbing state has L = 0: nothing acts, and only the terminal reward is paid.

    Args:
        initial: (S,) start distribution.
        transition: (S, A, S), rows sum to 1; a dense array, or a scipy.sparse matrix of shape (S*A, S) whose row is
            s*A + a.
        reward: (S, A) or (S, A, S), paid on the step.
        horizon: T >= 1.
        terminal_reward: (S,), paid once on the state in which the episode ends; default zero.
        absorbing: (S,) bool; entering one ends the episode, and its rows of `transition` and `reward` are never used.
        discount: in [0, 1].

    Raises:
        ValueError: shapes disagree, rows do not sum to one, a probability is negative, a reward is not finite, the
            horizon is not a positive integer, or the discount lies outside [0, 1].

    >>> coin = theory.MarkovProcess([1.0, 0.0], [[[0.5, 0.5]], [[0.0, 1.0]]], [[1.0], [0.0]], horizon=2)
    >>> coin.states, coin.actions, coin.horizon
    (2, 1, 2)
    """

    initial: Array
    transition: Any
    reward: Array
    horizon: int
    terminal_reward: Array = None  # type: ignore[assignment]
    absorbing: NDArray[np.bool_] = None  # type: ignore[assignment]
    discount: float = 1.0
    states: int = field(init=False)
    """S, the number of states."""
    actions: int = field(init=False)
    """A, the number of actions."""

    def __post_init__(self) -> None:
        """Check every array, and keep read-only float64 copies."""
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        initial = checks.numbers("initial", self.initial)
        if initial.ndim != 1 or initial.size == 0:
            raise ValueError(f"initial has shape {initial.shape}; expected (S,) with S >= 1")
        S = initial.size
        put("states", S)
        put("initial", checks.float_array("initial", initial, (S,)))
        checks.rows_are_distributions("initial", self.initial)
        A = self._check_transition(S)
        put("actions", A)
        reward = checks.numbers("reward", self.reward)
        if reward.shape not in ((S, A), (S, A, S)):
            raise ValueError(f"reward has shape {reward.shape}; expected (S, A) = {(S, A)} or (S, A, S) = {(S, A, S)}")
        put("reward", checks.float_array("reward", reward, reward.shape))
        checks.finite("reward", self.reward)
        put("horizon", checks.whole_number("horizon", self.horizon, 1, "steps T"))
        terminal = np.zeros(S) if self.terminal_reward is None else self.terminal_reward
        put("terminal_reward", checks.float_array("terminal_reward", terminal, (S,)))
        checks.finite("terminal_reward", self.terminal_reward)
        absorbing = np.array(np.zeros(S, bool) if self.absorbing is None else self.absorbing)
        if absorbing.shape != (S,) or absorbing.dtype != np.bool_:
            raise ValueError(
                f"absorbing has shape {absorbing.shape} and type {absorbing.dtype}; expected ({S},) of bool"
            )
        absorbing.flags.writeable = False
        put("absorbing", absorbing)
        if not isinstance(self.discount, Real) or not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"discount is {self.discount!r}; expected a number in [0, 1]")
        put("discount", float(self.discount))

    def _check_transition(self, S: int) -> int:
        if sparse.issparse(self.transition):
            if np.iscomplexobj(self.transition):
                raise ValueError("transition has complex entries; expected real numbers")
            matrix = sparse.csr_array(self.transition, dtype=np.float64, copy=True)
            if matrix.shape[1] != S or matrix.shape[0] == 0 or matrix.shape[0] % S:
                raise ValueError(f"transition has shape {matrix.shape}; expected (S*A, S) with S = {S}")
            matrix.sum_duplicates()
            matrix.eliminate_zeros()
            if matrix.nnz and not (np.isfinite(matrix.data).all() and (matrix.data >= 0).all()):
                raise ValueError("transition has a negative or non-finite entry; expected non-negative probabilities")
            total = np.asarray(matrix.sum(axis=1)).ravel()
            wrong = np.flatnonzero(np.abs(total - 1.0) > checks.TOLERANCE)
            if wrong.size:
                s, a = divmod(int(wrong[0]), matrix.shape[0] // S)
                raise ValueError(f"transition sums to {total[wrong[0]]:.9g} at index {(s, a)}; expected 1")
            for array in (matrix.data, matrix.indices, matrix.indptr):
                array.flags.writeable = False
            object.__setattr__(self, "transition", matrix)
            return matrix.shape[0] // S
        dense = checks.numbers("transition", self.transition)
        if dense.ndim != 3 or dense.shape[0] != S or dense.shape[2] != S or dense.shape[1] == 0:
            raise ValueError(
                f"transition has shape {dense.shape}; expected (S, A, S) with S = {S}, as initial has {S} states"
            )
        object.__setattr__(self, "transition", checks.float_array("transition", dense, dense.shape))
        checks.rows_are_distributions("transition", self.transition)
        return int(dense.shape[1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments, so that a copy is checked and read-only as well."""
        return MarkovProcess, (
            self.initial, self.transition, self.reward, self.horizon, self.terminal_reward, self.absorbing,
            self.discount,
        )  # fmt: skip

    def started_in(self, state: int) -> MarkovProcess:
        """The same process with one start state, such as one prompt; what does not depend on the start is shared.

        Raises:
            ValueError: no such state.
        """
        if checks.whole_number("state", state, 0, "the state's place") >= self.states:
            raise ValueError(f"state is {state!r}; expected a whole number below S = {self.states}")
        initial = np.zeros(self.states)
        initial[state] = 1.0
        initial.flags.writeable = False
        started = object.__new__(MarkovProcess)
        # Everything but the start has been checked, and edges are asked for by every engine.
        started.__dict__.update(self.__dict__, edges=self.edges, initial=initial)
        return started

    @cached_property
    def transition_matrix(self) -> Any:
        """The transition as a matrix of shape (S*A, S), row s*A + a: dense, or CSR where it was passed as sparse."""
        if sparse.issparse(self.transition):
            return self.transition
        return self.transition.reshape(self.states * self.actions, self.states)

    @cached_property
    def edges(self) -> Edges:
        """Every transition of positive probability out of a non-absorbing state."""
        matrix = sparse.coo_array(self.transition_matrix)
        row, next_state = (index.astype(np.int64) for index in matrix.coords)
        keep = (matrix.data > 0) & ~self.absorbing[row // self.actions]
        row, next_state, probability = row[keep], next_state[keep], matrix.data[keep]
        order = np.lexsort((next_state, row))
        row, next_state, probability = row[order], next_state[order], probability[order]
        state, action = np.divmod(row, self.actions)
        reward = self.reward[state, action, next_state] if self.reward.ndim == 3 else self.reward[state, action]
        return Edges(state, action, next_state, probability, reward)

    @cached_property
    def expected_reward(self) -> Array:
        """r(s,a) = sum over s' of P(s'|s,a) r(s,a,s'), shape (S, A); zero in absorbing states."""
        edges, result = self.edges, np.zeros((self.states, self.actions))
        np.add.at(result, (edges.state, edges.action), edges.probability * edges.reward)
        return result

    @cached_property
    def has_step_rewards(self) -> bool:
        """Whether any step can pay a reward before the terminal one."""
        return bool(np.any(self.edges.reward))
