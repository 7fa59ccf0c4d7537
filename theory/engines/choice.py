"""`theory.moments`: one question, and the choice of the engine that answers it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.divergence import lost_mass
from theory.engines import enumeration, question
from theory.engines.problem import checked_ratios
from theory.engines.question import Question
from theory.engines.record import Moments
from theory.engines.reduce import Draw
from theory.engines.sampling import sampling
from theory.estimator import Estimator
from theory.gradient import policy_gradient
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]

ENGINES = {
    "recursion": "exact, polynomial in the horizon; weights that factorise over the tokens",
    "enumeration": "exact, every trajectory; any weight, small trees",
    "sampling": "Monte Carlo with standard errors; anything",
    "auto": "the cheaper exact engine that can take the problem, otherwise sampling",
}


def moments(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    estimator: Estimator,
    engine: str = "auto",
    *,
    covariance: bool = False,
    trajectories: int = 100_000,
    seed: int = 0,
    missing_support: str = "raise",
    most_trajectories: int = enumeration.MOST_TRAJECTORIES,
    old: SoftmaxPolicy | None = None,
    lag: Any = None,
) -> Moments:
    """Mean, variance and bias of an off-policy policy-gradient estimator under data from mu.

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        behaviour: mu, the policy that generates the trajectories.
        estimator: weight x signal x score x reduction.
        engine: "recursion", "enumeration", "sampling", or "auto", which takes the cheaper exact engine that can and
            falls back to sampling where they would take minutes; `Moments.engine` says which one answered.
        covariance: also keep the (P, P) covariance of one draw (otherwise it is computed when `.covariance` is read).
        trajectories: for sampling, how many to draw.
        seed: for sampling.
        missing_support: "raise", or "allow" where mu need not act wherever pi does (truncated samplers): then the
            moments are those of the data mu can give, and `lost_mass` is the target's probability of what it cannot.
        most_trajectories: enumeration refuses larger trees.
        old: pi_old, the policy of the start of the update, for weights that tell three policies apart (`decoupled`).
        lag: number of updates between the policy that drew a token and the target, a number or a table (S,) or (T, S),
            for weights that look at it.

    >>> transition = np.zeros((3, 2, 3))
    >>> transition[0, 0, 1] = transition[0, 1, 2] = 1  # the state is the first token,
    >>> transition[1:, :, 0] = 1
    >>> process = theory.MarkovProcess([1, 0, 0], transition, [[0, 0], [1, 0], [0, 1]], horizon=2)  # to be repeated
    >>> pi = theory.SoftmaxPolicy(np.log([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]))
    >>> mu = theory.SoftmaxPolicy(np.log([[0.8, 0.2], [0.5, 0.5], [0.5, 0.5]]))
    >>> for weight in ("token", "prefix"):
    ...     m = theory.moments(process, pi, mu, theory.Estimator(weight, "target_advantage"))
    ...     print(f"{weight:6} relative bias {m.relative_bias:.3f}, cosine {m.cosine:.3f}, variance {m.variance:.3f}")
    token  relative bias 0.579, cosine 0.817, variance 0.023
    prefix relative bias 0.000, cosine 1.000, variance 0.079

    Raises:
        ValueError: policies and process disagree, support is missing, an unknown name, or an engine that cannot take
            the problem (the message names one that can).
    """
    checks.known_name("engine", engine, ENGINES)
    checks.known_name("missing_support", missing_support, ("raise", "allow"))
    if not isinstance(estimator, Estimator):
        raise ValueError(f"estimator is {estimator!r}; expected theory.Estimator(weight=..., signal=...)")
    ratios = checked_ratios(process, target, behaviour, missing_support == "allow", old, lag)
    asked = Question(process, target, behaviour, ratios, estimator, most_trajectories)
    chosen = question.cheapest_engine(asked) if engine == "auto" else engine
    gradient = policy_gradient(process, target)
    lost = lost_mass(process, target, behaviour)
    per_draw = estimator.trajectories_per_draw
    if chosen == "sampling":
        checks.whole_number("trajectories", trajectories, 1, "trajectories")
        s = sampling(question.problem_to_sample(asked), estimator, trajectories, seed, covariance)
        return Moments(
            s.mean, s.variance, gradient, chosen, per_draw, lost, s.standard_error, s.variance_standard_error, s.draws,
            s.covariance,
        )  # fmt: skip
    draw = question.exact_draw(asked, chosen, outer=covariance)
    mean = draw.mean[0]
    second = draw.second[0, 0]
    # A second moment beyond float64 arrives as inf, or as the NaN of a difference of such.
    variance = float(max(second - mean @ mean, 0.0)) if np.isfinite(second) else np.inf
    matrix = _covariance(draw) if covariance else partial(_covariance_of, asked, chosen)
    return Moments(mean, variance, gradient, chosen, per_draw, lost, _covariance=matrix)


def _covariance_of(asked: Question, engine: str) -> Array:
    return _covariance(question.exact_draw(asked, engine, outer=True))


def _covariance(draw: Draw) -> Array:
    assert draw.outer is not None
    return np.asarray(draw.outer[0] - np.outer(draw.mean[0], draw.mean[0]))
