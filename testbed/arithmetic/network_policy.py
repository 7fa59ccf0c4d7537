"""The network as a policy of the exact theory whose parameters are theta, so that the theory's engines take it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

import theory
from testbed.arithmetic.trees import DIGITS

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class NetworkPolicy(theory.SoftmaxPolicy):
    """A network on the tree of one prompt's answers: a table of probabilities, and scores in theta (P,).

    A score in theta is J' times a score in the logits, with J (S A, P) their Jacobian, which is never formed: sums of
    scores are pulled back, and the squared norm of what one answer adds up comes from products of its tokens' scores.

    Args:
        logits: (S, A).
        theta: (P,).
        pull_back: J' v of several v at once, from (K, S A) to (K, P).
        products: (S_p, A, T, T) inner products of the scores of the tokens of the answer that ends with action a after
            prefix s, in their order.
    """

    def __init__(self, logits: Array, theta: Array, pull_back: Callable[[Array], Array], products: Array) -> None:
        """Keep them."""
        super().__init__(logits)
        self.parameters, self._pull_back, self._products = theta, pull_back, products

    @cached_property
    def squared_score(self) -> Array:
        """|z(s, a)|^2 in theta, (S, A); zero where the answer has ended."""
        result = np.zeros(self.logits.shape)
        T = self._products.shape[-1]
        depth = np.repeat(np.arange(T), DIGITS ** np.arange(T))
        result[: len(depth)] = self._products[np.arange(len(depth)), :, depth, depth]
        return result

    def combine_scores(self, weights: Array) -> Array:
        """Sum over s, a of weights[..., s, a] z(s, a): from (..., S, A) to (..., P)."""
        vectors = self._centred(weights).reshape(-1, self.logits.size)
        return self._pull_back(vectors).reshape(*weights.shape[:-2], -1)

    def combine_absolute_scores(self, weights: Array) -> Array:
        """Sum over s, a of weights[s, a] |z(s, a)| by component, or more: no component exceeds the norm. (P,)."""
        return np.full(self.parameter_count, (weights * np.sqrt(self.squared_score)).sum())

    def project_on_scores(self, vectors: Array) -> Array:
        """<vectors[..., s, :], z(s, a)>: from (..., S, P) to (..., S, A), by the whole table of scores."""
        return np.asarray(np.einsum("sap,...sp->...sa", self.score, vectors))

    def squared_norm_of_combination(self, left: Array, right: Array) -> Array:
        """<sum of left[n] z, sum of right[n] z> for each n: from two (N, S, A) arrays to (N,), by N gradients."""
        return np.asarray(np.einsum("np,np->n", self.combine_scores(left), self.combine_scores(right)))

    def squared_norm_of_tokens(self, state: Index, action: Index, left: Array, right: Array) -> Array:
        """The same of the tokens of one answer each, whose t-th is the one at step t: four (N, T) arrays to (N,)."""
        rows, T = np.arange(len(state)), state.shape[1]
        weighted = (left != 0.0) | (right != 0.0)
        last = np.where(weighted, np.arange(T), 0).max(axis=1)
        products = self._products[state[rows, last], action[rows, last]]
        return np.asarray(np.einsum("ni,nij,nj->n", left, products, right, optimize=True))


def products_along_paths(gram: Array, probabilities: Array, horizon: int) -> Array:
    """(S_p, A, T, T) products of scores as `NetworkPolicy` takes them, from those of all logits: the slow way.

    Args:
        gram: J J' (S_p A, S_p A).
        probabilities: (S_p, A).
        horizon: T.
    """
    S, A = probabilities.shape
    products = gram.reshape(S, A, S, A)
    for _ in range(2):
        # The rows become products of scores, and then, as columns, the rows.
        products = _minus_mean(products, probabilities).transpose(2, 3, 0, 1)
    result = np.zeros((S, A, horizon, horizon))
    for state in range(S):
        # The parent of state s > 0 is (s - 1) // 10: children stand in the order of their parents.
        earlier: list[tuple[int, int]] = []
        while (first := earlier[0][0] if earlier else state) > 0:
            earlier.insert(0, ((first - 1) // DIGITS, (first - 1) % DIGITS))
        for action in range(A):
            s, a = np.array([*earlier, (state, action)]).T
            result[state, action, : len(s), : len(s)] = products[s[:, None], a[:, None], s, a]
    return result


def _minus_mean(values: Array, probabilities: Array) -> Array:
    """values[s, a] - sum over b of pi(b|s) values[s, b], (S, A, ...).

    Measured from the likeliest action, because its own difference from the mean is as small as what the others have.
    """
    rows, likeliest = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    apart = values - values[rows, likeliest][:, None]
    return apart - np.einsum("sa,sa...->s...", probabilities, apart)[:, None]
