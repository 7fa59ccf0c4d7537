"""The least variance that an unbiased off-policy gradient can have, by a forward recursion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from theory import checks
from theory.critic.gradients import backed_up, exact_gradients
from theory.critic.limits import refuse_far_policies, refuse_large_horizon, refuse_large_steps
from theory.critic.marginal import marginal_ratios
from theory.critic.rounding import settled_variance, without_rounding
from theory.engines.problem import checked_ratios
from theory.engines.trajectories import Walk
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.value_functions import occupancies, values

Array = NDArray[np.float64]

MODELS = ("history", "markov")


@dataclass(frozen=True, eq=False)
class EfficiencyBound:
    """The bound on the variance of one trajectory, in squared units of the gradient, and where it comes from."""

    start: float
    """Variance of dV_0(s_0) over start states; zero for a fixed prompt."""
    steps: Array
    """(T,): what the rewards and transitions of each step add; zero where they are certain and none is estimated, inf
    beyond float64, NaN where rounding of the values decides it: known to 1e-6 of their sum."""
    model: str
    """"history" or "markov"."""

    @property
    def variance(self) -> float:
        """start + sum of steps: trace of the bound on the covariance, to be divided by the number of trajectories."""
        return self.start + float(self.steps.sum())


def efficiency_bound(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, model: str = "history"
) -> EfficiencyBound:
    """The asymptotic lower bound on the variance of estimators of the policy gradient from trajectories of mu.

    With d for gradients in theta, delta_t = r_t + discount V(s_{t+1}) - Q(s_t, a_t) of pi, and C_t the product of
    rho_j for j <= t, the efficient influence function of the value is V_0(s_0) - J + sum over t of
    discount^t C_t delta_t. Neither the data nor the model depends on theta, so that of the gradient is its derivative:

        dV_0(s_0) - g + sum over t of discount^t [C_t (sum over k <= t of z_k) delta_t + C_t d(delta_t)].

    Given the history and a_t, delta_t and d(delta_t) have mean zero: the summands are uncorrelated, and the bound is

        Var[dV_0(s_0)] + sum over t of discount^{2t} E_mu |C_t (sum over k <= t of z_k) delta_t + C_t d(delta_t)|^2,

    (traces of covariances; Kallus & Uehara 2020, arXiv 2002.04014, for processes without the Markov property).
    Expanding the recursion of `doubly_robust` with exact critic and gradient gives the influence function plus g,
    trajectory by trajectory, so its variance is the bound. In the Markov model w_t(s_t, a_t), the ratio of the
    occupancies of state and action, takes the place of C_t, and dw_t that of C_t times the sum of scores; this bound is
    never above the other, equal to it in trees, and the variance of `marginal` with exact critic.

    That nothing regular has less variance is the theorem of the paper, for laws of rewards and transitions that are
    unknown and may change with t. Who knows more can do better: `marginal` is told the exact w, and with a wrong critic
    its variance can be below the bound of the Markov model. Control variates cannot: they are functions of the past and
    of a_t with mean zero given the past, uncorrelated with the summands above, and so add to the bound of histories.

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        behaviour: mu, with the support of pi; whether it is known does not matter.
        model: "history", laws may depend on the whole past; "markov", on state, action and step only.

    Raises:
        ValueError: policies and process disagree, support is missing, an unknown model, a ratio beyond float64, or a
            problem that is too large.
    """
    checks.known_name("model", model, MODELS)
    ratios = checked_ratios(process, target, behaviour, False)
    walk = Walk(process, behaviour)
    refuse_large_steps(process, target, walk)
    refuse_large_horizon(process, target)
    refuse_far_policies(process, behaviour, ratios, walk)
    value = values(process, target)
    T, P = process.horizon, target.parameter_count
    gradient = np.zeros((T + 1, process.states, P))
    for t, (_, state_gradient) in zip(reversed(range(T)), exact_gradients(process, target), strict=True):
        gradient[t] = state_gradient
    off = gradient[0] - process.initial @ gradient[0]
    largest = max(float(np.abs(x).max()) for x in (value.action_value, process.terminal_reward))
    scale = largest**2 * float(target.squared_score.max())
    dropped, kept = np.empty(T), np.empty(T)
    weights = (_history if model == "history" else _markov)(process, target, behaviour, walk)
    edge = walk.state, walk.action
    with np.errstate(over="ignore", invalid="ignore"):
        for t, mass in enumerate(weights):
            later = process.discount * value.state_value[t + 1][walk.next_state]
            expected = value.action_value[t][edge]
            delta = walk.reward + later - expected
            later_gradient = process.discount * gradient[t + 1][walk.next_state]
            expected_gradient = backed_up(process, gradient[t + 1])[edge]
            d_delta = later_gradient - expected_gradient
            kept[t] = _step(*mass, delta, d_delta)
            dropped[t] = _step(
                *mass,
                without_rounding(delta, np.abs(walk.reward) + np.abs(later) + np.abs(expected)),
                without_rounding(d_delta, np.abs(later_gradient) + np.abs(expected_gradient)),
            )
    start = float(process.initial @ (off**2).sum(axis=1))
    return EfficiencyBound(start, settled_variance(dropped, kept, scale), model)


def _step(mass: Array, score: Array, squared_score: Array, delta: Array, d_delta: Array) -> float:
    """What one step adds: the sum over edges of E|C Z delta + C d(delta)|^2; inf where it is beyond float64."""
    # Where nothing is left to chance nothing is added, however large the mass.
    on = (delta != 0.0) | d_delta.any(axis=1)
    delta, d_delta = delta[on], d_delta[on]
    summand = squared_score[on] * delta**2 + 2.0 * delta * (score[on] * d_delta).sum(axis=1)
    total = float((summand + mass[on] * (d_delta**2).sum(axis=1)).sum())
    return total if math.isfinite(total) else math.inf


def _history(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, walk: Walk
) -> Iterator[tuple[Array, Array, Array]]:
    """discount^{2t} E_mu of C_t^2, C_t^2 Z_t and C_t^2 |Z_t|^2 on each edge, Z_t the sum of scores up to t."""
    s, a = walk.state, walk.action
    z = target.score[s, a]
    ratio = np.exp(target.log_probabilities[s, a] - behaviour.log_probabilities[s, a])
    # In this order: the square of a ratio may be beyond float64 where its mean is not.
    weight = walk.chance * ratio * ratio
    move = sparse.csr_array((np.ones(s.size), (walk.next_state, np.arange(s.size))), shape=(process.states, s.size))
    mass, score = process.initial.copy(), np.zeros((process.states, target.parameter_count))
    squared_score = np.zeros(process.states)
    for _ in range(process.horizon):
        edge_mass = weight * mass[s]
        edge_score = weight[:, None] * (score[s] + mass[s, None] * z)
        edge_squared = squared_score[s] + 2.0 * (score[s] * z).sum(axis=1) + mass[s] * (z**2).sum(axis=1)
        edge_squared *= weight
        yield edge_mass, edge_score, edge_squared
        mass, score, squared_score = (process.discount**2 * (move @ x) for x in (edge_mass, edge_score, edge_squared))


def _markov(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, walk: Walk
) -> Iterator[tuple[Array, Array, Array]]:
    """The same with w_t for C_t, and dw_t for C_t Z_t: means over mu of w_t^2, w_t dw_t and |dw_t|^2 on each edge."""
    ratios = marginal_ratios(process, target, behaviour)
    occupancy = occupancies(process, behaviour)
    for t in range(process.horizon):
        w, dw = ratios.at(t, walk.state, walk.action)
        # As above: roots, so that no square is taken of what may be beyond float64.
        root = process.discount**t * np.sqrt(occupancy[t][walk.state] * walk.chance)
        w, dw = root * w, root[:, None] * dw
        yield w**2, w[:, None] * dw, (dw**2).sum(axis=1)
