"""Lesson 6, MinPRO: the minimum, the clip, the floor, and what the clip does to baselines."""

from __future__ import annotations

from bisect import bisect_left
from itertools import product

import numpy as np

import testbed
import theory
from testbed import drift
from testbed.ledger.claims.minpro_clip_only_cuts_extremes import share_at_floor
from testbed.lessons.checking import Exercise, array, count, number

RATIOS = (0.9, 1.4, 0.7, 1.1, 2.0)
CLIP = (0.8, 1.28)


def _coefficients() -> object:
    return theory.weight("minpro", clip=CLIP).coefficients(np.log([RATIOS]))[0]


def _mean_of_fourth() -> float:
    ratios = np.array(list(product((0.5, 1.5), repeat=4)))
    return float(theory.weight("minpro").coefficients(np.log(ratios))[:, 3].mean())


def _best_baseline() -> float:
    """b that makes |bias| least: the mean is linear in b, with slope minus the leak of the baseline 1."""
    made = testbed.environment("parity", horizon=6)
    pair = drift.at("noise", made.process, made.target, kl=0.1)
    case, weight = (made.process, pair.target, pair.behaviour), theory.weight("minpro", clip=CLIP)
    bias = theory.moments(*case, theory.Estimator(weight, "outcome")).bias
    leak = theory.baseline_leak(*case, weight).leak
    return float(bias @ leak / (leak @ leak))


def _shortest() -> int:
    """More earlier tokens can only lower the minimum, so that the share grows with the length."""
    return 1 + bisect_left(range(1, 1000), 0.5, key=lambda tokens: share_at_floor(tokens, 0.2))


EXERCISES = (
    Exercise(
        "6.1",
        "The five coefficients of MinPRO with clip (0.8, 1.28) for the ratios 0.9, 1.4, 0.7, 1.1, 2.0.",
        _coefficients,
        array("the minimum is over strictly earlier ratios, and it is the product that is clipped"),
    ),
    Exercise(
        "6.2",
        "E[m_t rho_t] of the fourth token where every ratio is 1/2 or 3/2 with probability 1/2, independently.",
        _mean_of_fourth,
        number("m is 3/2 only if all three earlier ratios are, and rho_t is independent of them"),
    ),
    Exercise(
        "6.3",
        "In parity(horizon=6) with noise drift at KL 0.1: the constant baseline b for which outcome - b has the least "
        "|bias| under MinPRO with clip (0.8, 1.28).",
        _best_baseline,
        number("bias(b) = bias(0) - b leak is linear in b: find the b at which its length is least"),
    ),
    Exercise(
        "6.4",
        "The least length at which half of the tokens are below the floor 0.8; log-ratios normal, sd 0.2, E[rho] = 1.",
        _shortest,
        count("average P(m_t rho_t < 0.8) over the tokens of the sequence, the first among them"),
    ),
)
