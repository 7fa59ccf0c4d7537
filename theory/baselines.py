"""Baselines side by side: which one gives an estimator the least variance, exactly, and what the others cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.engines import question
from theory.engines.choice import moments
from theory.engines.enumeration import MOST_TRAJECTORIES
from theory.engines.problem import EngineRefusal, checked_ratios
from theory.engines.question import Question
from theory.engines.record import Moments
from theory.estimator import Estimator
from theory.groups import group
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.signals import CARDS, Signal

Array = NDArray[np.float64]

PLAIN = ("none", "expected_return", "target_value", "behaviour_value")
PER = {
    "constant": "one number for all tokens",
    "state": "one number for each state",
    "parameter": "one number for each component of the gradient",
}


@dataclass(frozen=True, eq=False)
class OptimalBaseline:
    """The baseline that minimises the exact variance of an estimator, beside the usual ones."""

    per: str
    """"constant", "state" or "parameter"."""
    baseline: Array
    """() for a constant, (S,) per state (zero in absorbing ones), (P,) per parameter. In units of the return; with
    `reward_to_go`, discount^t times it is subtracted at step t."""
    variance: float
    """Trace of the covariance of one trajectory's estimator with it: the least there is."""
    moments: Mapping[str, Moments]
    """Exact moments with each baseline: "none", "expected_return", "target_value", "behaviour_value", "leave_one_out",
    "optimal_constant", and "optimal_per_state" or "optimal_per_parameter" where asked for. One that no exact engine can
    take is left out."""

    @property
    def variances(self) -> dict[str, float]:
        """Variance per trajectory with each baseline: that of one draw times the trajectories that it uses."""
        return {name: m.variance * m.trajectories_per_draw for name, m in self.moments.items()}


def optimal_baseline(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    estimator: Estimator,
    per: str = "constant",
    *,
    group_size: int = 8,
) -> OptimalBaseline:
    """The baseline of least exact variance for an outcome or reward-to-go estimator, on- or off-policy.

    With g_hat(b) = F - b Y, where F has no baseline and Y has the constant signal one:

    - constant: b = sum over p of Cov(F_p, Y_p) / sum over p of Var(Y_p). Where E[Y] = 0 this is E[<F, Y>] / E|Y|^2
      (Greensmith et al. 2004, eq. 15, where F = R Y), with W^2 in both expectations off-policy.
    - state: one number per state, from the normal equations Cov(Y_s, Y_s') b = Cov(Y_s, F).
    - parameter: b_p = Cov(F_p, Y_p) / Var(Y_p) minimises each component's variance by itself (Peters & Schaal 2008,
      sect. 3.2). Where Var(Y_p) = 0 any number does; the constant one stands there.

    The least variance is not the least mean squared error where the weight is not baseline-invariant: a baseline then
    moves the bias as well, see `.moments[name].bias`. A baseline of the optimal kind is fixed before the data: one that
    is estimated from the same batch is another estimator.

    Args:
        process: the environment.
        target: pi.
        behaviour: mu.
        estimator: its signal is "outcome" or "reward_to_go"; the signal's own baseline is replaced.
        per: "constant", "state" or "parameter".
        group_size: of the leave-one-out baseline it is compared with.

    >>> bandit = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    >>> pi = theory.SoftmaxPolicy(np.log([[0.8, 0.2]]))
    >>> best = theory.optimal_baseline(bandit, pi, pi, theory.Estimator("token", "outcome"))
    >>> round(float(best.baseline), 6), round(abs(best.variance), 6)  # two arms: 1 - pi of the arm with the reward
    (0.8, 0.0)

    Raises:
        ValueError: a signal that takes no baseline, an unknown `per`, a weight whose coefficients change with the sign
            of the advantage, or what `theory.moments` raises.
        EngineRefusal: no exact engine can take the estimator. It is a ValueError.
    """
    checks.known_name("per", per, PER)
    plain = _with(estimator, _baseline_free(estimator))
    asked = _question(process, target, behaviour, plain)
    constant = _solved(asked, per_state=False)[0]
    compared = baseline_moments(process, target, behaviour, plain, group_size=group_size)
    best = compared["optimal_constant"] = _required(asked, replace(plain.signal, baseline=float(constant)))
    baseline: Array = np.asarray(constant)
    if per == "state":
        baseline = _solved(asked, per_state=True)
        best = _required(asked, replace(plain.signal, baseline="optimal", per_state=True))
        compared["optimal_per_state"] = best
    elif per == "parameter":
        baseline, best = _per_parameter(asked, float(constant))
        compared["optimal_per_parameter"] = best
    return OptimalBaseline(per, baseline, best.variance * best.trajectories_per_draw, MappingProxyType(compared))


