"""The checker of lesson 8 takes right answers, found another way, and no others."""

import numpy as np
import pytest

import theory
from testbed.lessons import check
from testbed.lessons.lesson_08 import the_prompt


def said(name, answer, capsys):
    check(name, answer)
    return capsys.readouterr().out.strip()


def in_the_logits(weight, signal, variance=False):
    """By theory on the tree of answers, pulled back by hand: mean and truth."""
    p = the_prompt()
    m = theory.moments(p.tree.process, p.target, p.behaviour, theory.Estimator(weight, signal))
    return p.pull_back(m.mean), p.pull_back(m.gradient)


def relative_bias(weight, signal):
    mean, truth = in_the_logits(weight, signal)
    return np.linalg.norm(mean - truth) / np.linalg.norm(truth)


def test_the_truncated_ratio(capsys):
    weight = theory.weight("truncated", cap=1.0)
    assert said("8.1", relative_bias(weight, "outcome"), capsys) == "8.1: right."
    assert "not yet" in said("8.1", relative_bias("token", "outcome"), capsys)
    assert "not answered yet" in said("8.1", ..., capsys)


def test_the_most_biased(capsys):
    names = ("none", "token", "suffix", "prefix", "minpro", "sequence")
    found = {name: relative_bias(name, "target_advantage") for name in names}
    assert said("8.2", max(found, key=found.get), capsys) == "8.2: right."
    assert "not yet" in said("8.2", "prefix", capsys)


def test_how_many_groups(capsys):
    p = the_prompt()
    products = p.gram  # J J', from which the variance follows without any engine of the network
    m = theory.moments(
        p.tree.process, p.target, p.behaviour, theory.Estimator("prefix", theory.group(8)), "enumeration",
        covariance=True,
    )  # fmt: skip
    n = len(products)
    variance = float((products * m.covariance[:n, :n]).sum())
    truth = p.pull_back(m.gradient)
    groups = next(g for g in range(1, 10**7) if variance / g < (truth @ truth) / 100)
    assert said("8.3", groups, capsys) == "8.3: right."
    assert "not yet" in said("8.3", groups - 1, capsys)
    assert groups > 1
    assert groups == pytest.approx(100 * variance / (truth @ truth), abs=1.0)
