"""The law of a weight at each position of a sequence: products drift off, minima sink, a clip's floor fills up."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from figures import style
from figures.data import Row, write_csv

Array = NDArray[np.float64]

NAME = "weight_by_position"
POSITIONS = (1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 1000)
ACTIONS, KL = 512, 0.01
CLIP = (0.8, 1.28)
CLIPPED = f"minpro(clip={CLIP})"
PANELS = ("token", "prefix", "minpro", CLIPPED)
QUANTILES = (0.05, 0.5, 0.95)

# The law of a sum of log-ratios lives on this lattice. A log-ratio is rounded by at most half a step, so that the
# logarithm of a quantile of the prefix ratio after t tokens is off by at most t * STEP / 2: 2 % at t = 1000.
STEP = 4e-5
# The lattice is a circle of 84 nats, seen from 24 down to -60. E[W] = 1 bounds what lies above by exp(-24).
_POINTS, _TOP = 2**21, 24.0


class Law(NamedTuple):
    """A discrete law: ascending values and their probabilities."""

    value: Array
    probability: Array

    def quantile(self, level: float) -> float:
        """The smallest value that at least this share of the mass does not exceed."""
        # Sums of many probabilities end at 1 up to rounding, which must not push the last quantile off the end.
        place = np.searchsorted(np.cumsum(self.probability), level - 1e-12)
        return float(self.value[min(int(place), self.value.size - 1)])

    @property
    def mean(self) -> float:
        """Its expectation."""
        return float(self.value @ self.probability)


def draw(results: Path | None, out: Path, *, positions: tuple[int, ...] = POSITIONS) -> list[Path]:
    """Compute the laws and draw them; no table is read."""
    rows = _rows(positions)
    with style.subplots(2, 2, (9.6, 6.4), sharex=True) as (figure, axes):
        for ax, name in zip(axes.flat, PANELS, strict=True):
            _plot(ax, [row for row in rows if row["weight"] == name], name)
        for ax in axes[1]:
            ax.set_xlabel("position t, tokens counted from 1")
        figure.suptitle(
            f"Weight by position under mu, for every signal (none enters these weights)\ngarnet(states=1, "
            f"actions={ACTIONS}): i.i.d. tokens, noise drift, KL(mu || pi) = {KL:g} nats per token; exact laws "
            f"(prefix: within {50 * STEP * max(positions):.2g} %)",
            x=0.01,
            ha="left",
        )
        return [*style.save(figure, out, NAME), write_csv(out / f"{NAME}.csv", rows)]


@cache  # the same in every folder: drawn again in one process, it costs nothing
def _rows(positions: tuple[int, ...]) -> list[Row]:
    return laws(*token_law(max(positions)), positions)


def token_law(horizon: int, actions: int = ACTIONS, kl: float = KL) -> tuple[Array, Array]:
    """log rho of each action, and the probability of each action under mu, (A,) both; the same at every step."""
    from testbed import drift
    from testbed.environments import environment

    bandit = environment("garnet", states=1, branching=1, actions=actions, horizon=horizon)
    pair = drift.at("noise", bandit.process, bandit.target, kl=kl, seed=0)
    log_ratio = pair.target.log_probabilities[0] - pair.behaviour.log_probabilities[0]
    return log_ratio, pair.behaviour.probabilities[0]


def laws(log_ratio: Array, chance: Array, positions: tuple[int, ...]) -> list[Row]:
    """Quantiles and mean of each weight at each position (from 1), and the share of tokens at the clip's floor."""
    token, product, rows = token_weight_law(log_ratio, chance), _Product(log_ratio, chance), []
    for t in positions:
        minpro = minpro_law(log_ratio, chance, t)
        clipped = Law(np.clip(minpro.value, *CLIP), minpro.probability)
        for name, law in (("token", token), ("minpro", minpro), (CLIPPED, clipped)):
            floor = float(law.probability[law.value <= CLIP[0]].sum()) if name == CLIPPED else float("nan")
            rows.append(_row(name, t, [law.quantile(level) for level in QUANTILES], law.mean, floor))
        # The mean of the prefix ratio is 1 at every t: it comes from an event of less and less probability.
        rows.append(_row("prefix", t, product.quantiles(t), 1.0))
    return rows


