"""Losses written plainly are recognised by name, options and reduction, and their moments are those of the engines."""

import numpy as np
import pytest

import testbed
import theory
from tests.testbed.auditing import losses

W = theory.weight
# loss, weight, reduction on a batch, reduction of one trajectory in theory, constant
NAMED = [
    (losses.reinforce, W("none"), "sum", "sum", 1.0),
    (losses.token_ratio, W("token"), "sequence_mean", "sum", 1.0),
    (losses.grpo_dual, W("ppo_clip", dual=3.0), "length_mean", "length_mean", 1.0),
    (losses.dapo, W("ppo_clip", clip=(0.8, 1.28)), "token_mean", "token_mean", 1.0),
    (losses.dr_grpo, W("ppo_clip"), "sequence_mean", "sum", 1.0 / 16),
    # By its formula the same as truncated(cap=5.0).
    (losses.truncated, W("cispo", clip=(0.0, 5.0)), "sequence_mean", "sum", 1.0),
    (losses.icepop, W("masked", interval=(0.5, 2.0)), "sum", "sum", 1.0),
    (losses.prefix, W("prefix"), "sequence_mean", "sum", 1.0),
    (losses.sequence, W("sequence"), "sequence_mean", "sum", 1.0),
    (losses.minpro, W("minpro", clip=(0.8, 1.28)), "token_mean", "token_mean", 1.0),
    (losses.gspo, W("gspo", clip=(0.9, 1.1)), "length_mean", "length_mean", 1.0),
]
IDS = [case[0].__name__ for case in NAMED]
# Responses of one to five tokens.
WHERE = {"environment": "brackets(horizon=5)", "kl": 0.15, "seed": 3, "signal": "outcome"}


@pytest.fixture(scope="module")
def audits():
    return {case[0].__name__: testbed.audit(case[0], **WHERE) for case in NAMED}


def policies():
    process = testbed.environment("brackets", horizon=5)
    drifted = testbed.drift.at("noise", process.process, process.target, kl=0.15, seed=3)
    return process.process, drifted.target, drifted.behaviour


@pytest.mark.parametrize(("loss", "weight", "reduction", "of_one", "constant"), NAMED, ids=IDS)
def test_a_correct_loss_is_known_by_name_options_and_reduction(audits, loss, weight, reduction, of_one, constant):
    found = audits[loss.__name__]
    best = found.nearest
    assert best.equal
    assert best.weight == weight
    assert (best.reduction, best.score) == (reduction, "own")
    np.testing.assert_allclose(best.constant, constant, rtol=1e-10)
    assert best.difference is None
    assert not found.faults
    assert found.matches(weight.label)
    assert not found.matches("suffix")


