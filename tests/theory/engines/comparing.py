"""What "the same moments" means: relative to the size of what was summed."""

import numpy as np

import theory
from tests import brute_force

SIGNALS = [
    "target_advantage",
    "behaviour_advantage",
    "target_action_value",
    "behaviour_action_value",
    "reward",
    "reward_to_go",
    "outcome",
]


def assert_same_moments(found, mean, second, relative=1e-10):
    """`found` has this mean (P,) and E|g|^2.

    Errors are relative to the root mean square of the estimator: a mean or a variance far below it is a difference of
    large numbers, whose digits are those of the large ones.
    """
    size = max(float(np.sqrt(second)), 1e-3)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=relative * size)
    assert abs(found.variance - (second - mean @ mean)) <= relative * size**2


def assert_same(found, other, relative=1e-10):
    """Two records of moments, and their covariances where both were kept."""
    assert_same_moments(found, other.mean, other.variance + float(other.mean @ other.mean), relative)


def ask(instance, weight, signal, engine, score="own", reduction="sum", **options):
    options = brute_force.beside(*instance) | options
    return theory.moments(*instance, theory.Estimator(weight, signal, score, reduction), engine, **options)


NUMBER = 0.75


def with_number(signal):
    """The signal, minus a number where it takes a baseline, so that baselines are tested along."""
    return theory.signal(signal, baseline=NUMBER if signal in ("reward_to_go", "outcome") else "none")


def plain_baseline(process, signal, number=NUMBER):
    """What the brute force has to subtract for that, (T, S): rewards to go are discounted to the start, and so is b."""
    if signal not in ("reward_to_go", "outcome"):
        return 0.0
    discounts = process.discount ** np.arange(process.horizon, dtype=float)
    scale = discounts if signal == "reward_to_go" else np.ones(process.horizon)
    return number * scale[:, None] * np.ones(process.states)
