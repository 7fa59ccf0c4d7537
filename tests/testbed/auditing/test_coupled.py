"""Losses that couple the sequences of a batch: detected, exact on small batches, sampled with errors on large ones."""

import itertools

import numpy as np
import pytest

import testbed
import theory
from testbed.auditing import examples, expectation
from tests import brute_force
from tests.testbed.auditing import losses

KL, SEED = 0.2, 1


@pytest.fixture(scope="module")
def problem():
    made = testbed.environment("parity", horizon=3)
    drifted = testbed.drift.at("noise", made.process, made.target, kl=KL, seed=SEED)
    return made.process, drifted.target, drifted.behaviour


def every_batch(problem, coefficients):
    """E[g] and E|g|^2 over all ordered pairs of trajectories; `coefficients` of a pair's ratios and outcomes."""
    process, target, behaviour = problem
    mean, second = np.zeros(target.parameter_count), 0.0
    for pair in itertools.product(brute_force.trajectories(process, behaviour), repeat=2):
        ratios = [np.exp(brute_force.log_ratios(x, target, behaviour)) for x in pair]
        outcomes = [brute_force.signals(process, target, behaviour, "outcome", x) for x in pair]
        g = np.zeros(target.parameter_count)
        for x, row in zip(pair, coefficients(ratios, outcomes), strict=True):
            for s, a, c in zip(x.states, x.actions, row, strict=False):
                g += c * target.score[s, a]
        probability = pair[0].probability * pair[1].probability
        mean += probability * g
        second += probability * float(g @ g)
    return mean, second


def self_normalised(ratios, outcomes):
    weights = [np.prod(r) for r in ratios]
    return [[w / sum(weights) * A for A in row] for w, row in zip(weights, outcomes, strict=True)]


def whitened(ratios, outcomes):
    mean = np.mean(np.concatenate(outcomes))
    return [[0.5 * (A - mean) for A in row] for row in outcomes]


@pytest.mark.parametrize("name", ["self_normalised", "whitened"])
def test_small_batches_are_exact(problem, name):
    plain = {"self_normalised": self_normalised, "whitened": whitened}
    where = {"environment": "parity(horizon=3)", "kl": KL, "seed": SEED, "signal": "outcome", "batch": 2}
    found = testbed.audit(getattr(losses, name), **where)
    assert found.coupling.couples
    assert "couples_sequences" in [f.identifier for f in found.findings]
    assert found.moments.engine == "enumeration"
    assert found.moments.trajectories_per_draw == 2
    mean, second = every_batch(problem, plain[name])
    np.testing.assert_allclose(found.moments.mean, mean, atol=1e-13)
    np.testing.assert_allclose(found.moments.variance, second - mean @ mean, rtol=1e-10)
    other, _ = every_batch(problem, plain["whitened" if name == "self_normalised" else "self_normalised"])
    assert np.abs(found.moments.mean - other).max() > 1e-3


def test_what_couples_is_told():
    found = testbed.audit(losses.whitened, environment="parity(horizon=2)").coupling.by_input
    assert found["advantages"] > 1e-3
    assert found["logp"] == found["old_logp"] == found["rollout_logp"] == 0.0
    found = testbed.audit(losses.self_normalised, environment="parity(horizon=2)").coupling.by_input
    assert found["logp"] > 1e-3
    assert found["old_logp"] > 1e-3
    assert found["advantages"] == 0.0


def test_a_batch_normalised_weight_of_the_registry_is_known(problem):
    found = testbed.audit(losses.self_normalised, environment="parity(horizon=3)", kl=KL, seed=SEED, signal="outcome")
    assert found.nearest.equal
    assert found.nearest.weight == theory.weight("self_normalised", level="sequence")
    estimator = theory.Estimator(found.nearest.weight, "outcome", reduction=theory.reduction("sum", batch=2))
    exact = theory.moments(*problem, estimator)
    np.testing.assert_allclose(found.moments.mean, found.nearest.constant * exact.mean, atol=1e-12)
    assert found.nearest.reduction == "sequence_mean"
    assert found.nearest.constant == pytest.approx(1.0, rel=1e-10)


def test_sampled_draws_come_with_standard_errors(problem, monkeypatch):
    """Largest of at most 8 |error| / standard error; 5.5 has a false alarm rate below 1e-6 for normal errors."""
    where = {"environment": "parity(horizon=3)", "kl": KL, "seed": SEED, "signal": "outcome", "batch": 2}
    mean, second = every_batch(problem, self_normalised)
    monkeypatch.setattr(expectation, "MOST_CALLS", 10)
    found = testbed.audit(losses.self_normalised, draws=6000, **where).moments
    assert (found.engine, found.draws) == ("sampling", 6000)
    moving = found.standard_error > 0.0
    z = np.abs(found.mean - mean)[moving] / found.standard_error[moving]
    assert z.max() < 5.5
    assert abs(found.variance - (second - mean @ mean)) < 5.5 * found.variance_standard_error
    biased, _ = every_batch(problem, lambda ratios, outcomes: [0.5 * np.array(row) for row in outcomes])
    assert (np.abs(found.mean - biased)[moving] / found.standard_error[moving]).max() > 5.5


def test_draws_that_do_not_couple_are_sampled_in_shared_calls(problem, monkeypatch):
    exact = theory.moments(*problem, theory.Estimator("minpro", "outcome"))
    monkeypatch.setattr(expectation, "MOST_ROWS", 1)
    where = {"environment": "parity(horizon=3)", "kl": KL, "seed": SEED, "signal": "outcome"}
    found = testbed.audit(examples.minpro, draws=400, **where).moments
    assert (found.engine, found.draws) == ("sampling", 20_000)
    assert (np.abs(found.mean - exact.mean) / found.standard_error).max() < 5.5
    assert abs(found.variance - exact.variance) < 5.5 * found.variance_standard_error
    other = theory.moments(*problem, theory.Estimator("none", "outcome"))
    assert (np.abs(found.mean - other.mean) / found.standard_error).max() > 5.5


def test_a_loss_that_counts_what_it_keeps_is_coupled():
    def kept(logp, old_logp, advantages, mask):
        ratio = (logp - old_logp).exp().detach()
        inside = (ratio > 0.5) & (ratio < 2.0) & (mask > 0)
        return -(ratio * advantages * logp * inside).sum() / inside.sum().clamp(min=1)

    found = testbed.audit(kept, environment="parity(horizon=2)", kl=KL)
    assert found.nearest.equal
    assert found.nearest.reduction == "kept_token_mean"
    assert found.nearest.weight == theory.weight("masked", interval=(0.5, 2.0))
    assert found.coupling.couples
