"""Extreme inputs: finite or not, and where."""

import numpy as np

import testbed
from tests.testbed.auditing import losses


def cases(loss):
    return {case.name: case for case in testbed.audit(loss, environment="parity(horizon=2)").robustness}


def safe(logp, old_logp, advantages, mask):
    """Bounded before the exponential, masked tokens taken out before anything is multiplied."""
    log_ratio = (logp - old_logp).detach().clamp(-20.0, 1.0)
    term = (log_ratio.exp() * advantages * logp).masked_fill(mask == 0, 0.0)
    return -term.sum() / mask.sum().clamp(min=1.0)


def test_a_clip_does_not_save_the_gradient_from_an_overflow():
    found = cases(losses.dapo)
    case = found["one log-ratio of +800, A > 0"]
    assert case.loss_finite
    assert not case.gradient_finite
    assert (case.sequence, case.token) == (0, 1)
    assert not found["one log-ratio of +800, A = 0"].loss_finite
    assert found["one log-ratio of -800, A < 0"].finite
    assert not found["one log-ratio of +100 in float32, A < 0"].finite
    audit = testbed.audit(losses.dapo, environment="parity(horizon=2)")
    overflow = next(f for f in audit.findings if f.identifier == "overflow")
    assert "one log-ratio of +800, A > 0" in overflow.evidence["cases"]


def test_a_ratio_that_is_infinite_itself_is_no_finding():
    audit = testbed.audit(losses.token_ratio, environment="parity(horizon=2)")
    assert not {case.name: case for case in audit.robustness}["one log-ratio of +800, A > 0"].finite
    assert "overflow" not in [f.identifier for f in audit.findings]


def test_a_ratio_without_a_name_may_be_infinite_too():
    def bent(logp, old_logp, advantages, mask):
        ratio = (logp - old_logp).exp().detach()
        return -((ratio + 0.1 * ratio.sqrt()) * advantages * logp * mask).sum()

    audit = testbed.audit(bent, environment="parity(horizon=2)")
    assert not audit.equals
    bad = {case.name for case in audit.robustness if not case.finite}
    assert "one log-ratio of +800, A > 0" in bad
    told = {name for f in audit.findings if f.identifier == "overflow" for name in f.evidence["cases"]}
    assert "one log-ratio of +800, A > 0" not in told


def test_empty_sequences_and_batches():
    found = cases(losses.dapo)
    assert found["one sequence all masked"].finite
    assert not found["every sequence masked"].finite
    by_length = cases(losses.grpo_dual)["one sequence all masked"]
    assert not by_length.finite
    assert by_length.sequence == 1


def test_a_safe_loss_is_finite_everywhere_but_where_logp_is():
    found = cases(safe)
    assert [name for name, case in found.items() if not case.gradient_finite] == []
    assert [name for name, case in found.items() if not case.finite] == ["one logp of -inf, A = 0"]


def test_short_sequences_and_zero_advantages():
    for loss in (losses.dapo, losses.grpo_dual, losses.gspo, safe):
        found = cases(loss)
        assert found["sequences of one token"].finite
        assert found["one sequence alone"].finite
        assert found["all advantages zero"].finite


def test_a_loss_that_raises_is_reported_there_and_audited_elsewhere():
    def strict(logp, old_logp, advantages, mask):
        if bool(((logp - old_logp).abs() > 50).any()):
            raise ValueError("far apart")
        return losses.dapo(logp, old_logp, advantages, mask)

    audit = testbed.audit(strict, environment="parity(horizon=2)")
    case = {case.name: case for case in audit.robustness}["one log-ratio of -800, A < 0"]
    assert not case.finite
    assert "far apart" in case.error
    assert audit.nearest.equal
    assert np.isfinite(audit.moments.variance)
