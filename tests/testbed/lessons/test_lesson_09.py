"""The checker of lesson 9 takes losses that are what was asked for, and no others."""

import torch

import testbed
from testbed.auditing import examples
from testbed.lessons import check


def said(name, answer, capsys):
    check(name, answer)
    return capsys.readouterr().out.strip()


def gspo(logp, old_logp, advantages, mask):
    length = mask.sum(1).clamp(min=1.0)
    ratio = torch.exp(((logp - old_logp) * mask).sum(1) / length)
    advantage = (advantages * mask).sum(1) / length
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()


def test_minpro(capsys):
    assert said("9.1", examples.minpro, capsys) == "9.1: right."
    assert "not yet" in said("9.1", examples.cispo, capsys)
    assert "the answer is a function" in said("9.1", 3, capsys)
    assert "not answered yet" in said("9.1", ..., capsys)


def test_gspo(capsys):
    assert said("9.2", gspo, capsys) == "9.2: right."
    assert "not yet" in said("9.2", examples.gspo, capsys)


def test_the_first_fault(capsys):
    def loss(logp, old_logp, advantages, mask):
        return -(torch.exp(old_logp - logp).detach() * advantages * logp * mask).sum() / mask.sum()

    right = testbed.audit(loss).faults[0].identifier
    assert right in testbed.FINDINGS
    assert said("9.3", right, capsys) == "9.3: right."
    assert "not yet" in said("9.3", "missing_stop_gradient", capsys)
