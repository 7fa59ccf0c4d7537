"""How many tokens does MinPRO's floor hold?"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

import theory
from testbed.ledger.record import Claim, Finding, Recorded, Sampled, Table, over_cells

FLOOR, CEILING = 0.8, 1.28
LENGTHS, SDS = (10, 100, 1000, 8000), (0.03, 0.1, 0.3)
SAMPLED_SEQUENCES, SAMPLED_LENGTH = 4000, 100


def _sum_of_powers(below: float, count: int) -> float:
    """q + q^2 + ... + q^count with q = 1 - below, without losing the digits of a small `below`."""
    if below == 0.0:
        return float(count)
    if below == 1.0:
        return 0.0
    return (1.0 - below) * -math.expm1(count * math.log1p(-below)) / below


def share_at_floor(tokens: int, sd: float) -> float:
    """Average over t < T of P(m_t rho_t < FLOOR), log rho i.i.d. normal with mean -sd^2/2, so that E[rho] = 1.

    Given the token's own log-ratio l, the minimum of t earlier ones exceeds log FLOOR - l with probability q^t, q the
    probability that one of them does. The sum of q^t over t is geometric, and one integral over l remains; the first
    token has m = 1.
    """
    mean = -(sd**2) / 2.0

    def held(x: float) -> float:
        below = float(norm.cdf(math.log(FLOOR) - (mean + sd * x), mean, sd))
        return float(norm.pdf(x)) * (tokens - 1 - _sum_of_powers(below, tokens - 1))

    return (_integral(held, sd) + float(norm.cdf(math.log(FLOOR), mean, sd))) / tokens


def share_at_ceiling(tokens: int, sd: float) -> float:
    """Likewise P(m_t rho_t > CEILING)."""
    mean = -(sd**2) / 2.0

    def held(x: float) -> float:
        below = float(norm.cdf(math.log(CEILING) - (mean + sd * x), mean, sd))
        return float(norm.pdf(x)) * _sum_of_powers(below, tokens - 1)

    return (_integral(held, sd) + float(norm.sf(math.log(CEILING), mean, sd))) / tokens


def _integral(held: Callable[[float], float], sd: float) -> float:
    """Over ten standard deviations; in pieces, since `held` is nearly a step."""
    edge = (math.log(FLOOR) + sd**2 / 2.0) / sd
    pieces = sorted({-10.0, max(edge, -10.0), 0.0, min(edge + 6.0, 10.0), 10.0})
    return float(sum(quad(held, a, b, epsabs=1e-10, epsrel=1e-9, limit=200)[0] for a, b in pairwise(pieces)))


def _shortest(share: float, sd: float) -> int:
    """The least length at which this share of the tokens is on the floor: more earlier tokens can only lower m_t."""
    return bisect_left(range(1, 1000), share, key=lambda tokens: share_at_floor(tokens, sd)) + 1


def settle() -> Finding:
    """Exact share of tokens on the floor by one-dimensional quadrature, and one sampled check of it."""
    floor = {(tokens, sd): share_at_floor(tokens, sd) for sd in SDS for tokens in LENGTHS}
    numbers: dict[str, float | Sampled] = {
        f"share on the floor, T = {tokens}, sd {sd:g}": value for (tokens, sd), value in floor.items()
    }
    numbers["share on the ceiling, T = 100, sd 0.1"] = share_at_ceiling(100, 0.1)

    drawn = np.random.default_rng(0).normal(-0.005, 0.1, (SAMPLED_SEQUENCES, SAMPLED_LENGTH))
    held = theory.weight("minpro", clip=(FLOOR, CEILING)).coefficients(drawn) == FLOOR
    # Tokens of one sequence share their minimum: the error is that of the sequences' shares.
    share = held.mean(axis=1)
    error = float(share.std(ddof=1)) / math.sqrt(SAMPLED_SEQUENCES)
    numbers["share on the floor, T = 100, sd 0.1 (sampled)"] = Sampled(float(share.mean()), error)

    numbers |= {
        f"shortest T with {share:.0%} of the tokens on the floor, sd 0.1": float(_shortest(share, 0.1))
        for share in (0.05, 0.5)
    }
    rows: list[tuple[Any, ...]] = [(f"{sd:g}", *(floor[tokens, sd] for tokens in LENGTHS)) for sd in SDS]
    rare = [value < 0.05 for value in floor.values()]
    verdict = over_cells(rare)
    because = (
        f"on the spread of the ratios and the length: at sd 0.1 the floor holds {floor[100, 0.1]:.0%} of the tokens at "
        f"T = 100 and {floor[8000, 0.1]:.0%} at 8000, where the weight is nearly a constant {FLOOR:g}; at sd 0.03 it "
        f"holds {floor[8000, 0.03]:.2g}"
    )
    columns = ("sd of log rho", *(f"T = {tokens}" for tokens in LENGTHS))
    table = Table(f"Share of tokens whose product m_t rho_t is below {FLOOR:g}", columns, rows)
    return Finding(verdict, because, numbers, (), (table,))


CLAIM = Claim(
    name="minpro_clip_only_cuts_extremes",
    statement="The two-sided clip of MinPRO's product, here to (0.8, 1.28), only cuts off extremes.",
    sources=("MinPRO, arXiv 2601.22718 (bounds from a third party's training script)",),
    rule="Log-ratios i.i.d. normal with E[rho] = 1. Holds if less than 5 % of the tokens are on the floor at every "
    "length and spread, fails if at none, depends otherwise.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "share on the floor, T = 10, sd 0.03": 3.628669e-07,
            "share on the floor, T = 100, sd 0.03": 3.84233e-06,
            "share on the floor, T = 1000, sd 0.03": 3.3092e-05,
            "share on the floor, T = 8000, sd 0.03": 0.0001890214,
            "share on the floor, T = 10, sd 0.1": 0.1780054,
            "share on the floor, T = 100, sd 0.1": 0.4932405,
            "share on the floor, T = 1000, sd 0.1": 0.7628834,
            "share on the floor, T = 8000, sd 0.1": 0.9000408,
            "share on the floor, T = 10, sd 0.3": 0.636295,
            "share on the floor, T = 100, sd 0.3": 0.9108334,
            "share on the floor, T = 1000, sd 0.3": 0.9834289,
            "share on the floor, T = 8000, sd 0.3": 0.9967873,
            "share on the ceiling, T = 100, sd 0.1": 0.0005509004,
            "share on the floor, T = 100, sd 0.1 (sampled)": 0.4932405,
            "shortest T with 5% of the tokens on the floor, sd 0.1": 3.0,
            "shortest T with 50% of the tokens on the floor, sd 0.1": 105.0,
        },
    ),
)