@pytest.mark.parametrize(("loss", "weight", "reduction", "of_one", "constant"), NAMED, ids=IDS)
def test_its_moments_are_those_of_the_engines(audits, loss, weight, reduction, of_one, constant):
    m = audits[loss.__name__].moments
    exact = theory.moments(*policies(), theory.Estimator(weight, "outcome", reduction=of_one), "enumeration")
    scale = np.abs(exact.mean).max()
    np.testing.assert_allclose(m.gradient, exact.gradient, rtol=1e-12)
    np.testing.assert_allclose(m.mean, constant * exact.mean, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(m.bias, constant * exact.mean - exact.gradient, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(m.variance, constant**2 * exact.variance, rtol=1e-9)
    other = theory.moments(*policies(), theory.Estimator("suffix", "outcome", reduction=of_one), "enumeration")
    assert np.abs(m.mean - constant * other.mean).max() > 1e-3 * scale


@pytest.mark.parametrize(("loss", "weight", "reduction", "of_one", "constant"), NAMED, ids=IDS)
def test_the_causes_are_those_of_the_named_estimator_and_sum_to_the_bias(
    audits, loss, weight, reduction, of_one, constant
):
    found = audits[loss.__name__]
    np.testing.assert_allclose(sum(found.causes.values()), found.moments.bias, atol=1e-13)
    named = theory.decompose(*policies(), theory.Estimator(weight, "outcome", reduction=of_one))
    for name, term in named.terms.items():
        np.testing.assert_allclose(found.causes[name], term, atol=1e-12)


def test_weights_with_the_same_formula_are_all_named(audits):
    equal = [match.weight for match in audits["truncated"].equals]
    assert W("truncated", cap=5.0) in equal
    assert W("truncated", cap=3.0) not in equal
    assert audits["truncated"].matches("truncated(cap=5.0)")
    assert not audits["truncated"].matches("truncated(cap=3.0)")


def test_a_named_estimator_names_the_recipes_that_compute_it(audits):
    assert "paper:dapo" in audits["dapo"].presets
    assert "paper:dapo" not in audits["grpo_dual"].presets


def test_the_baseline_leak_is_that_of_advantages_of_one(audits):
    process, target, behaviour = policies()
    for name in ("token_ratio", "prefix", "sequence", "reinforce", "truncated"):
        weight = next(case[1] for case in NAMED if case[0].__name__ == name)
        exact = theory.baseline_leak(process, target, behaviour, weight, 1.0, signal="outcome")
        np.testing.assert_allclose(audits[name].baseline_leak, exact.leak, atol=1e-12)
    assert audits["token_ratio"].relative_leak < 1e-12
    assert audits["truncated"].relative_leak > 1e-3


def test_three_policies_and_two_ratios():
    found = testbed.audit(losses.decoupled, environment="brackets(horizon=4)", signal="outcome")
    best = found.nearest
    assert best.equal
    assert best.weight.name == "decoupled"
    assert best.weight.options["update"] in ("ppo_clip", W("ppo_clip"))
    assert best.weight.options["behaviour"] in ("truncated", W("truncated"))
    process = testbed.environment("brackets", horizon=4)
    d = testbed.drift.at("noise", process.process, process.target, kl=0.1, seed=0)
    middle = theory.SoftmaxPolicy(0.5 * (d.target.log_probabilities + d.behaviour.log_probabilities))
    weight = W("decoupled", update="ppo_clip", behaviour="truncated")
    exact = theory.moments(process.process, d.target, d.behaviour, theory.Estimator(weight, "outcome"), old=middle)
    np.testing.assert_allclose(found.moments.mean, exact.mean, atol=1e-12)
    np.testing.assert_allclose(found.moments.variance, exact.variance, rtol=1e-9)
    assert not found.faults


def test_a_loss_without_a_name_gets_the_nearest_one_and_the_first_difference():
    def bent(logp, old_logp, advantages, mask):
        ratio = (logp - old_logp).exp().detach()
        return -(ratio / (1 + 0.1 * (ratio - 1) ** 2) * advantages * logp * mask).sum()

    found = testbed.audit(bent)
    best = found.nearest
    assert not found.equals
    assert 1e-4 < best.distance < 0.2
    d = best.difference
    assert (d.batch, d.sequence) == (0, 0)
    ratio = np.exp(d.log_ratio)
    np.testing.assert_allclose(d.log_ratio, d.logp - d.old_logp, rtol=1e-12)
    np.testing.assert_allclose(d.of_loss * best.constant, ratio / (1 + 0.1 * (ratio - 1) ** 2), rtol=1e-9)
    assert abs(d.of_named - d.of_loss) > 1e-8 * abs(d.of_loss)
    assert not found.matches("token")


def test_the_tokens_shown_are_coefficients_of_the_weight(audits):
    for name in ("grpo_dual", "minpro"):
        shown = audits[name].tokens
        assert len(shown) == 14
        np.testing.assert_allclose([t.coefficient for t in shown], [t.named for t in shown], rtol=1e-9, atol=1e-12)
    for token in audits["token_ratio"].tokens:
        np.testing.assert_allclose(token.coefficient, np.exp(token.log_ratio), rtol=1e-9)


def test_an_environment_may_bring_the_behaviour_policy():
    where = {"environment": "two_token_counterexample", "signal": "outcome"}
    found = testbed.audit(losses.token_ratio, drift="given", **where)
    made = testbed.environment("two_token_counterexample")
    exact = theory.moments(made.process, made.target, made.behaviour, theory.Estimator("token", "outcome"))
    np.testing.assert_allclose(found.moments.mean, exact.mean, atol=1e-14)
    assert "its own behaviour policy" in found.setting
    assert np.abs(testbed.audit(losses.token_ratio, **where).moments.mean - exact.mean).max() > 1e-3


def test_groups_and_batches_are_those_of_the_engines():
    process = testbed.environment("parity", horizon=3)
    d = testbed.drift.at("noise", process.process, process.target, kl=0.1, seed=0)
    found = testbed.audit(losses.dapo, environment="parity(horizon=3)", signal="group(size=3)")
    weight = W("ppo_clip", clip=(0.8, 1.28))
    estimator = theory.Estimator(weight, theory.group(3), reduction="token_mean")
    exact = theory.moments(process.process, d.target, d.behaviour, estimator)
    np.testing.assert_allclose(found.moments.mean, exact.mean, atol=1e-12)
    np.testing.assert_allclose(found.moments.variance, exact.variance, rtol=1e-9)
    ragged = testbed.audit(losses.dapo, environment="brackets(horizon=4)", signal="outcome", batch=2)
    process = testbed.environment("brackets", horizon=4)
    d = testbed.drift.at("noise", process.process, process.target, kl=0.1, seed=0)
    estimator = theory.Estimator(weight, "outcome", reduction=theory.reduction("token_mean", batch=2))
    exact = theory.moments(process.process, d.target, d.behaviour, estimator)
    np.testing.assert_allclose(ragged.moments.mean, exact.mean, atol=1e-12)
    np.testing.assert_allclose(ragged.moments.variance, exact.variance, rtol=1e-9)
