"""Losses that couple the sequences of a batch: detected, exact on small batches, sampled with errors on large ones."""

import dataclasses
import inspect
import itertools

import numpy as np
import pytest
import torch

import testbed
import theory
from testbed.auditing import examples, expectation
from testbed.auditing.loss import as_loss
from testbed.auditing.setting import setting
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
    monkeypatch.setattr(expectation, "MOST_CALLS", 1)
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


def through_the_loss(loss, problem, size):
    """E[g], E|g|^2 and E[g] at advantages of one, calling the loss on every ordered batch of trajectories alone."""
    process, target, behaviour = problem
    log_pi, log_mu = target.log_probabilities, behaviour.log_probabilities
    mean, leak, second = np.zeros(target.parameter_count), np.zeros(target.parameter_count), 0.0
    for batch in itertools.product(brute_force.trajectories(process, behaviour), repeat=size):
        chance = np.prod([x.probability for x in batch])
        outcomes = [brute_force.signals(process, target, behaviour, "outcome", x) for x in batch]
        for ones in (False, True):
            shape = (size, process.horizon)
            logp, old, advantages, mask = (np.zeros(shape) for _ in range(4))
            for i, x in enumerate(batch):
                for t, (s, a) in enumerate(zip(x.states, x.actions, strict=False)):
                    logp[i, t], old[i, t], mask[i, t] = log_pi[s, a], log_mu[s, a], 1.0
                    advantages[i, t] = 1.0 if ones else outcomes[i][t]
            named = {"logp": logp, "old_logp": old, "advantages": advantages, "mask": mask}
            tensors = {k: torch.tensor(named[k], requires_grad=k == "logp") for k in inspect.signature(loss).parameters}
            (gradient,) = torch.autograd.grad(loss(**tensors), tensors["logp"])
            g = np.zeros(target.parameter_count)
            for i, x in enumerate(batch):
                for t, (s, a) in enumerate(zip(x.states, x.actions, strict=False)):
                    g -= float(gradient[i, t]) * target.score[s, a]
            if ones:
                leak += chance * g
            else:
                mean += chance * g
                second += chance * float(g @ g)
    return mean, second, leak


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    ("name", "tree"), [("early_stop", 3), ("largest_advantage_one", 0), ("without_the_largest_ratio", 0)]
)
def test_what_couples_at_a_threshold_is_exact_as_well(problem, name, tree, size):
    loss, environment, kl, seed = getattr(losses, name), "parity(horizon=3)", KL, SEED
    if tree:
        environment, kl, seed = f"token_tree(depth={tree})", 0.1, 0
        made = testbed.environment("token_tree", depth=tree)
        drifted = testbed.drift.at("noise", made.process, made.target, kl=kl, seed=seed)
        problem = made.process, drifted.target, drifted.behaviour
    found = testbed.audit(loss, environment=environment, kl=kl, seed=seed, signal="outcome", batch=size)
    assert found.coupling.couples
    assert found.moments.engine == "enumeration"
    mean, second, leak = through_the_loss(loss, problem, size)
    np.testing.assert_allclose(found.moments.mean, mean, atol=1e-13)
    np.testing.assert_allclose(found.moments.variance, second - mean @ mean, rtol=1e-10)
    np.testing.assert_allclose(found.baseline_leak, leak, atol=1e-13)
    plain, _, _ = through_the_loss(losses.dapo, problem, size)
    assert np.abs(found.moments.mean - plain).max() > 1e-3
    assert not found.matches("ppo_clip(clip=(0.8, 1.28))")


def test_draws_share_calls_only_where_that_changes_nothing(problem, monkeypatch):
    """Even a loss that was taken not to couple is called draw by draw where a shared call is no multiple of that."""
    monkeypatch.setattr(expectation, "MOST_CALLS", 1)
    for name in ("early_stop", "largest_advantage_one"):
        loss = as_loss(getattr(losses, name))
        where = setting(loss, "parity(horizon=3)", "noise", KL, SEED, "outcome", 1, False)
        found = expectation.expected(loss, where, True, 10, 0)
        mean, second, leak = through_the_loss(loss.function, problem, 1)
        np.testing.assert_allclose(found.moments.mean, mean, atol=1e-13)
        np.testing.assert_allclose(found.moments.variance, second - mean @ mean, rtol=1e-10)
        np.testing.assert_allclose(found.leak, leak, atol=1e-13)


@pytest.mark.parametrize("size", [2, 3])
def test_the_leak_of_a_batch_is_that_of_one_draw(problem, size):
    where = {"environment": "parity(horizon=3)", "kl": KL, "seed": SEED, "signal": "outcome", "batch": size}
    found = testbed.audit(losses.truncated_old, **where)
    _, _, leak = through_the_loss(losses.truncated_old, problem, size)
    assert np.abs(leak).max() > 1e-3
    np.testing.assert_allclose(found.baseline_leak, leak, atol=1e-13)


def two_prompts():
    """Parity from either state: the same bits lead to other outcomes."""
    made = testbed.environment("parity", horizon=3)
    p = made.process
    initial = np.full(p.states, 1.0 / p.states)
    process = theory.MarkovProcess(
        initial, p.transition, p.reward, p.horizon, p.terminal_reward, p.absorbing, p.discount
    )
    return dataclasses.replace(made, process=process)


def test_sampled_groups_share_their_prompt(monkeypatch):
    """Largest of |error| / standard error below 5.5, as above; with prompts of their own members have other groups."""
    where = {"environment": two_prompts(), "kl": KL, "seed": SEED, "signal": "group(size=2)"}
    exact = testbed.audit(losses.dapo, **where).moments
    assert exact.engine == "enumeration"
    monkeypatch.setattr(expectation, "MOST_CALLS", 1)
    monkeypatch.setattr(expectation, "MOST_ROWS", 1)
    found = testbed.audit(losses.dapo, draws=8000, **where).moments
    assert found.engine == "sampling"
    moving = found.standard_error > 0.0
    assert (np.abs(found.mean - exact.mean)[moving] / found.standard_error[moving]).max() < 5.5
    assert abs(found.variance - exact.variance) < 5.5 * found.variance_standard_error
    whole = expectation.GroupSignal
    monkeypatch.setattr(expectation, "GroupSignal", ())
    apart = testbed.audit(losses.dapo, draws=8000, **where).moments
    assert whole is not expectation.GroupSignal
    z = np.abs(apart.mean - exact.mean)[moving] / found.standard_error[moving]
    spread = abs(apart.variance - exact.variance) / apart.variance_standard_error
    assert max(z.max(), spread) > 5.5
