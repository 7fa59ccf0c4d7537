"""Every named reduction is recognised in a loss that is written out, and told from all others."""

import numpy as np
import pytest

import testbed
import theory
from testbed.auditing.expecting import compared
from testbed.auditing.loss import as_loss
from testbed.auditing.observing import evidence
from testbed.auditing.probes import FULL, probes
from testbed.auditing.reductions import REDUCTIONS, searched

LOW, HIGH = 0.5, 2.0


def kept(logp, old_logp, mask):
    ratio = (logp - old_logp).detach().exp()
    return ratio, (ratio >= LOW) & (ratio <= HIGH) & (mask > 0)


WRITTEN = {
    "sum": lambda term, mask, keep: term.sum(),
    "sequence_mean": lambda term, mask, keep: term.sum(1).mean(),
    "length_mean": lambda term, mask, keep: (term.sum(1) / mask.sum(1)).mean(),
    "token_mean": lambda term, mask, keep: term.sum() / mask.sum(),
    "width_mean": lambda term, mask, keep: term.mean(),
    "length_sum": lambda term, mask, keep: (term.sum(1) / mask.sum(1)).sum(),
    "width_sum": lambda term, mask, keep: term.mean(1).sum(),
    "kept_token_mean": lambda term, mask, keep: term.sum() / keep.sum().clamp(min=1),
    "kept_length_mean": lambda term, mask, keep: (term.sum(1) / keep.sum(1).clamp(min=1)).mean(),
}


def loss_of(reduction):
    def loss(logp, old_logp, advantages, mask):
        ratio, keep = kept(logp, old_logp, mask)
        return -WRITTEN[reduction](ratio * keep * advantages * logp * mask, mask, keep)

    return loss


def test_every_reduction_is_written_out():
    assert set(WRITTEN) == set(searched()) == set(REDUCTIONS) - {"unnamed"}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_reduction_is_told_from_the_others(name):
    seen = evidence(as_loss(loss_of(name)), probes())
    weight = theory.weight("masked", interval=(LOW, HIGH)).label
    equal = [other for other in WRITTEN if compared(seen, weight, other).equal]
    # What is expected to be a sum may be divided by the number of sequences, a mean over each by nothing.
    stands_for = {"sum": {"sequence_mean"}, "length_mean": {"length_sum"}}
    assert set(equal) == {name, *(one for one, others in stands_for.items() if name in others)}
    assert compared(seen, weight).reduction == name
    assert compared(seen, weight).constant == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize(("name", "of_one"), [("width_mean", 3.0), ("width_sum", 3.0), ("length_mean", None)])
def test_the_causes_of_a_reduction_sum_to_the_bias_with_its_constant(name, of_one):
    found = testbed.audit(loss_of(name), environment="brackets(horizon=5)", signal="outcome")
    assert found.nearest.reduction == name
    np.testing.assert_allclose(sum(found.causes.values()), found.moments.bias, atol=1e-13)
    made = testbed.environment("brackets", horizon=5)
    d = testbed.drift.at("noise", made.process, made.target, kl=0.1, seed=0)
    weight = theory.weight("masked", interval=(LOW, HIGH))
    reduction = "constant" if of_one else "length_mean"
    named = theory.decompose(
        made.process, d.target, d.behaviour, theory.Estimator(weight, "outcome", reduction=reduction)
    )
    for term in named.terms:
        np.testing.assert_allclose(found.causes[term], named.terms[term], atol=1e-12)
    other = "length_mean" if of_one else "constant"
    wrong = theory.decompose(made.process, d.target, d.behaviour, theory.Estimator(weight, "outcome", reduction=other))
    assert any(np.abs(found.causes[term] - wrong.terms[term]).max() > 1e-6 for term in wrong.terms)


def test_a_small_difference_in_one_sequence_is_no_equality():
    """The gap of a token is relative to its own sequence, however large the others of the batch are."""

    full = probes()[FULL]
    old = full.old_logp.copy()
    old[0] += 12.0  # ratios of the first sequence are 1e-5 of the others'
    batch = full._replace(old_logp=old)

    def equal(error):
        def loss(logp, old_logp, advantages, mask):
            ratio = (logp - old_logp).detach().exp()
            off = (ratio < 1e-3) & (mask.cumsum(1) == 1)
            return -((1 + error * off) * ratio * advantages * logp * mask).sum()

        return compared(evidence(as_loss(loss), [batch]), "token").equal

    assert equal(0.0)
    assert not equal(1e-6)
