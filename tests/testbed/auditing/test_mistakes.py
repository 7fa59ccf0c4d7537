"""A mistake is called by its name, and the loss without it is not accused."""

import numpy as np
import pytest
import torch

import testbed
import theory
from testbed.auditing import examples
from testbed.auditing.expecting import compared
from testbed.auditing.loss import as_loss
from testbed.auditing.matching import search
from testbed.auditing.observing import evidence
from testbed.auditing.probes import probes
from tests.testbed.auditing import losses

# Broken loss, what is expected of it, its finding, the weight that it was meant to be.
BROKEN = [
    (examples.cispo_without_stop_gradient, {}, "missing_stop_gradient", "cispo"),
    (losses.live_prefix_weight, {}, "missing_stop_gradient", "prefix"),
    (losses.live_prefix_minimum, {}, "missing_stop_gradient", "minpro"),
    (losses.mask_in_the_denominator_only, {}, "gradient_at_masked_tokens", ""),
    (losses.mask_without_effect, {}, "mask_ignored", ""),
    (losses.mask_one_early, {}, "tokens_left_out", ""),
    (losses.mask_after_the_sum, {}, "masked_values_matter", ""),
    (losses.max_for_min, {}, "max_for_min", "ppo_clip(clip=(0.8, 1.28))"),
    (losses.without_sign, {}, "advantages_ignored", ""),
    (losses.without_advantages, {}, "advantages_ignored", ""),
    (losses.late_advantages, {}, "advantages_shifted", ""),
    (losses.swapped_engines, {}, "swapped_ratio", "decoupled(behaviour=truncated)"),
    (losses.swapped_update, {}, "swapped_ratio", "decoupled(behaviour=truncated)"),
    (losses.live_engines, {}, "missing_stop_gradient", "decoupled(behaviour=truncated)"),
    (losses.squared_length, {}, "normaliser", "ppo_clip(clip=(0.8, 1.28))"),
    (losses.value_not_finite, {}, "loss_not_finite", ""),
    (losses.dropping, {}, "not_deterministic", ""),
    (losses.sequence_with_padding, {}, "masked_values_matter", ""),
    (losses.padding_in_the_mean, {}, "padding_in_the_mean", ""),
    (losses.grpo_dual, {"reduction": "sum"}, "mean_for_sum", ""),
    (losses.averaged_sequence, {"expect": "sequence"}, "mean_for_sum", "sequence"),
    (losses.dr_grpo, {"reduction": "token_mean"}, "normaliser", ""),
    (losses.root_of_the_length, {}, "normaliser", "ppo_clip(clip=(0.8, 1.28))"),
    (losses.swapped_ppo, {}, "swapped_ratio", "ppo_clip(clip=(0.8, 1.28))"),
    (losses.swapped_truncated, {}, "swapped_ratio", "cispo(clip=(0.0, 5.0))"),
    (losses.prefix_one_short, {}, "off_by_one_prefix", "prefix"),
    (losses.prefix_own_token_twice, {}, "off_by_one_prefix", "prefix"),
    (losses.prefix_of_the_token_before, {}, "off_by_one_prefix", "prefix"),
    (losses.inclusive_minimum, {}, "off_by_one_prefix", "minpro"),
    (losses.gradient_descent, {}, "wrong_sign", "ppo_clip(clip=(0.8, 1.28))"),
    (losses.detached, {}, "detached_everything", ""),
]
CORRECT = [
    (examples.cispo, {}), (examples.minpro, {}), (examples.gspo, {}), (examples.ppo_clip_token_mean, {}),
    (losses.prefix, {}), (losses.sequence, {"expect": "sequence"}), (losses.truncated, {}), (losses.dapo, {}),
    (losses.grpo_dual, {"reduction": "length_mean"}), (losses.dr_grpo, {"reduction": "sum"}),
    (losses.dr_grpo, {"reduction": "constant"}), (losses.padding_in_the_mean, {"reduction": "constant"}),
    (losses.dapo, {"reduction": "token_mean"}), (losses.no_mask, {}), (losses.decoupled, {}), (losses.configured, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "expected", "identifier", "intended"), BROKEN, ids=[f"{c[0].__name__} {c[2]}" for c in BROKEN]
)
def test_a_mistake_has_its_name_and_no_other(loss, expected, identifier, intended):
    found = testbed.audit(loss, environment="parity(horizon=3)", **expected)
    assert [f.identifier for f in found.faults] == [identifier]
    fault = found.faults[0]
    assert fault.identifier in testbed.FINDINGS
    assert fault.sentence
    assert str(fault.evidence.get("intended", "")).partition(" x ")[0] == intended


