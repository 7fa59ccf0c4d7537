"""Sum or mean of the log-ratios of a sequence: what each is worth at length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Sampled, Table, Verdict
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees

SD, LENGTHS = 0.03, (1, 100, 1000, 9000)
DRAWS = 200_000


def _log_normal(mean: float, variance: float) -> dict[str, float]:
    """Mean, median and effective sample size (share) of exp of a normal variable."""
    return {
        "mean": math.exp(mean + variance / 2.0),
        "median": math.exp(mean),
        "ESS/N": math.exp(-variance),
    }


def settle() -> Finding:
    """Closed forms for i.i.d. Gaussian log-ratios with E[rho] = 1; exact gradients at up to 512 tokens."""
    weights: list[tuple[Any, ...]] = []
    gradients: list[tuple[Any, ...]] = []
    for tokens in LENGTHS:
        total = _log_normal(-tokens * SD**2 / 2.0, tokens * SD**2)
        mean = _log_normal(-(SD**2) / 2.0, SD**2 / tokens)
        weights.append((f"{tokens}", *total.values(), *mean.values()))
    numbers = {f"{name} of W, T = 9000": value for name, value in total.items()}
    numbers |= {f"{name} of W^(1/T), T = 9000": value for name, value in mean.items()}
    # A check of the closed form by drawing: the logarithm of W is the sum of the tokens'.
    rng = np.random.default_rng(0)
    summed = -9000 * SD**2 / 2.0 + SD * math.sqrt(9000.0) * rng.standard_normal(DRAWS)
    below = float(np.mean(np.exp(summed) < 0.02))
    sampled = {"share of W below 0.02, T = 9000 (sampled)": Sampled(below, math.sqrt(below * (1 - below) / DRAWS))}

    signal = theory.signal("outcome", baseline="expected_return")
    for tokens in (8, 64, 512):
        case = cases.sums(tokens, kl=0.01)
        one, other = (cases.moments(case, weight, signal) for weight in ("sequence", "geometric"))
        even = other.bias @ other.bias
        crossing = (one.variance - other.variance) / float(even)
        gradients.append(
            (f"{tokens}", one.relative_bias, one.variance, other.relative_bias, other.cosine, other.variance, crossing)
        )
        numbers |= {
            f"relative bias of the sum, T = {tokens}": one.relative_bias,
            f"relative bias of the mean, T = {tokens}": other.relative_bias,
            f"variance of the sum over that of the mean, T = {tokens}": one.variance / other.variance,
            f"batch from which the sum has less error, T = {tokens}": crossing,
        }

    def biased(weight: str) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            m = tree.moments(weight, "outcome")
            return {"relative bias": m.relative_bias, "cosine": m.cosine} if m.relative_bias > 1e-6 else None

        return shows

    searches = (
        smallest("the mean (W^(1/T)) is biased", biased("geometric"), tiny_trees()),
        smallest("the sum (W) is biased", biased("sequence"), tiny_trees(), most=600),
    )
    unbiased = max(float(row[1]) for row in gradients) < cases.ZERO
    crossings = [float(row[-1]) for row in gradients]
    other_too = max(float(row[3]) for row in gradients) < cases.ZERO
    tradeoff = unbiased and min(crossings) > 1.0
    verdict: Verdict = "holds" if other_too else "depends" if tradeoff else "fails"
    because = (
        "on length and batch: the sum is unbiased and useless at length, the mean is another, biased estimator; the "
        f"sum has less error from {crossings[0]:.3g} trajectories at T = 8, {crossings[1]:.3g} at 64, "
        f"{crossings[2]:.3g} at 512"
    )
    tables = (
        Table(
            "Weights: i.i.d. Gaussian log-ratios of sd 0.03, E[rho] = 1; sum on the left, mean on the right",
            ("T", "E[W]", "median", "ESS/N", "E[W^(1/T)]", "median", "ESS/N"),
            weights,
        ),
        Table(
            "Gradients: sum modulo 5, KL 0.01 per token, outcome - E[R]; sum on the left, mean on the right",
            ("T", "bias", "variance", "bias", "cosine", "variance", "n equal"),
            gradients,
        ),
    )
    return Finding(verdict, because, {**numbers, **sampled}, searches, tables)


CLAIM = Claim(
    name="averaging_log_ratios_fixes_sequence_weights",
    statement="Sequence weights should average the log-ratios instead of summing them (weight .569 -> .993).",
    sources=("TRL issues 5814, 5815",),
    rule="Holds if the mean is unbiased as well; depends if the sum is unbiased and needs a batch that grows with "
    "length to win; fails if the sum always wins.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "mean of W, T = 9000": 1.0,
            "median of W, T = 9000": 0.01742237,
            "ESS/N of W, T = 9000": 0.0003035391,
            "mean of W^(1/T), T = 9000": 0.9995502,
            "median of W^(1/T), T = 9000": 0.9995501,
            "ESS/N of W^(1/T), T = 9000": 0.9999999,
            "relative bias of the sum, T = 8": 0.0,
            "relative bias of the mean, T = 8": 0.09648603,
            "variance of the sum over that of the mean, T = 8": 1.346015,
            "batch from which the sum has less error, T = 8": 994.8151,
            "relative bias of the sum, T = 64": 0.0,
            "relative bias of the mean, T = 64": 0.099194,
            "variance of the sum over that of the mean, T = 64": 5.401204,
            "batch from which the sum has less error, T = 64": 104768.7,
            "relative bias of the sum, T = 512": 0.0,
            "relative bias of the mean, T = 512": 0.100058,
            "variance of the sum over that of the mean, T = 512": 233263.3,
            "batch from which the sum has less error, T = 512": 77168270000.0,
            "share of W below 0.02, T = 9000 (sampled)": 0.5193332,
        },
        found=(
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4 1/2 1/2; R = 1 0 0 0",
            None,
        ),
    ),
)
