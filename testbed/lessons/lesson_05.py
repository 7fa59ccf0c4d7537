"""Lesson 5, variance and the horizon: effective sample size, error, and the batch at which winners change."""

from __future__ import annotations

import math

import numpy as np

import testbed
import theory
from testbed import drift
from testbed.lessons.checking import Exercise, count, number, word


def _moments(weight: str) -> theory.Moments:
    made = testbed.environment("modular_sum", horizon=6)
    pair = drift.at("noise", made.process, made.target, kl=0.1)
    return theory.moments(made.process, pair.target, pair.behaviour, theory.Estimator(weight, "target_advantage"))


def _crossing() -> float:
    minpro, token = _moments("minpro"), _moments("token")
    bias = minpro.bias @ minpro.bias - token.bias @ token.bias
    return float((token.variance - minpro.variance) / bias)


def _effective_sample_size() -> float:
    row = theory.MarkovProcess(np.ones(1), np.ones((1, 3, 1)), np.zeros((1, 3)), horizon=50)
    target, behaviour = (theory.SoftmaxPolicy(np.log([p])) for p in ((0.2, 0.3, 0.5), (0.3, 0.3, 0.4)))
    return theory.divergences(row, target, behaviour, moves=0).sequence.effective_sample_size


def _enough() -> int:
    m = _moments("prefix")
    return math.ceil(m.variance / (0.01 * float(m.gradient @ m.gradient)))


def _winner() -> str:
    errors = {
        name: _moments(name).mean_squared_error(1000) for name in ("none", "token", "minpro", "prefix", "sequence")
    }
    return min(errors, key=lambda name: errors[name])


_WHERE = "modular_sum(horizon=6), noise drift at KL 0.1, signal target_advantage"

EXERCISES = (
    Exercise(
        "5.1",
        f"The (real) batch size at which minpro and token have the same mean squared error. Setting: {_WHERE}.",
        _crossing,
        number("solve |b_1|^2 + v_1 / n = |b_2|^2 + v_2 / n for n"),
    ),
    Exercise(
        "5.2",
        "The effective sample size of the sequence ratio after 50 independent tokens, as a fraction; "
        "pi = (0.2, 0.3, 0.5), mu = (0.3, 0.3, 0.4).",
        _effective_sample_size,
        number("1 / E[W^2], and E[W^2] is a product over independent tokens"),
    ),
    Exercise(
        "5.3",
        f"The least number of trajectories at which the prefix ratio's root mean squared error is at most 0.1 |g|. "
        f"Setting: {_WHERE}.",
        _enough,
        count("the prefix has no bias here: only variance / n is left, to be compared with (0.1 |g|)^2"),
    ),
    Exercise(
        "5.4",
        f"Which of none, token, minpro, prefix, sequence has the least error at 1000 trajectories? Setting: {_WHERE}.",
        _winner,
        word("compare mean_squared_error(1000) of all five"),
    ),
)