@pytest.mark.parametrize(("loss", "expected"), CORRECT, ids=[f"{c[0].__name__} {c[1]}" for c in CORRECT])
def test_a_correct_loss_is_not_accused(loss, expected):
    found = testbed.audit(loss, environment="parity(horizon=3)", **expected)
    assert found.faults == ()


def test_names_that_point_the_other_way_come_last_unless_they_are_the_loss_with_its_sign_turned():
    def lopsided(logp, old_logp, advantages, mask):
        weight = torch.where(logp > old_logp, -0.8, 1.0)
        return -(weight * advantages * logp * mask).sum()

    ranked = search(
        evidence(as_loss(lopsided), probes()), [theory.weight(name) for name in ("none", "token", "suffix", "v_trace")]
    )
    same_way = [match.constant > 0.0 for match in ranked]
    assert set(same_way) == {True, False}
    assert same_way == sorted(same_way, reverse=True)
    assert ranked[0].distance > min(match.distance for match in ranked)  # by distance alone the order would be another
    turned = testbed.audit(losses.gradient_descent, environment="parity(horizon=3)")
    assert turned.nearest.constant == pytest.approx(-1.0, rel=1e-10)
    assert not turned.equals


def test_a_faulty_mask_is_no_match():
    found = testbed.audit(losses.mask_in_the_denominator_only, environment="parity(horizon=3)")
    assert found.nearest.equal
    assert not found.matches("ppo_clip(clip=(0.8, 1.28))")
    assert testbed.audit(losses.dapo, environment="parity(horizon=3)").matches("ppo_clip(clip=(0.8, 1.28))")


def test_a_stop_gradient_that_is_missing_shows_without_a_registered_weight():
    def bent(logp, old_logp, advantages, mask):
        return -((1.3 * (logp - old_logp)).sin() * advantages * logp * mask).sum()

    def bent_detached(logp, old_logp, advantages, mask):
        return -((1.3 * (logp - old_logp)).sin().detach() * advantages * logp * mask).sum()

    found = testbed.audit(bent, environment="parity(horizon=3)")
    assert [f.identifier for f in found.faults] == ["missing_stop_gradient"]
    assert found.level.linear
    assert testbed.audit(bent_detached, environment="parity(horizon=3)").faults == ()


def test_an_entropy_bonus_depends_on_the_level_but_is_no_missing_stop_gradient():
    def with_entropy(logp, old_logp, advantages, mask):
        return losses.dapo(logp, old_logp, advantages, mask) + 0.01 * (logp.exp() * logp * mask).sum()

    found = testbed.audit(with_entropy, environment="parity(horizon=3)")
    assert not found.level.linear
    assert "depends_on_level" in [f.identifier for f in found.findings]
    assert found.faults == ()


def test_micro_batches():
    rules = {losses.reinforce: "sum", losses.truncated: "mean", losses.grpo_dual: "mean", losses.dapo: "neither"}
    for loss, rule in rules.items():
        found = testbed.audit(loss, environment="parity(horizon=3)")
        assert found.micro_batches.rule == rule
        assert ("not_microbatch_invariant" in [f.identifier for f in found.findings]) == (rule == "neither")
    assert found.micro_batches.equal_lengths == "mean"
    assert found.coupling.shares_count
    assert not found.coupling.couples


def test_advantages_of_the_tokens_of_a_sequence_may_mix():
    mixed = testbed.audit(examples.gspo, environment="parity(horizon=3)")
    assert mixed.per_token_advantages is False
    assert "mixes_advantages" in [f.identifier for f in mixed.findings]
    apart = testbed.audit(losses.dapo, environment="parity(horizon=3)")
    assert apart.per_token_advantages is True


@pytest.mark.parametrize(
    "loss", [losses.mask_without_effect, losses.mask_in_the_denominator_only, losses.mask_after_the_sum]
)
def test_a_faulty_mask_holds_for_nothing(loss):
    found = testbed.audit(loss, environment="parity(horizon=3)")
    assert not found.keeps_to_mask
    weight = "prefix" if loss is losses.mask_after_the_sum else "ppo_clip(clip=(0.8, 1.28))"
    assert compared(found._evidence, weight).equal
    assert not found.matches(weight)
    assert not found.holds(weight)
    assert not found.holds("", found.nearest.reduction)


