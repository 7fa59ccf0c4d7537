"""`theory.critic_moments`: the exact mean and variance of a policy gradient that uses a critic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.critic.answers import Answer, Asked, by_enumeration, by_recursion, by_sampling, settled
from theory.critic.cards import CARDS, CriticCard
from theory.critic.gradients import critic_gradients
from theory.critic.limits import refuse_far_policies, refuse_large_steps
from theory.critic.methods import METHODS
from theory.critic.steps import Setting
from theory.critic.tables import critic_tables
from theory.divergence import lost_mass
from theory.engines.choice import ENGINES
from theory.engines.enumeration import MOST_TRAJECTORIES
from theory.engines.problem import EngineRefusal, checked_ratios
from theory.engines.record import Moments
from theory.engines.trajectories import Walk
from theory.gradient import policy_gradient
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]


def critic_moments(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    method: str = "doubly_robust",
    critic: Any = "target",
    critic_gradient: Any = None,
    *,
    cap: float | None = None,
    trace_cap: float | None = None,
    trace_decay: float | None = None,
    engine: str = "auto",
    covariance: bool = False,
    trajectories: int = 100_000,
    seed: int = 0,
    missing_support: str = "raise",
    most_trajectories: int = MOST_TRAJECTORIES,
) -> Moments:
    """Mean, variance and bias of a policy gradient that uses a critic, right or wrong, under data from mu.

    The doubly robust gradient is the derivative in theta of the doubly robust value (arXiv 1511.03722), with
    v = sum over a of pi(a|s) q(s, a), and dq whatever is taken for the gradient of q:

        D_t = v(s_t) + rho_t (r_t + discount D_{t+1} - q(s_t, a_t)),                       D_L = terminal reward
        G_t = dv(s_t) + rho_t z_t (r_t + discount D_{t+1} - q) + rho_t (discount G_{t+1} - dq),     G_L = 0
        dv(s) = sum over a of pi(a|s) (z(s, a) q(s, a) + dq(s, a)).

    It is unbiased for every q and every dq, which need not belong together: under mu, E[rho q | s] = v, and
    E[rho (z q + dq) | s] = dv, so both are control variates of mean zero. What remains is, by induction from the last
    step, E[D_t | s] = sum over a of pi (r + discount V^pi) = V^pi(s) and E[G_t | s] =
    sum over a of pi (z Q^pi + discount dV^pi) = the gradient of V^pi(s). Where mu lacks actions of pi, the means
    stay right with exact q and dq, which fill in what mu cannot show, and not with others.

    Given the step, (D_t, G_t) is affine in (D_{t+1}, G_{t+1}), as for all methods of `theory.critic_cards`. So their
    means and covariances given s_t follow from those given s_{t+1}: a backward recursion over (t, s), of order
    T (number of transitions) P operations, exact for any critic.

    A variance beyond float64 is inf. With an exact critic, errors that are zero may be known to rounding only, and
    products of ratios may multiply it to any size: the variance is NaN where it changes when what rounding can make is
    taken for zero. In deterministic processes, where those errors are exactly zero, so is the variance.

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        behaviour: mu, the policy that generates the trajectories.
        method: one of `theory.critic_cards()`.
        critic: "target" or "behaviour", exact values of pi or of mu; "zero"; action values (T, S, A); or, where the
            method needs no more, state values (T+1, S). Methods that need state values take V^mu for "behaviour" and
            sum over a of pi q for a table q. `theory.noisy_critic` makes wrong ones.
        critic_gradient: of doubly_robust and marginal: "exact", the gradient of Q^pi; "zero"; or a table (T, S, A, P).
            Default: the gradient that the critic has, which is "exact" for critic="target" and zero for others, as they
            do not move with theta.
        cap: upper bound of the step's own ratio; math.inf for none. Default: the method's.
        trace_cap: upper bound of the ratios that later corrections are multiplied with. Default: the method's.
        trace_decay: lambda, which multiplies those. Default: the method's.
        engine: "recursion"; "enumeration", every trajectory; "sampling"; "auto" is the recursion.
        covariance: also keep the (P, P) covariance (otherwise it is computed when `.covariance` is read).
        trajectories: for sampling, how many to draw.
        seed: for sampling.
        missing_support: "raise", or "allow" where mu need not act wherever pi does.
        most_trajectories: enumeration refuses larger trees.

    Raises:
        ValueError: policies and process disagree, support is missing, an unknown name, an option that the method does
            not take, tables of a wrong shape, a ratio, a mean or (when it is read) a covariance beyond float64, or a
            problem that is too large.

    >>> coin = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[1.0, 0.0]], horizon=3)
    >>> pi, mu = theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy([[0.0, 1.0]])
    >>> both = [theory.critic_moments(coin, pi, mu, "doubly_robust", critic) for critic in ("target", "zero")]
    >>> [m.mean.round(12).tolist() for m in both]
    [[0.75, -0.75], [0.75, -0.75]]
    >>> [round(m.variance, 3) for m in both]
    [0.0, 9.484]
    """
    card = CARDS[checks.known_name("method", method, CARDS)]
    checks.known_name("engine", engine, ENGINES)
    checks.known_name("missing_support", missing_support, ("raise", "allow"))
    ratios = checked_ratios(process, target, behaviour, missing_support == "allow")
    options = _options(card, {"cap": cap, "trace_cap": trace_cap, "trace_decay": trace_decay})
    tables = critic_tables(process, target, behaviour, critic, needs_actions=card.needs == "action values")
    walk = Walk(process, behaviour)
    refuse_large_steps(process, target, walk)
    refuse_far_policies(process, behaviour, ratios, walk)
    gradients = critic_gradients(process, target, _known_gradient(card, critic, critic_gradient))
    setting = Setting(process, target, behaviour, ratios, tables, gradients, walk, **options)
    asked = Asked(setting, METHODS[method], policy_gradient(process, target))
    lost = lost_mass(process, target, behaviour)
    if engine == "sampling":
        s = by_sampling(asked, checks.whole_number("trajectories", trajectories, 2, "trajectories"), seed, covariance)
        kept = s.covariance if s.covariance is not None or not covariance else _no_covariance
        return Moments(
            s.mean, s.variance, asked.truth, engine, 1, lost, s.standard_error, s.variance_standard_error, s.draws, kept
        )
    engine_moments = partial(by_enumeration, most=most_trajectories) if engine == "enumeration" else by_recursion
    exact = partial(settled, asked, engine_moments)
    answer = exact(covariance)
    later = answer.covariance if answer.covariance is not None else partial(_covariance, exact)
    engine = "recursion" if engine == "auto" else engine
    return Moments(answer.mean, answer.variance, asked.truth, engine, lost_mass=lost, _covariance=later)


def _covariance(exact: Callable[[bool], Answer]) -> Array:
    matrix = exact(True).covariance
    return _no_covariance() if matrix is None else matrix


def _no_covariance() -> Array:
    raise EngineRefusal(
        "the covariance is beyond float64, or rounding decides it; expected policies that are closer, or a method with "
        "capped ratios"
    )


def _known_gradient(card: CriticCard, critic: Any, critic_gradient: Any) -> Any:
    """What stands for the critic's gradient: as asked, or the one that the critic has."""
    if critic_gradient is None:
        return "exact" if card.takes_gradient and isinstance(critic, str) and critic == "target" else "zero"
    if not card.takes_gradient:
        takers = " and ".join(name for name, other in CARDS.items() if other.takes_gradient)
        raise ValueError(f"method {card.name!r} takes no critic_gradient; it belongs to {takers}")
    return critic_gradient


def _options(card: CriticCard, given: dict[str, float | None]) -> dict[str, Any]:
    result: dict[str, Any] = dict(card.options)
    for name, value in given.items():
        if value is None:
            continue
        if name not in card.options:
            taken = f"it takes {', '.join(card.options)}" if card.options else "it takes no options"
            raise ValueError(f"unknown option {name!r} of method {card.name!r}; {taken}")
        if isinstance(value, bool) or not isinstance(value, Real) or not value >= 0.0:
            raise ValueError(f"{name} is {value!r}; expected a number of at least 0")
        if name == "trace_decay" and not value <= 1.0:
            raise ValueError(f"trace_decay is {value!r}; expected a number in [0, 1]")
        result[name] = float(value)
    return result
