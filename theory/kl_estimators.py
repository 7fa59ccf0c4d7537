"""Estimators of KL(pi || ref) from one token: their values, and their derivatives in its log-probability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.policy import SoftmaxPolicy, ratios

Array = NDArray[np.float64]

ESTIMATORS = {
    "k1": "-log r, r = ref(a|s) / pi(a|s)",
    "k2": "(log r)^2 / 2",
    "k3": "r - 1 - log r",
}


class TokenEstimator(NamedTuple):
    """A function of the sampled token, (S, A) each; zero where pi or ref never takes the action."""

    value: Array
    """k(s, a), in nats."""
    derivative: Array
    """dk / d log pi(a|s) with ref fixed: what autograd multiplies z(s, a) with."""


def token_estimator(name: str, target: SoftmaxPolicy, reference: SoftmaxPolicy) -> TokenEstimator:
    """k and its derivative over states and actions (Schulman 2020, "Approximating KL divergence").

        k1 = -log r,        dk1 = 1
        k2 = (log r)^2/2,   dk2 = -log r
        k3 = r - 1 - log r, dk3 = 1 - r

    Raises:
        ValueError: an unknown name.
    """
    checks.known_name("estimator", name, ESTIMATORS)
    acts = (target.probabilities > 0.0) & (reference.probabilities > 0.0)
    log_r = np.where(acts, ratios(reference, target).log_ratio, 0.0)
    excess = np.expm1(log_r)
    value, derivative = {
        "k1": (-log_r, np.ones_like(log_r)),
        "k2": (log_r**2 / 2.0, -log_r),
        "k3": (excess - log_r, -excess),
    }[name]
    return TokenEstimator(np.where(acts, value, 0.0), np.where(acts, derivative, 0.0))


def check_finite(
    target: SoftmaxPolicy, reference: SoftmaxPolicy, behaviour: SoftmaxPolicy, acting: NDArray[np.bool_]
) -> None:
    """Raise where log r is infinite at a token that mu or pi can choose in an acting state (S,)."""
    pi, mu, ref = target.probabilities, behaviour.probabilities, reference.probabilities
    for wrong, text in (
        ((pi > 0.0) & (ref == 0.0), "reference gives action {} of state {} probability 0 where target does not"),
        ((mu > 0.0) & (pi == 0.0), "target gives action {} of state {} probability 0 where behaviour does not"),
    ):
        if (wrong & acting[:, None]).any():
            s, a = (int(i) for i in np.argwhere(wrong & acting[:, None])[0])
            raise ValueError(text.format(a, s) + "; expected log ref(a|s) - log pi(a|s) to be finite")


class TokenCounter(SoftmaxPolicy):
    """A policy whose score is the number 1 at every token, so that an engine gives moments of sum of c_t psi_t."""

    @property
    def parameter_count(self) -> int:
        """1."""
        return 1

    @property
    def score(self) -> Array:
        """(S, A, 1) of ones."""
        return np.ones((self.states, self.actions, 1))

    @property
    def squared_score(self) -> Array:
        """(S, A) of ones."""
        return np.ones((self.states, self.actions))

    def combine_scores(self, weights: Array) -> Array:
        """Sum of weights[..., s, a]: from (..., S, A) to (..., 1)."""
        return np.asarray(weights.sum(axis=(-2, -1))[..., None])

    def project_on_scores(self, vectors: Array) -> Array:
        """From (..., S, 1) to (..., S, A)."""
        return np.broadcast_to(vectors, (*vectors.shape[:-1], self.actions))

    def squared_norm_of_combination(self, left: Array, right: Array) -> Array:
        """Product of the sums of two (N, S, A) arrays, (N,)."""
        return np.asarray(left.sum(axis=(1, 2)) * right.sum(axis=(1, 2)))

    def squared_norm_of_tokens(
        self, state: NDArray[np.int64], action: NDArray[np.int64], left: Array, right: Array
    ) -> Array:
        """Product of the sums of two (N, T) arrays, (N,)."""
        return np.asarray(left.sum(axis=1) * right.sum(axis=1))
