"""The exact mean squared error of an outcome estimator with each baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import theory

# Candidates of which a practitioner can have an estimate; `mse_constant` needs the bias, which no sample shows.
CANDIDATES = (
    "none", "expected_return", "target_value", "behaviour_value", "leave_one_out", "optimal_constant",
    "optimal_per_state",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class BaselineErrors:
    """Exact error of the average over a batch, for each baseline, over |g|^2."""

    weight: str
    trajectories: int
    """Of the batch."""
    errors: Mapping[str, float]
    """Baseline -> E|mean of the batch - g|^2 / |g|^2. Beside the candidates: "mse_constant", the constant of least
    error, which takes the true gradient to know."""
    squared_biases: Mapping[str, float]
    """Baseline -> |E[g_hat] - g|^2 / |g|^2, the part that no batch from mu shows; without "mse_constant"."""
    parabola: tuple[float, float, float]
    """(a, b, c): the error with a constant x is a + b x + c x^2."""

    @property
    def best(self) -> str:
        """The baseline of least error."""
        return min(self.errors, key=self.errors.__getitem__)

    @property
    def least_variance(self) -> str:
        """The candidate of least variance: the choice of one who knows everything but the bias."""
        return min(self.squared_biases, key=lambda name: self.errors[name] - self.squared_biases[name])

    def at_constant(self, constant: float) -> float:
        """The error with this number as the baseline."""
        a, b, c = self.parabola
        return a + constant * (b + constant * c)

    def regret(self, error: float) -> float:
        """error / least error - 1, at least 0 up to rounding; NaN where the least error is zero."""
        least = self.errors[self.best]
        return error / least - 1.0 if least > 0.0 else float("nan")


def baseline_errors(
    process: theory.MarkovProcess,
    target: theory.SoftmaxPolicy,
    behaviour: theory.SoftmaxPolicy,
    weight: Any = "token",
    *,
    trajectories: int = 64,
    group_size: int = 8,
) -> BaselineErrors:
    """Exact error of weight x outcome with each baseline, for a batch of this many trajectories.

    "none", "expected_return", "target_value", "behaviour_value", "leave_one_out" (groups of `group_size`),
    "optimal_constant", "optimal_per_state" (both of least variance) and "mse_constant". Values and optimal baselines
    are the exact ones: a learned critic or an estimated constant does no better on average.

    Raises:
        ValueError: a weight that looks at the advantage's sign (its optimal baseline is not defined), a true
            gradient of zero, fewer trajectories than a group has, or what `theory.optimal_baseline` raises.
    """
    estimator = theory.Estimator(weight, "outcome")
    best = theory.optimal_baseline(process, target, behaviour, estimator, "state", group_size=group_size)
    moments = {name: best.moments[name] for name in CANDIDATES if name in best.moments}
    gradient = moments["none"].gradient
    scale = float(gradient @ gradient)
    if not scale > 0.0:
        raise ValueError("the true gradient is zero; expected a target policy that the return can improve")
    errors = {name: m.mean_squared_error(trajectories) / scale for name, m in moments.items()}
    # Three constants tell the parabola; they are as far apart as returns are.
    step = max(abs(float(process.expected_reward.max())), abs(float(process.terminal_reward.max())), 1.0)
    low, high = (
        theory.moments(
            process, target, behaviour,
            theory.Estimator(estimator.weight, theory.signal("outcome", baseline=x)),
            engine=moments["none"].engine,
        ).mean_squared_error(trajectories) / scale
        for x in (-step, step)
    )  # fmt: skip
    a = errors["none"]
    parabola = a, 0.5 * (high - low) / step, (0.5 * (low + high) - a) / step**2
    biases = {name: float(m.bias @ m.bias) / scale for name, m in moments.items()}
    _, slope, curvature = parabola
    errors["mse_constant"] = a - 0.25 * slope**2 / curvature if curvature > 0.0 else a
    return BaselineErrors(
        estimator.weight.label, trajectories, MappingProxyType(errors), MappingProxyType(biases), parabola
    )
