"""The true policy gradient, and the performance difference of two policies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.value_functions import check_policy, occupancies, values

Array = NDArray[np.float64]


def policy_gradient(process: MarkovProcess, target: SoftmaxPolicy) -> Array:
    """g = gradient of J(theta) = E_pi[return] in the target's parameters, shape (P,), to be ascended.

    g = sum over t, s, a of discount^t P_pi(s_t = s) pi(a|s) A_t(s, a) z(s, a)
    (policy gradient theorem, Sutton et al. 1999, theorem 1, for a finite horizon). Where every component is within
    what rounding of the action values can make of zero, it is zero.

    >>> process = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=2)  # a reward for each token 1
    >>> pi = theory.SoftmaxPolicy(np.log([[0.5, 0.5]]))
    >>> theory.policy_gradient(process, pi).round(12)
    array([-0.5,  0.5])

    Raises:
        ValueError: the policy has other states or actions than the process.
    """
    v = values(process, target)
    alive = np.where(process.absorbing, 0.0, _discounts(process)[:, None] * v.occupancy[:-1])
    gradient = target.combine_scores(np.einsum("ts,sa,tsa->sa", alive, target.probabilities, v.advantage))
    # Each backup rounds once; a reward that does not depend on the action must not get a direction from that.
    size = np.einsum("ts,sa,ts->sa", alive, target.probabilities, np.abs(v.action_value).max(axis=2))
    rounding = np.finfo(float).eps * (process.horizon + 4) * target.combine_absolute_scores(size)
    return gradient if (np.abs(gradient) > rounding).any() else np.zeros_like(gradient)


def performance_difference(process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> float:
    """J(pi) - J(mu) = sum over t, s, a of discount^t P_pi(s_t = s) pi(a|s) A^mu_t(s, a).

    Kakade & Langford 2002, lemma 6.1, for a finite horizon.

    >>> process = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=2)  # a reward for each token 1
    >>> pi, mu = theory.SoftmaxPolicy(np.log([[0.5, 0.5]])), theory.SoftmaxPolicy(np.log([[0.8, 0.2]]))
    >>> round(theory.performance_difference(process, pi, mu), 12)  # 2 (0.5 - 0.2)
    0.6

    Raises:
        ValueError: a policy has other states or actions than the process.
    """
    check_policy(process, target, "target")
    occupancy = occupancies(process, target)[:-1]
    alive = np.where(process.absorbing, 0.0, _discounts(process)[:, None] * occupancy)
    advantage = values(process, behaviour).advantage
    return float(np.einsum("ts,sa,tsa->", alive, target.probabilities, advantage))


def _discounts(process: MarkovProcess) -> Array:
    return np.asarray(process.discount ** np.arange(process.horizon, dtype=np.float64))