def token_weight_law(log_ratio: Array, chance: Array) -> Law:
    """The law of rho_t, the same at every position."""
    return _sorted(np.exp(log_ratio), chance)


def minpro_law(log_ratio: Array, chance: Array, position: int) -> Law:
    """The law of m_t rho_t at a position counted from 1: the minimum of t - 1 independent ratios times one more."""
    order = np.argsort(log_ratio)
    ratio, mass = np.exp(log_ratio[order]), chance[order]
    if position == 1:
        return Law(ratio, mass)
    at_least = np.append(np.cumsum(mass[::-1])[::-1], 0.0) ** (position - 1)
    least = at_least[:-1] - at_least[1:]
    return _sorted(np.multiply.outer(ratio, ratio).ravel(), np.multiply.outer(least, mass).ravel())


class _Product:
    """The law of C_t, the product of t independent ratios, by powers of the characteristic function."""

    def __init__(self, log_ratio: Array, chance: Array) -> None:
        lattice = np.zeros(_POINTS)
        np.add.at(lattice, np.round(log_ratio / STEP).astype(int) % _POINTS, chance)
        self._spectrum = np.fft.rfft(lattice)
        self._first = int(_TOP / STEP) + 1

    def quantiles(self, t: int) -> list[float]:
        """`QUANTILES` of the product of t ratios."""
        mass = np.roll(np.fft.irfft(self._spectrum**t, _POINTS), -self._first)
        mass[mass < 1e-14] = 0.0  # the transform's rounding
        places = np.searchsorted(np.cumsum(mass), np.array(QUANTILES) - 1e-9)
        return [float(x) for x in np.exp((places + self._first - _POINTS) * STEP)]


def _row(weight: str, position: int, quantiles: list[float], mean: float, floor: float = float("nan")) -> Row:
    named = dict(zip(("quantile_05", "median", "quantile_95"), quantiles, strict=True))
    return {"weight": weight, "position": position, **named, "mean": mean, "share_at_floor": floor}


def _sorted(value: Array, probability: Array) -> Law:
    order = np.argsort(value)
    return Law(value[order], probability[order])


def _plot(ax: Any, rows: list[Row], weight: str) -> None:
    look = style.look(weight)
    t = [row["position"] for row in rows]
    low, high = [row["quantile_05"] for row in rows], [row["quantile_95"] for row in rows]
    ax.fill_between(t, low, high, color=look["color"], alpha=0.25, linewidth=0, label="5 to 95 %")
    ax.plot(t, [row["median"] for row in rows], label="median", **look)
    ax.plot(t, [row["mean"] for row in rows], color="black", linestyle=(0, (2, 2)), linewidth=1.2, label="mean")
    ax.set_xscale("log")
    ax.set_title(weight)
    ax.set_ylabel("weight c_t")
    if weight == "prefix":
        ax.set_yscale("log")
    else:
        ax.set_ylim(0.0, 1.5)
    handles = ax.get_legend_handles_labels()[0]
    floor = [row["share_at_floor"] for row in rows]
    if not np.isnan(floor[0]):
        share = ax.twinx()
        label = f"share of tokens at {CLIP[0]:g} (right axis)"
        share.plot(t, floor, color="black", linestyle="-.", linewidth=1.2, label=label)
        share.set_ylim(0.0, 1.5)
        share.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
        share.grid(False)
        share.spines["right"].set_visible(True)
        share.set_ylabel(f"share of tokens at the floor {CLIP[0]:g}")
        handles = [*handles, *share.get_legend_handles_labels()[0]]
    ax.legend(handles=handles, loc="lower left" if weight != CLIPPED else "lower right")
