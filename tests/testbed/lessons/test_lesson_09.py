"""The checker of lesson 9 takes losses that are what was asked for, and no others."""

import inspect

import torch

import testbed
from testbed.auditing import examples
from testbed.lessons import check, solution


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


def minpro_with_ratio_one_where_masked(logp, old_logp, advantages, mask):
    """Right where masks have no holes: the minimum of strictly earlier ratios, with 1 for a masked token's."""
    log_ratio = ((logp - old_logp) * mask).detach()
    smallest = torch.cummin(log_ratio, 1).values
    smallest = torch.cat([torch.zeros_like(smallest[:, :1]), smallest[:, :-1]], 1)
    return -(torch.exp(smallest + log_ratio) * advantages * logp * mask).sum(1).mean()


def test_a_mask_with_holes_is_named(capsys):
    """It has the weight that the hint asks for; what it lacks is told instead."""
    reply = said("9.1", minpro_with_ratio_one_where_masked, capsys)
    assert reply.startswith("9.1: not yet, ")
    assert "unless a masked token stands before one that counts" in reply
    assert "+inf" in reply
    assert "strictly earlier" not in reply


def including_the_present(logp, old_logp, advantages, mask):
    log_ratio = torch.where(mask != 0, logp - old_logp, torch.inf).detach()
    smallest = torch.cummin(log_ratio, 1).values
    weight = torch.where(mask != 0, torch.exp(smallest + log_ratio), 0.0)
    return -(weight * advantages * logp * mask).sum(1).mean()


def token_ratio(logp, old_logp, advantages, mask):
    return -(torch.exp(logp - old_logp).detach() * advantages * logp * mask).sum(1).mean()


def test_another_minimum_and_another_weight_are_told_what_they_are(capsys):
    assert "counts the token itself" in said("9.1", including_the_present, capsys)
    assert "strictly earlier" in said("9.1", token_ratio, capsys)


def test_gspo(capsys):
    assert said("9.2", gspo, capsys) == "9.2: right."
    assert "not yet" in said("9.2", examples.gspo, capsys)

    def divided_again(logp, old_logp, advantages, mask):
        length = mask.sum(1).clamp(min=1.0)
        ratio = torch.exp(((logp - old_logp) * mask).sum(1) / length)
        advantage = (advantages * mask).sum(1) / length
        return -(torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) / length).mean()

    assert "not yet" in said("9.2", divided_again, capsys)


def test_the_solutions_can_be_read():
    for name in ("9.1", "9.2"):
        assert "def " in inspect.getsource(solution(name))


def test_the_first_fault(capsys):
    def loss(logp, old_logp, advantages, mask):
        return -(torch.exp(old_logp - logp).detach() * advantages * logp * mask).sum() / mask.sum()

    right = testbed.audit(loss).faults[0].identifier
    assert right in testbed.FINDINGS
    assert said("9.3", right, capsys) == "9.3: right."
    assert "not yet" in said("9.3", "missing_stop_gradient", capsys)
