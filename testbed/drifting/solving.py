"""The strength of a drift that gives a divergence: the smallest one, or a refusal that says what can be reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from scipy.optimize import brentq, minimize_scalar

Curve = Callable[[float], float]
Point = tuple[float, float]
"""(strength, divergence)"""

_RATIO = 1.5  # of neighbouring strengths when looking for the first that reaches a divergence


class UnreachableError(ValueError):
    """A kind of drift cannot give the divergence asked for in this process."""

    def __init__(self, problem: str, below: Point = (0.0, 0.0), above: Point | None = None) -> None:
        """`below` and `above` are the nearest points that can be reached; without one above, the maximum is below."""
        super().__init__(problem)
        self.below = below
        """(strength, divergence): the nearest that can be reached below what was asked for."""
        self.above = above
        """(strength, divergence): the nearest above; None where the one below is the maximum."""

    @property
    def maximum(self) -> float:
        """The largest divergence that can be reached, in nats; NaN where larger ones than asked for can."""
        return self.below[1] if self.above is None else math.nan

    def nearest(self, kl: float) -> float:
        """The strength of the point nearest to a divergence; of two as near, the one below."""
        if self.above is None or not self.above[1] - kl < kl - self.below[1]:
            return self.below[0]
        return self.above[0]


def step_strength(curve: Curve, kl: float, strengths: Sequence[float], problem: str) -> float:
    """The smallest of these strengths that gives `kl` to 1e-9; the curve changes nowhere else.

    Raises:
        UnreachableError: none does.
    """
    below, above = (0.0, 0.0), (math.inf, math.inf)
    for strength in strengths:
        reached = curve(strength)
        if abs(reached - kl) <= 1e-9 * kl:
            return strength
        # Where a step changes nothing but rounding, the smaller strength is named.
        if below[1] * (1.0 + 1e-9) < reached < kl:
            below = strength, reached
        elif kl < reached < above[1] * (1.0 - 1e-9):
            above = strength, reached
    if math.isinf(above[1]):
        raise UnreachableError(f"{problem}; the maximum is {below[1]:.6g} at strength {below[0]:.6g}", below)
    raise UnreachableError(
        f"{problem}, which goes in steps; the nearest are {below[1]:.6g} at strength {below[0]:.6g} and {above[1]:.6g} "
        f"at strength {above[0]:.6g} (nearest=True takes the nearer one)",
        below,
        above,
    )


def smallest_strength(curve: Curve, kl: float, unit: float, limit: float, problem: str) -> float:
    """The smallest strength up to `limit` at which the curve, zero at zero, reaches `kl`.

    Raises:
        UnreachableError: there is none, or the curve jumps over it.
    """
    largest = (0.0, 0.0)
    for low, strength, reached in _scan(curve, kl, unit, limit):
        if reached >= kl:
            return _solve(curve, kl, low, strength, problem)
        if reached > largest[1] * (1.0 + 1e-9):  # on a plateau, the first strength is named, not a rounding later on
            largest = strength, reached
    raise UnreachableError(f"{problem}; the maximum is {largest[1]:.6g} at strength {largest[0]:.6g}", largest)


def _scan(curve: Curve, kl: float, unit: float, limit: float) -> Iterator[tuple[float, float, float]]:
    """Upwards on a geometric grid, and at the peaks between its points: (a lower strength, strength, divergence)."""
    if limit == 0.0:
        return
    low, middle = (0.0, 0.0), (0.0, 0.0)
    strength = _first_strength(curve, kl, unit, limit)
    while True:
        high = (strength, curve(strength))
        if low[1] <= middle[1] and high[1] < middle[1] * (1.0 - 1e-12):
            yield low[0], *_peak(curve, low[0], high[0])
        yield middle[0], *high
        if strength >= limit:
            break
        low, middle, strength = middle, high, min(strength * _RATIO, limit)
    if high[1] > middle[1]:
        yield middle[0], *_peak(curve, middle[0], limit)


def _first_strength(curve: Curve, kl: float, unit: float, limit: float) -> float:
    """A strength well below the solution: divergences grow with the square of a small strength."""
    probe = min(1e-2 * unit, limit)
    reached = curve(probe)
    strength = min(probe, 0.5 * probe * math.sqrt(kl / reached)) if reached > 0.0 else probe
    while curve(strength) >= kl and strength > 1e-300:
        strength *= 0.25
    return strength


def _peak(curve: Curve, low: float, high: float) -> Point:
    found = minimize_scalar(lambda x: -curve(x), bounds=(low, high), method="bounded", options={"xatol": 1e-9 * high})
    return float(found.x), float(-found.fun)


def _solve(curve: Curve, kl: float, low: float, high: float, problem: str) -> float:
    """The strength between `low` (below `kl`) and `high` (at or above it); an error where the curve jumps."""
    # The second term is the rounding of logits: they move by some sqrt(kl), and carry an error of some 1e-15.
    tolerance = 1e-10 * kl + 1e-14 * math.sqrt(kl)

    def residual(strength: float) -> float:
        excess = curve(strength) - kl
        return 0.0 if abs(excess) <= 0.1 * tolerance else excess  # zero ends the iteration

    while math.isinf(curve(high)) and low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if curve(middle) < kl else (low, middle)
    if math.isfinite(curve(high)):
        strength = float(brentq(residual, low, high, xtol=1e-300, rtol=1e-14, maxiter=500))
        if abs(curve(strength) - kl) <= tolerance:
            return strength
        low, high = strength * (1.0 - 1e-9), strength * (1.0 + 1e-9)
    below, above = (low, curve(low)), (high, curve(high))
    jump = f"{problem}; at strength {high:.6g} it jumps from {below[1]:.6g} to {above[1]:.6g}"
    raise UnreachableError(jump, below, above)
