"""The least variance that an unbiased off-policy gradient can have, by a forward recursion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from theory import checks
from theory.critic.gradients import exact_gradients
from theory.critic.marginal import marginal_ratios
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
    """(T,): what the rewards and transitions of each step add; zero where they are certain and none is estimated."""
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
        ValueError: policies and process disagree, support is missing, or an unknown model.
    """
    checks.known_name("model", model, MODELS)
    checked_ratios(process, target, behaviour, False)
    walk = Walk(process, behaviour)
    value = values(process, target)
    gradients = list(exact_gradients(process, target))[::-1]
    acts = (walk.state, walk.action)
    start_gradient = gradients[0][1]
    off = start_gradient - process.initial @ start_gradient
    steps = np.empty(process.horizon)
    weights = (_history if model == "history" else _markov)(process, target, behaviour, walk)
    with np.errstate(over="ignore", invalid="ignore"):
        for t, (mass, score, squared_score) in enumerate(weights):
            delta = walk.reward + process.discount * value.state_value[t + 1][walk.next_state]
            delta -= value.action_value[t][acts]
            following = gradients[t + 1][1][walk.next_state] if t + 1 < process.horizon else 0.0
            d_delta = process.discount * following - gradients[t][0][acts]
            summand = squared_score * delta**2 + 2.0 * delta * (score * d_delta).sum(axis=1)
            summand += mass * (d_delta**2).sum(axis=1)
            steps[t] = process.discount ** (2 * t) * float(walk.chance @ summand)
    return EfficiencyBound(float(process.initial @ (off**2).sum(axis=1)), steps, model)


def _history(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, walk: Walk
) -> Iterator[tuple[Array, Array, Array]]:
    """E[C_t^2 1{s_t}], E[C_t^2 Z_t 1{s_t}], E[C_t^2 |Z_t|^2 1{s_t}] on each edge, Z_t the sum of scores up to t."""
    s, a = walk.state, walk.action
    z = target.score[s, a]
    squared_ratio = np.exp(2.0 * (target.log_probabilities[s, a] - behaviour.log_probabilities[s, a]))
    move = sparse.csr_array((walk.chance, (walk.next_state, np.arange(s.size))), shape=(process.states, s.size))
    mass, score = process.initial.copy(), np.zeros((process.states, target.parameter_count))
    squared_score = np.zeros(process.states)
    for _ in range(process.horizon):
        edge_mass = squared_ratio * mass[s]
        edge_score = squared_ratio[:, None] * (score[s] + mass[s, None] * z)
        edge_squared = squared_score[s] + 2.0 * (score[s] * z).sum(axis=1) + mass[s] * (z**2).sum(axis=1)
        edge_squared *= squared_ratio
        yield edge_mass, edge_score, edge_squared
        mass, score, squared_score = move @ edge_mass, move @ edge_score, move @ edge_squared


def _markov(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, walk: Walk
) -> Iterator[tuple[Array, Array, Array]]:
    """The same with w_t for C_t, and dw_t for C_t Z_t: P_mu(s_t) w_t^2, P_mu(s_t) w_t dw_t, P_mu(s_t) |dw_t|^2."""
    ratios = marginal_ratios(process, target, behaviour)
    occupancy = occupancies(process, behaviour)
    for t in range(process.horizon):
        w, dw = (table[walk.state, walk.action] for table in ratios.at(t))
        here = occupancy[t][walk.state]
        yield here * w**2, (here * w)[:, None] * dw, here * (dw**2).sum(axis=1)