def test_a_loss_without_a_mask_holds():
    found = testbed.audit(losses.no_mask, environment="parity(horizon=3)")
    assert "takes_no_mask" in [f.identifier for f in found.findings]
    assert found.holds("ppo_clip(clip=(0.8, 1.28))")
    assert found.holds("", "sum")
    assert not found.holds("", "token_mean")


def test_an_inverted_mask_is_not_detached():
    found = testbed.audit(losses.inverted_mask, environment="parity(horizon=3)")
    assert {f.identifier for f in found.faults} == {"tokens_left_out", "gradient_at_masked_tokens"}


def test_single_precision_and_epsilons_are_equal_as_far_as_they_go():
    def single(logp, old_logp, advantages, mask):
        return losses.dapo(*(x.float() for x in (logp, old_logp, advantages, mask)))

    def epsilon(logp, old_logp, advantages, mask, small=1e-6):
        return losses.dapo(logp, old_logp, advantages, mask) * mask.sum() / (mask.sum() + small)

    def another(logp, old_logp, advantages, mask):
        return epsilon(logp, old_logp, advantages, mask, small=1e-2)

    for loss in (single, epsilon):
        found = testbed.audit(loss, environment="parity(horizon=3)")
        assert found.faults == ()
        assert found.nearest.tolerance == 1e-5
        assert found.matches("ppo_clip(clip=(0.8, 1.28))", reduction="token_mean")
        assert "depends_on_level" not in [f.identifier for f in found.findings]
        assert "to 1e-05" in found.table()
    assert not testbed.audit(another, environment="parity(horizon=3)").matches(
        "ppo_clip(clip=(0.8, 1.28))", reduction="token_mean"
    )


def test_a_penalty_is_named_and_is_no_leak():
    def penalised(logp, old_logp, advantages, mask):
        log_r = old_logp - logp
        k3 = log_r.exp() - 1 - log_r
        return losses.dapo(logp, old_logp, advantages, mask) + 0.04 * (k3 * mask).sum() / mask.sum()

    found = testbed.audit(penalised, environment="parity(horizon=3)")
    plain = testbed.audit(losses.dapo, environment="parity(horizon=3)")
    (finding,) = [f for f in found.findings if f.identifier == "remains_without_advantages"]
    assert finding.evidence["term"] == "0.04 x KL estimator k3 of old_logp, token_mean"
    assert finding.evidence["policy_term"].startswith("ppo_clip(clip=(0.8, 1.28)) x token_mean")
    assert not found.equals
    assert found.faults == ()
    np.testing.assert_allclose(found.baseline_leak, plain.baseline_leak, atol=1e-12)
    assert np.abs(found.moments.mean - plain.moments.mean).max() > 1e-4


def test_a_swapped_live_ratio_turns_its_own_sign():
    live = testbed.audit(losses.swapped_ppo, environment="parity(horizon=3)").faults[0].sentence
    assert "which turns the sign of its gradient too" in live

    def both(logp, rollout_logp, advantages, mask):
        return -losses.swapped_truncated(logp, rollout_logp, advantages, mask)

    assert "the sign is turned as well" in testbed.audit(both, environment="parity(horizon=3)").faults[0].sentence


def test_the_advantage_of_a_sequence_may_be_read_at_a_masked_token():
    def first(logp, old_logp, advantages, mask):
        return -((logp - old_logp).exp() * advantages[:, :1] * mask).sum(1).mean()

    found = testbed.audit(first, environment="parity(horizon=3)")
    assert found.matches("token", reduction="sequence_mean")
    assert found.faults == ()


def test_a_random_loss_is_sampled():
    found = testbed.audit(losses.dropping, environment="parity(horizon=3)", draws=4000)
    exact = testbed.audit(losses.token_ratio, environment="parity(horizon=3)").moments
    assert found.moments.engine == "sampling"
    assert found.coupling is None
    assert not found.matches("token")
    z = np.abs(found.moments.mean - exact.mean) / found.moments.standard_error
    assert z.max() < 5.5
    assert (np.abs(found.moments.mean - 2.0 * exact.mean) / found.moments.standard_error).max() > 5.5
    assert "not_deterministic (FAULT)" in found.table()
    assert found.as_dict()["mask"] is None
    assert found.as_dict()["moments"]["standard_error"] == found.moments.standard_error.tolist()
