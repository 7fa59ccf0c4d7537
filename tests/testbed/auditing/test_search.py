"""Every weight of the registry, made a loss, is found again among all of them."""

import numpy as np
import pytest

import theory
from testbed.auditing.candidates import candidates, harvested
from testbed.auditing.loss import as_loss
from testbed.auditing.matching import compare, search
from testbed.auditing.observing import evidence
from testbed.auditing.probes import probes

TOLD = {"log_probability", "old_log_ratio"}
NAMES = [name for name in theory.weight_cards() if set(theory.weight(name).needs) <= TOLD]


def loss_of(weight):
    """The surrogate -(sum of w A log pi) / tokens with the registry's own coefficients."""

    def two(logp, rollout_logp, advantages, mask):
        given = {"log_probability": logp.detach()} if "log_probability" in weight.needs else {}
        c = weight.coefficients(logp.detach() - rollout_logp, mask, advantages, **given)
        return -(c * advantages * logp * mask).sum() / mask.sum()

    def three(logp, old_logp, rollout_logp, advantages, mask):
        engines = old_logp - rollout_logp
        c = weight.coefficients(logp.detach() - rollout_logp, mask, advantages, old_log_ratio=engines)
        return -(c * advantages * logp * mask).sum() / mask.sum()

    return as_loss(three if "old_log_ratio" in weight.needs else two)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_is_found_and_comes_first(name):
    loss = loss_of(theory.weight(name))
    seen = evidence(loss, probes())
    best = search(seen, candidates(loss))[0]
    assert best.equal
    assert best.weight == theory.weight(name)
    assert best.reduction == "token_mean"
    np.testing.assert_allclose(best.constant, 1.0, rtol=1e-10)
    other = compare(seen, theory.weight("suffix" if name != "suffix" else "prefix"))
    assert other.largest > 1e-3
    assert other.difference is not None


@pytest.mark.parametrize(
    ("weight", "near"),
    [
        (theory.weight("ppo_clip", clip=(0.8, 1.28)), theory.weight("ppo_clip", clip=(0.8, 1.2))),
        (theory.weight("ppo_clip", dual=10.0), theory.weight("ppo_clip")),
        (theory.weight("ppo_clip", dual=10.0), theory.weight("ppo_clip", dual=8.0)),
        (theory.weight("gspo"), theory.weight("gspo", clip=(1.0 - 3e-4, 1.0 + 3e-4))),
        (theory.weight("gspo"), theory.weight("gspo", clip=(1.0 - 4e-4, 1.0 + 4e-4))),
        (theory.weight("truncated", cap=10.0), theory.weight("truncated", cap=8.0)),
        (theory.weight("truncated", level="sequence"), theory.weight("truncated", level="sequence", cap=3.0)),
        (theory.weight("masked"), theory.weight("masked", interval=(0.5, 8.0))),
        (theory.weight("cispo"), theory.weight("token")),
        (theory.weight("minpro"), theory.weight("prefix")),
    ],
)
def test_settings_in_use_are_told_apart(weight, near):
    seen = evidence(loss_of(weight), probes())
    assert compare(seen, weight).equal
    assert not compare(seen, near).equal


def test_settings_are_read_off_the_loss():
    def loss(logp, old_logp, advantages, mask, low=0.3, bounds=(0.6, 1.7)):
        return (logp - old_logp).clamp(max=7.5).sum()

    numbers, bounds = harvested(as_loss(loss))
    assert numbers == (0.3, 0.6, 1.7, 7.5)
    assert {(0.6, 1.7), (0.7, 1.3), (0.0, 7.5), (0.7, 1.6)} <= set(bounds)
    assert (0.8, 1.2) not in bounds
    changed, _ = harvested(as_loss(loss, {"low": 0.1}))
    assert changed[0] == 0.1
