"""Sampled estimates of the variances against the exact ones, and the regret of rules that choose by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import testbed
import theory
from testbed import drift
from testbed.baseline_choice.exact import CANDIDATES
from testbed.baseline_choice.regret import RULES
from testbed.baseline_choice.samples import draw_batches, estimates

BATCHES, N, GROUP = 300, 64, 8
FALSE_ALARM = 1e-4  # of each of the two comparisons of sampled with exact numbers that expect to pass
# With exact baselines, a sample variance is unbiased; fitted ones are too small on their own batch.
FIXED = ("none", "target_value", "behaviour_value", "leave_one_out")


@pytest.fixture(scope="module")
def sampled():
    task = testbed.environment("modular_sum", horizon=4)
    pair = drift.at("noise", task.process, task.target, 0.1)
    rng = np.random.default_rng(0)
    weight = theory.weight("token")
    arguments = task.process, pair.target, pair.behaviour
    batches = draw_batches(*arguments, weight, N, BATCHES, rng)
    halves = [(b.part(slice(0, N // 2)), b.part(slice(N // 2, None))) for b in batches]
    same = [estimates(b, b, GROUP, rng) for b in batches]
    split = [estimates(a, b, GROUP, rng) for a, b in halves]
    exact = theory.optimal_baseline(*arguments, theory.Estimator(weight, "outcome"), "state", group_size=GROUP)
    return same, split, exact


def distances(found, exact):
    """(mean over the batches - exact) / standard error, of each candidate."""
    result = {}
    for name, value in exact.items():
        x = np.array([e.variances[name] for e in found])
        result[name] = (x.mean() - value) / (x.std(ddof=1) / math.sqrt(x.size))
    return result


def test_sample_variances_estimate_the_exact_ones(sampled):
    same, _, exact = sampled
    limit = stats.norm.isf(FALSE_ALARM / 2 / len(FIXED))
    distance = distances(same, exact.variances)
    assert set(distance) == set(CANDIDATES)
    assert all(abs(distance[name]) < limit for name in FIXED)


def test_fitted_baselines_flatter_themselves_and_not_on_fresh_data(sampled):
    """Negative control: many numbers fitted on the batch that judges them have too small a variance there."""
    same, split, exact = sampled
    assert distances(same, exact.variances)["optimal_per_state"] < -10
    assert distances(split, exact.variances)["optimal_per_state"] > 3
    swapped = {"none": exact.variances["target_value"], "target_value": exact.variances["none"]}
    assert all(abs(x) > 20 for x in distances(same, swapped).values())


def test_the_constant_estimated_from_many_trajectories_is_the_optimal_one(sampled):
    """One batch of all trajectories; its standard error is the small batches' spread over the root of their number."""
    same, _, _ = sampled
    task = testbed.environment("modular_sum", horizon=4)
    pair = drift.at("noise", task.process, task.target, 0.1)
    arguments = task.process, pair.target, pair.behaviour
    rng = np.random.default_rng(1)
    [large] = draw_batches(*arguments, theory.weight("token"), N * BATCHES, 1, rng)
    found = estimates(large, large, GROUP, rng).constant
    error = np.std([e.constant for e in same], ddof=1) / math.sqrt(BATCHES)
    limit = stats.norm.isf(FALSE_ALARM / 2)
    optimal = float(theory.optimal_baseline(*arguments, theory.Estimator("token", "outcome")).baseline)
    assert abs(found - optimal) < limit * error
    # Negative control: the expected return is another number.
    assert abs(found - theory.values(task.process, pair.behaviour).expected_return) > limit * error


@pytest.fixture(scope="module")
def records():
    return testbed.baseline_regrets(
        ("token", "none"), environments=("modular_sum", "parity"), kl=(0.0, 0.2), batches=20
    )


def test_no_rule_beats_the_best_and_knowing_beats_chance(records):
    assert all(r.regret >= -1e-9 for r in records)
    table = {(row.weight, row.rule): row for row in testbed.regret_table(records)}
    for weight in ("token", "none"):
        assert table[weight, "sample_variance"].mean < 0.5 * table[weight, "random"].mean  # negative control: random
        assert table[weight, "least_variance"].mean <= table[weight, "random"].mean
        assert table[weight, "random"].mean > 0.05
    # The token weight's bias is the same for all baselines, so that not seeing it costs nothing.
    assert table["token", "least_variance"].worst == pytest.approx(0.0, abs=1e-9)
    assert table["none", "least_variance"].worst > 0.01


def test_the_table_is_the_mean_of_its_records(records):
    table = testbed.regret_table(records)
    for row in table:
        x = [r.regret for r in records if (r.weight, r.rule) == (row.weight, row.rule)]
        assert (row.mean, row.median, row.worst, row.cells) == pytest.approx((np.mean(x), np.median(x), max(x), len(x)))
    means = [row.mean for row in table if row.weight == "token"]
    assert means == sorted(means)
    assert {r.rule for r in records} == set(RULES)


def test_the_same_seed_gives_the_same_records():
    arguments = {"environments": ("parity",), "drifts": ("noise",), "kl": (0.1,), "batches": 3}
    assert testbed.baseline_regrets(("token",), **arguments) == testbed.baseline_regrets(("token",), **arguments)


def test_bad_questions_are_refused():
    with pytest.raises(ValueError, match="expected at least 32, two groups in each half"):
        testbed.baseline_regrets(trajectories=16)
    with pytest.raises(ValueError, match="several start states"):
        testbed.baseline_regrets(environments=("digit_addition",))