def baseline_moments(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    estimator: Estimator,
    *,
    group_size: int = 8,
) -> dict[str, Moments]:
    """Exact moments of an outcome or reward-to-go estimator with each of the usual baselines.

    "none", "expected_return" (of mu), "target_value", "behaviour_value", and for an outcome "leave_one_out": the mean
    return of the other group_size - 1 trajectories of a group. One that no exact engine can take is left out.

    Raises:
        ValueError: a signal that takes no baseline, or what `theory.moments` raises.
    """
    plain = _with(estimator, _baseline_free(estimator))
    asked = _question(process, target, behaviour, plain)
    signals: dict[str, Any] = {name: replace(plain.signal, baseline=name) for name in PLAIN}
    batch = plain.reduction.batch
    if plain.signal.name == "outcome" and batch in (1, group_size):
        signals["leave_one_out"] = group(group_size, "leave_one_out", "none")
    found = {name: _exact(asked, chosen) for name, chosen in signals.items()}
    return {name: m for name, m in found.items() if m is not None}


def _baseline_free(estimator: Estimator) -> Signal:
    signal = estimator.signal
    if not isinstance(signal, Signal) or not CARDS[signal.name].takes_baseline:
        takes = [name for name, card in CARDS.items() if card.takes_baseline]
        raise ValueError(f"signal {signal.label!r} takes no baseline; expected one of {', '.join(takes)}")
    return replace(signal, baseline="none", per_state=False)


def _with(estimator: Estimator, signal: Any) -> Estimator:
    return replace(estimator, signal=signal)


def _question(process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, e: Estimator) -> Question:
    ratios = checked_ratios(process, target, behaviour, allow_missing_support=False)
    return Question(process, target, behaviour, ratios, e, MOST_TRAJECTORIES)


def _solved(asked: Question, per_state: bool) -> Array:
    """The optimal baseline of each state, (S,), before discounting."""
    signal = replace(asked.estimator.signal, baseline="optimal", per_state=per_state)
    table = replace(asked, estimator=_with(asked.estimator, signal)).resolved().baseline
    assert table is not None
    # At step 0 nothing is discounted yet.
    return np.asarray(table[0])


def _exact(asked: Question, signal: Any, covariance: bool = False) -> Moments | None:
    """Moments with this signal by an exact engine; None where there is none."""
    chosen = replace(asked, estimator=_with(asked.estimator, signal))
    engine = question.cheapest_engine(chosen)
    if engine == "sampling":
        return None
    return moments(asked.process, asked.target, asked.behaviour, chosen.estimator, engine=engine, covariance=covariance)


def _required(asked: Question, signal: Any, covariance: bool = False) -> Moments:
    found = _exact(asked, signal, covariance)
    if found is None:
        raise EngineRefusal(
            f"no exact engine can take {asked.estimator.label} here; expected a shorter horizon or a weight that "
            "factorises"
        )
    return found


def _per_parameter(asked: Question, centre: float) -> tuple[Array, Moments]:
    """Each component's variance is a parabola in its baseline: three constant baselines tell all of them."""
    p = asked.process
    largest = p.horizon * np.abs(p.edges.reward).max(initial=0.0) + np.abs(p.terminal_reward).max()
    step = float(largest) or 1.0
    three = [
        _required(asked, replace(asked.estimator.signal, baseline=centre + x), covariance=True)
        for x in (-step, 0.0, step)
    ]
    low, middle, high = (np.diag(m.covariance) for m in three)
    curvature, slope = 0.5 * (low + high) - middle, 0.5 * (high - low)
    # Where the baseline does nothing to a component, what is left of the parabola is rounding.
    flat = curvature <= 1e-13 * np.maximum(low, high)
    moved = np.where(flat, 0.0, -slope / np.where(flat, 1.0, 2.0 * curvature))
    variance = middle + moved * slope + moved**2 * curvature
    mean = three[1].mean + moved * 0.5 * (three[2].mean - three[0].mean)
    best = replace(three[1], mean=mean, variance=float(np.maximum(variance, 0.0).sum()), _covariance=None)
    return centre + step * moved, best
