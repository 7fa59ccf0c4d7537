"""Baseline invariance of a weight: what a baseline adds to the expected estimator, and what V adds beside A."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.engines import enumeration
from theory.engines.expected import exact_engine, expected_coefficients, expected_cumulative_scores, scores_by_state
from theory.engines.problem import Problem, checked_ratios
from theory.engines.question import Question
from theory.estimator import Estimator
from theory.gradient import policy_gradient
from theory.groups import GroupSignal
from theory.policy import Ratios, SoftmaxPolicy
from theory.process import MarkovProcess
from theory.sign_vectors import largest_signed_sum
from theory.value_functions import values
from theory.weights.registry import Weight

Array = NDArray[np.float64]

BASELINES = ("expected_return", "target_value", "behaviour_value")
_MOST_NUMBERS = 200_000_000


@dataclass(frozen=True, eq=False)
class WorstBaseline:
    """The baseline bounded by one that leaks most."""

    lower: float
    """|leak| of `baseline`; no |b| <= 1 leaks more than `upper`."""
    upper: float
    """Equal to `lower` where the maximum is known exactly."""
    baseline: Array
    """(T, S) of -1 and 1, the same at all steps where it had to be stationary."""

    @property
    def exact(self) -> bool:
        """Whether the bounds meet, to 12 digits."""
        return self.upper - self.lower <= 1e-12 * self.upper


@dataclass(frozen=True, eq=False)
class BaselineLeak:
    """E_mu[sum over t of c_t discount^t b_t(s_t) score_t]: zero for every b if the weight is baseline-invariant."""

    baseline: Array
    """b_t(s), (T, S)."""
    leak: Array
    """(P,), in the units of b: what subtracting b from the signal takes away from the expected estimator."""
    by_step: Array
    """(T, P), what the token at each step contributes; sums to `leak`."""
    gradient: Array
    """g, the true gradient, (P,), for scale."""
    engine: str
    """"recursion" or "enumeration"."""
    _target: SoftmaxPolicy
    _table: Array
    """discount^t E[c_t 1{s_t, a_t}], (T, S, A); with the cumulative score that of c_t 1{s_t} score_t, (T, S, P)."""
    _score: str

    @property
    def size(self) -> float:
        """|leak|."""
        return float(np.linalg.norm(self.leak))

    @property
    def relative_size(self) -> float:
        """|leak| / |gradient|; NaN where the gradient is zero."""
        scale = float(np.linalg.norm(self.gradient))
        return self.size / scale if scale > 0.0 else float("nan")

    @cached_property
    def by_state(self) -> Array:
        """The leak of each state's indicator, b_t(s') = 1{s' = s} at all steps, (S, P)."""
        total = self._table.sum(axis=0)
        return total if self._score == "cumulative" else scores_by_state(self._target, total)

    @cached_property
    def by_step_and_state(self) -> Array:
        """The leak of the indicator of one state at one step, (T, S, P); the leak of any b is their sum times b.

        Raises:
            ValueError: T S P is beyond 2e8 numbers.
        """
        if self._score == "cumulative":
            return self._table
        T, S, P = *self.baseline.shape, self._target.parameter_count
        if T * S * P > _MOST_NUMBERS:
            raise ValueError(f"the leak by step and state has {T * S * P:.3g} numbers; expected at most 2e8")
        return np.stack([scores_by_state(self._target, step) for step in self._table])

    def worst(self, *, stationary: bool = False) -> WorstBaseline:
        """Maximum of |leak| over baselines with |b_t(s)| <= 1, and one that reaches it.

        The maximum over signs is exact where few or low-dimensional vectors are to be added, and otherwise bracketed
        by a local search from below and by min(sum of |v_i|, sqrt(n) sigma_max) from above, per block of vectors that
        share a parameter. It is exact in token trees, where each prefix is a state of its own: sqrt(sum of |v_s|^2).

        Args:
            stationary: only baselines that are the same function of the state at all steps.
        """
        T, S = self.baseline.shape
        vectors = self.by_state if stationary else self.by_step_and_state.reshape(T * S, -1)
        found = largest_signed_sum(vectors)
        return WorstBaseline(found.lower, found.upper, np.broadcast_to(found.signs.reshape(-1, S), (T, S)))


@dataclass(frozen=True, eq=False)
class ValueContribution:
    """Q = V + A term by term: each E_mu[sum over t of c_t discount^t f_t z_t], with the same coefficients for all."""

    action_value: Array
    """(P,), f = Q_t(s_t, a_t)."""
    state_value: Array
    """(P,), f = V_t(s_t): the leak of the baseline V, zero if the weight is baseline-invariant."""
    advantage: Array
    """(P,), f = A_t(s_t, a_t)."""
    by_step: Mapping[str, Array]
    """"action_value", "state_value", "advantage" -> (T, P)."""
    engine: str
    """"recursion" or "enumeration"."""


def baseline_leak(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    weight: str | Weight,
    baseline: Any = None,
    *,
    score: Literal["own", "cumulative"] = "own",
    signal: Any = "target_advantage",
    engine: str = "auto",
    missing_support: str = "raise",
    old: SoftmaxPolicy | None = None,
    lag: Any = None,
) -> BaselineLeak:
    """What a baseline leaks into the expected estimator: E_mu[sum over t of c_t discount^t b_t(s_t) score_t].

    For c_t = rho_t h(earlier ratios), E[c_t z_t | s_t, earlier] = h sum over a of grad pi(a|s_t) = 0, so that every
    baseline drops out with the own score (the factors of later tokens that `suffix` and `sequence` have integrate to
    one). Whatever bounds or removes rho_t itself leaks; the cumulative score leaks through the earlier scores.

    A weight that looks at the sign of the advantage (`ppo_clip`) is applied to `signal`, which it would see in the
    estimator that the baseline is part of; its coefficients then multiply b. The leak is that of a baseline added
    after the coefficient was chosen. Only the sign of the signal matters, and only to such weights. A weight that
    couples the trajectories of a batch is taken with each trajectory as a batch of its own.

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        behaviour: mu, the policy that generates the data.
        weight: a name, or `theory.weight(name, **options)`.
        baseline: b, a number (default 1), (S,), (T, S), "expected_return" (of mu), "target_value" or
            "behaviour_value". It is discounted to the start, as the named signals are.
        score: "own" or "cumulative".
        signal: whose sign the weight sees: a name or `theory.signal(name, baseline=...)`.
        engine: "recursion" (weights that factorise; sign-dependent ones with signals that are tables), "enumeration",
            or "auto". There is no sampling.
        missing_support: "raise", or "allow" where mu need not act wherever pi does: then even `token` leaks, as what
            mu cannot draw is missing from the sum over a.
        old: as in `theory.moments`.
        lag: as in `theory.moments`.

    Raises:
        ValueError: policies and process disagree, support is missing, an unknown name, a baseline of another shape, a
            group signal under a weight that looks at its sign, or an engine that cannot take the problem.

    >>> coin = theory.MarkovProcess([1.0, 0.0], [[[0.0, 1.0]] * 2, [[0.0, 1.0]] * 2], [[1.0, 0.0]] * 2, horizon=1)
    >>> policies = theory.SoftmaxPolicy(np.log([[0.8, 0.2]] * 2)), theory.SoftmaxPolicy(np.zeros((2, 2)))
    >>> theory.baseline_leak(coin, *policies, "none").leak[:2].round(12)  # mu - pi
    array([-0.3,  0.3])
    >>> theory.baseline_leak(coin, *policies, "token").size < 1e-15
    True
    """
    table = _checked(process, target, behaviour, missing_support, old, lag)
    problem = _problem(process, target, behaviour, table, Estimator(weight, signal, score))
    b = _baseline(baseline, process, target, behaviour)
    engine = exact_engine(problem, engine)
    discounts = _discounts(process)[:, None, None]
    if score == "own":
        leaks = discounts * expected_coefficients(problem, engine)
        by_step = target.combine_scores(b[:, :, None] * leaks)
    else:
        leaks = discounts * expected_cumulative_scores(problem, engine)
        by_step = np.einsum("ts,tsp->tp", b, leaks)
    gradient = policy_gradient(process, target)
    return BaselineLeak(b, by_step.sum(axis=0), by_step, gradient, engine, target, leaks, score)


def value_contribution(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    weight: str | Weight,
    *,
    of: Literal["target", "behaviour"] = "target",
    signal: Any = None,
    engine: str = "auto",
    missing_support: str = "raise",
    old: SoftmaxPolicy | None = None,
    lag: Any = None,
) -> ValueContribution:
    """What V and what A contribute to the estimator with signal Q, exactly: E_mu[sum over t of c_t discount^t f_t z_t].

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        behaviour: mu, the policy that generates the data.
        weight: a name, or `theory.weight(name, **options)`.
        of: whose V, Q and A.
        signal: whose sign a weight that looks at it sees, the same for all three; default the advantage of `of`.
        engine: "recursion", "enumeration" or "auto".
        missing_support: "raise" or "allow".
        old: as in `theory.moments`.
        lag: as in `theory.moments`.

    Raises:
        ValueError: as `theory.baseline_leak`; `of` names neither policy.
    """
    checks.known_name("policy", of, ("target", "behaviour"))
    estimator = Estimator(weight, f"{of}_advantage" if signal is None else signal)
    ratios = _checked(process, target, behaviour, missing_support, old, lag)
    problem = _problem(process, target, behaviour, ratios, estimator)
    engine = exact_engine(problem, engine)
    table = _discounts(process)[:, None, None] * expected_coefficients(problem, engine)
    v = values(process, target if of == "target" else behaviour)
    parts = {
        "action_value": v.action_value,
        "state_value": v.state_value[:-1, :, None],
        "advantage": v.advantage,
    }
    by_step = {name: target.combine_scores(table * part) for name, part in parts.items()}
    return ValueContribution(**{name: x.sum(axis=0) for name, x in by_step.items()}, by_step=by_step, engine=engine)


def _checked(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    missing_support: str,
    old: SoftmaxPolicy | None,
    lag: Any,
) -> Ratios:
    checks.known_name("missing_support", missing_support, ("raise", "allow"))
    return checked_ratios(process, target, behaviour, missing_support == "allow", old, lag)


def _problem(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, ratios: Ratios, estimator: Estimator
) -> Problem:
    if isinstance(estimator.signal, GroupSignal):
        raise ValueError(f"signal is {estimator.signal!r}; expected a signal of one trajectory, such as 'outcome'")
    asked = Question(process, target, behaviour, ratios, estimator, enumeration.MOST_TRAJECTORIES)
    return asked.problem(asked.resolved())


def _baseline(baseline: Any, process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> Array:
    """As a (T, S) table."""
    T, S = process.horizon, process.states
    if isinstance(baseline, str):
        checks.known_name("baseline", baseline, BASELINES)
        v = values(process, target if baseline == "target_value" else behaviour)
        table = v.expected_return if baseline == "expected_return" else v.state_value[:-1]
    elif baseline is None or (isinstance(baseline, Real) and not isinstance(baseline, bool)):
        table = np.float64(1.0 if baseline is None else baseline)
    else:
        table = checks.numbers("baseline", baseline)
        if table.shape not in ((S,), (T, S)):
            raise ValueError(f"baseline has shape {table.shape}; expected a number, (S,) = {(S,)} or (T, S) = {(T, S)}")
    table = checks.float_array("baseline", np.broadcast_to(table, (T, S)), (T, S))
    checks.finite("baseline", table)
    return table


def _discounts(process: MarkovProcess) -> Array:
    return np.asarray(process.discount ** np.arange(process.horizon, dtype=np.float64))
