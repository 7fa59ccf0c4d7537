"""Softmax policies, tabular or log-linear: probabilities, log-probabilities and scores."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks

Array = NDArray[np.float64]

# Numbers in a table (N, S, A) of what tokens weigh, 32 MB.
_TABLE_NUMBERS = 4_000_000


class SoftmaxPolicy:
    """pi(a|s) = exp(logits[s, a]) / sum over a' of exp(logits[s, a']).

    `SoftmaxPolicy(logits)` is tabular: its parameters are the logits, P = S*A, in row-major order.
    `SoftmaxPolicy.from_features(features, parameters)` is log-linear: logits = features @ parameters.
    A logit of -inf gives an action probability zero (a truncated sampler); every state keeps at least one action.

    The score is z(s, a) = gradient of log pi(a|s) in the parameters:
    tabular e_(s,a) - sum over a' of pi(a'|s) e_(s,a'); log-linear features[s, a] - sum over a' of pi(a'|s)
    features[s, a'].

    Args:
        logits: (S, A).

    Raises:
        ValueError: logits are NaN or +inf, a state has no action left, or shapes disagree.

    >>> theory.SoftmaxPolicy([[0.0, 0.0]]).probabilities
    array([[0.5, 0.5]])
    """

    def __init__(self, logits: Any) -> None:
        """Keep a checked copy of the (S, A) logits."""
        table = checks.numbers("logits", logits)
        shape = table.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"logits have shape {shape}; expected (S, A) with S, A >= 1")
        self.logits: Array = checks.float_array("logits", table, shape)
        if np.isposinf(self.logits).any():
            raise ValueError("logits contain +inf; expected finite numbers, or -inf for an action of probability zero")
        empty = np.flatnonzero(np.isneginf(self.logits).all(axis=1))
        if empty.size:
            raise ValueError(f"logits of state {empty[0]} are all -inf; expected at least one possible action")
        self._features: Array | None = None
        self.parameters: Array = self.logits.reshape(-1)

    @classmethod
    def from_features(cls, features: Any, parameters: Any) -> SoftmaxPolicy:
        """Log-linear policy: logits[s, a] = sum over p of features[s, a, p] parameters[p].

        Args:
            features: (S, A, P), finite.
            parameters: (P,), finite.
        """
        table = checks.numbers("features", features)
        shape = table.shape
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"features have shape {shape}; expected (S, A, P) with S, A, P >= 1")
        table = checks.float_array("features", table, shape)
        theta = checks.float_array("parameters", parameters, (shape[2],))
        checks.finite("features", table)
        checks.finite("parameters", theta)
        policy = cls(table @ theta)
        policy._features, policy.parameters = table, theta
        return policy

    def with_parameters(self, parameters: Any) -> SoftmaxPolicy:
        """The same family of policies (tabular, or log-linear with the same features) at other parameters (P,)."""
        if self._features is not None:
            return SoftmaxPolicy.from_features(self._features, parameters)
        if np.shape(parameters) != self.parameters.shape:
            raise ValueError(f"parameters have shape {np.shape(parameters)}; expected {self.parameters.shape}")
        return SoftmaxPolicy(np.reshape(parameters, self.logits.shape))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by what defines the policy."""
        if self._features is None:
            return SoftmaxPolicy, (self.logits,)
        return SoftmaxPolicy.from_features, (self._features, self.parameters)

    @property
    def features(self) -> Array | None:
        """(S, A, P) of a log-linear policy, or None for a tabular one."""
        return self._features

    @property
    def states(self) -> int:
        """S, the number of states."""
        return int(self.logits.shape[0])

    @property
    def actions(self) -> int:
        """A, the number of actions."""
        return int(self.logits.shape[1])

    @property
    def parameter_count(self) -> int:
        """P, the number of parameters."""
        return int(self.parameters.size)

    @cached_property
    def log_probabilities(self) -> Array:
        """log pi(a|s), shape (S, A), in nats."""
        shifted = self.logits - self.logits.max(axis=1, keepdims=True)
        return _frozen(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    @cached_property
    def probabilities(self) -> Array:
        """pi(a|s), shape (S, A)."""
        weights = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return _frozen(weights / weights.sum(axis=1, keepdims=True))

    @cached_property
    def score(self) -> Array:
        """z(s, a), shape (S, A, P). The whole table: S*A*P numbers, so only for small problems."""
        identity = np.eye(self.states * self.actions).reshape(-1, self.states, self.actions)
        return _frozen(self.combine_scores(identity).reshape(self.states, self.actions, -1))

    @cached_property
    def squared_score(self) -> Array:
        """|z(s, a)|^2, shape (S, A)."""
        if self._features is None:
            others = self.probabilities @ (1.0 - np.eye(self.actions))
            others_squared = self.probabilities**2 @ (1.0 - np.eye(self.actions))
            return _frozen(others**2 + others_squared)
        return _frozen((self._centred_features**2).sum(axis=-1))

    # Under a confident policy the score of the likeliest action is as small as the others' probabilities. Written as
    # 1 - pi it has no digits left, so everything below is measured from the likeliest action and never forms 1 - pi.

    @cached_property
    def _likeliest(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index of every state's likeliest action in an array (..., S, A)."""
        return np.arange(self.states), self.logits.argmax(axis=1)

    def _minus_mean(self, values: Array) -> Array:
        """values[..., s, a] - sum over a' of pi(a'|s) values[..., s, a']."""
        s, a = self._likeliest
        from_likeliest = values - values[..., s, a][..., None]
        return np.asarray(from_likeliest - np.einsum("sa,...sa->...s", self.probabilities, from_likeliest)[..., None])

    @cached_property
    def _centred_features(self) -> Array:
        assert self._features is not None
        return np.moveaxis(self._minus_mean(np.moveaxis(self._features, 2, 0)), 0, 2)

    def _centred(self, weights: Array) -> Array:
        """Sum over a of weights[..., s, a] z(s, a) in the logits of s, (..., S, A), for a tabular policy.

        It sums to zero over the actions, which gives the entry of the likeliest one.
        """
        # A product with ones sums a short last axis several times faster than a reduction does.
        ones, likeliest = np.ones(self.actions), (..., *self._likeliest)
        centred = weights - self.probabilities * (weights @ ones)[..., None]
        centred[likeliest] = 0.0
        centred[likeliest] = -(centred @ ones)
        return np.asarray(centred)

    def combine_scores(self, weights: Array) -> Array:
        """Sum over s, a of weights[..., s, a] z(s, a): from (..., S, A) to (..., P)."""
        flat = (*weights.shape[:-2], self.states * self.actions)
        if self._features is None:
            return self._centred(weights).reshape(flat)
        return np.asarray(weights.reshape(flat) @ self._centred_features.reshape(flat[-1], -1))

    def combine_absolute_scores(self, weights: Array) -> Array:
        """Sum over s, a of weights[s, a] |z(s, a)| by component, or more: from (S, A), non-negative, to (P,)."""
        if self._features is None:
            return (weights + self.probabilities * weights.sum(axis=-1, keepdims=True)).reshape(-1)
        return np.asarray(weights.reshape(-1) @ np.abs(self._centred_features).reshape(weights.size, -1))

    def project_on_scores(self, vectors: Array) -> Array:
        """<vectors[..., s, :], z(s, a)>: from (..., S, P) to (..., S, A)."""
        if self._features is None:
            shape = (*vectors.shape[:-1], self.states, self.actions)
            return self._minus_mean(np.einsum("...ssa->...sa", vectors.reshape(shape)))
        return np.einsum("sap,...sp->...sa", self._centred_features, vectors)

    def squared_norm_of_combination(self, left: Array, right: Array) -> Array:
        """<sum of left[n] z, sum of right[n] z> for each n: from two (N, S, A) arrays to (N,)."""
        if self._features is None:
            first = self._centred(left)
            return np.einsum("nsa,nsa->n", first, first if right is left else self._centred(right))
        return np.einsum("np,np->n", self.combine_scores(left), self.combine_scores(right))

    def squared_norm_of_tokens(
        self, state: NDArray[np.int64], action: NDArray[np.int64], left: Array, right: Array
    ) -> Array:
        """<sum over t of left[n, t] z_nt, sum over t of right[n, t] z_nt>, z_nt = z(state[n, t], action[n, t]): from
        four (N, T) arrays to (N,). Tokens with weight zero may be anywhere.
        """
        N, T = state.shape
        # Scores of a tabular policy in different states are orthogonal; only who comes back needs a table (S, A).
        again = np.ones(N, dtype=bool)
        if self._features is None:
            weighted = (left != 0.0) | (right != 0.0)
            visited = np.sort(np.where(weighted, state, -1 - np.arange(T)), axis=1)
            again = (visited[:, 1:] == visited[:, :-1]).any(axis=1)
        result = np.zeros(N)
        once = np.flatnonzero(~again)
        if once.size:
            result[once] = np.einsum("nt,nt,nt->n", left, right, self.squared_score[state, action])[once]
        rows = max(1, _TABLE_NUMBERS // (self.states * self.actions))
        for begin in range(0, np.count_nonzero(again), rows):
            some = np.flatnonzero(again)[begin : begin + rows]
            first = self._table(state[some], action[some], left[some])
            second = first if right is left else self._table(state[some], action[some], right[some])
            result[some] = self.squared_norm_of_combination(first, second)
        return result

    def _table(self, state: NDArray[np.int64], action: NDArray[np.int64], weights: Array) -> Array:
        """Sums of the weights (N, T) of tokens in each state and action, (N, S, A)."""
        cells = self.states * self.actions
        where = np.arange(len(state))[:, None] * cells + state * self.actions + action
        total = np.bincount(where.reshape(-1), weights.reshape(-1), len(state) * cells)
        return np.asarray(total.reshape(len(state), self.states, self.actions), dtype=np.float64)


class Ratios(NamedTuple):
    """What two policies over the same states and actions say of each other, per state and action."""

    log_ratio: Array
    """log pi(a|s) - log mu(a|s), (S, A); -inf where only mu acts, zero where neither does."""
    lost: NDArray[np.bool_]
    """Where the target acts and the behaviour does not, (S, A)."""
    old: SoftmaxPolicy | None = None
    """The policy of the start of the update, for weights that tell three policies apart."""
    lag: Array | None = None
    """(1 or T, S): number of updates between the policy that drew a token and the target."""


def ratios(target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> Ratios:
    """Log-ratios of the target to the behaviour policy, and where support is lost."""
    with np.errstate(invalid="ignore"):
        log_ratio = target.log_probabilities - behaviour.log_probabilities
    unused = behaviour.probabilities == 0.0
    return Ratios(np.where(unused, 0.0, log_ratio), unused & (target.probabilities > 0.0))


def _frozen(array: Array) -> Array:
    array = np.asarray(array)
    array.flags.writeable = False
    return array
