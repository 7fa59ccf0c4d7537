"""The record that every engine returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Exact (or sampled) mean and variance of an estimator, next to the gradient it is meant to estimate.

    One draw of the estimator is one trajectory; a group with a group signal; a batch where the reduction has one.
    """

    mean: Array
    """E_mu[g_hat] of one draw, (P,)."""
    variance: float
    """Trace of the covariance of one draw: E|g_hat|^2 - |mean|^2."""
    gradient: Array
    """The truth g, (P,)."""
    engine: str
    """Which engine answered: "recursion", "enumeration" or "sampling"."""
    trajectories_per_draw: int = 1
    """1, the group's size, or the reduction's batch."""
    lost_mass: float = 0.0
    """Probability, under the target, of the trajectories that mu cannot generate."""
    standard_error: Array | None = None
    """Sampling only: standard error of each component of `mean`, (P,)."""
    variance_standard_error: float | None = None
    """Sampling only: standard error of `variance`."""
    draws: int | None = None
    """Sampling only: the number of draws behind the estimate."""
    _covariance: Array | Callable[[], Array] | None = field(default=None, repr=False)

    @property
    def covariance(self) -> Array:
        """Covariance of one draw, (P, P); computed when first asked for, unless asked for in `theory.moments`."""
        value = self._covariance
        if callable(value):
            value = value()
            object.__setattr__(self, "_covariance", value)
        if value is None:
            raise ValueError("the covariance was not kept; expected a call of theory.moments(..., covariance=True)")
        return value

    @property
    def bias(self) -> Array:
        """mean - gradient, (P,)."""
        return self.mean - self.gradient

    @property
    def relative_bias(self) -> float:
        """|bias| / |gradient|; NaN where the gradient is zero."""
        return _ratio(float(np.linalg.norm(self.bias)), float(np.linalg.norm(self.gradient)))

    @property
    def cosine(self) -> float:
        """Cosine of the angle between mean and gradient; NaN where either is zero."""
        norms = float(np.linalg.norm(self.mean)) * float(np.linalg.norm(self.gradient))
        return _ratio(float(self.mean @ self.gradient), norms)

    @property
    def effective_step(self) -> float:
        """|mean| / |gradient|: how much longer or shorter the expected step is; NaN where the gradient is zero."""
        return _ratio(float(np.linalg.norm(self.mean)), float(np.linalg.norm(self.gradient)))

    def mean_squared_error(self, trajectories: int = 1) -> float:
        """|bias|^2 + variance / n, the expected squared distance to the gradient of the average over n trajectories.

        Where one draw uses several trajectories, n / trajectories_per_draw draws are averaged.

        Raises:
            ValueError: fewer trajectories than one draw needs.
        """
        draws = trajectories / self.trajectories_per_draw
        if not draws >= 1.0:
            raise ValueError(
                f"trajectories is {trajectories!r}; expected at least {self.trajectories_per_draw}, which one draw uses"
            )
        return float(self.bias @ self.bias) + self.variance / draws


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else float("nan")
