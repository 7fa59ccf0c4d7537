"""Lesson 4: answers by visiting every trajectory are accepted, likely mistakes are not."""

import math

import numpy as np
import pytest

import testbed
import theory
from testbed import drift
from testbed.lessons import check
from tests import brute_force

TERMS = ("occupancy", "action", "continuation", "truncation", "baseline_leak", "reduction")


def verdict(capsys, name, answer):
    check(name, answer)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def case():
    made = testbed.environment("token_tree", depth=3)
    pair = drift.at("noise", made.process, made.target, kl=0.3)
    return made.process, pair.target, pair.behaviour


def chain(case, prefix, own=lambda m, rho: m * rho, at=None):
    """The terms by loops over all trajectories; `own` makes the weight of its prefix part and the token's ratio."""
    process, target, behaviour = case
    of_pi, of_mu = theory.values(process, target), theory.values(process, behaviour)
    steps = np.zeros((5, target.parameter_count))
    for path in brute_force.trajectories(process, behaviour):
        rho = [math.exp(x) for x in brute_force.log_ratios(path, target, behaviour)]
        for t, (s, a) in enumerate(zip(path.states, path.actions, strict=False)):
            if at not in (None, t):
                continue
            score = np.zeros(target.probabilities.shape)
            score[s] = -target.probabilities[s]
            score[s, a] += 1.0
            centred = path.terminal - of_mu.state_value[t, s]
            m = prefix(rho[:t])
            values = (
                math.prod(rho[: t + 1]) * of_pi.advantage[t, s, a],
                m * rho[t] * of_pi.advantage[t, s, a],
                m * rho[t] * centred,
                own(m, rho[t]) * centred,
                own(m, rho[t]) * (path.terminal - of_mu.expected_return),
            )
            steps += path.probability * np.outer(values, score.ravel())
    occupancy, continuation, truncation, leak = np.diff(steps, axis=0)
    nothing = np.zeros_like(leak)
    return dict(zip(TERMS, (occupancy, nothing, continuation, truncation, leak, nothing), strict=True))


def test_the_largest_term(case, capsys):
    terms = chain(case, lambda rho: min(rho, default=1.0), lambda m, rho: min(max(m * rho, 0.8), 1.28))
    ranked = sorted(terms, key=lambda name: np.linalg.norm(terms[name]))
    assert np.linalg.norm(terms[ranked[-1]]) > 1.01 * np.linalg.norm(terms[ranked[-2]])
    assert "right" in verdict(capsys, "4.1", ranked[-1])
    for wrong in ranked[:-1]:
        assert "not yet" in verdict(capsys, "4.1", wrong)


def test_what_is_left_without_the_continuation(case, capsys):
    terms = chain(case, lambda rho: 1.0)
    size = np.linalg.norm(theory.policy_gradient(case[0], case[1]))
    bias = sum(terms.values())
    right = np.linalg.norm(bias - terms["continuation"]) / size
    assert "right" in verdict(capsys, "4.2", right)
    lengths = (np.linalg.norm(bias) - np.linalg.norm(terms["continuation"])) / size
    for wrong in (lengths, right * size, np.linalg.norm(bias) / size):
        assert "not yet" in verdict(capsys, "4.2", wrong)


def test_continuation_by_position(case, capsys):
    right = [np.linalg.norm(chain(case, math.prod, at=t)["continuation"]) for t in range(3)]
    assert right[2] < 1e-12 < right[1]
    assert "right" in verdict(capsys, "4.3", right)
    assert "not yet" in verdict(capsys, "4.3", right[::-1])
    assert "not yet" in verdict(capsys, "4.3", [np.linalg.norm(chain(case, lambda rho: 1.0, at=t)["continuation"])
                                               for t in range(3)])  # fmt: skip


def test_the_number_of_orders_by_counting_extensions(capsys):
    """The continuation is followed by the leak, and that by the reduction; truncation is after all of the first three.

    Count by the set of terms already placed.
    """
    needs = {"occupancy": (), "action": (), "continuation": (), "truncation": TERMS[:3], "baseline_leak": TERMS[2:3]}
    needs["reduction"] = ("baseline_leak",)

    def extensions(placed):
        free = [name for name in TERMS if name not in placed and set(needs[name]) <= placed]
        return sum(extensions(placed | {name}) for name in free) if free else int(len(placed) == len(TERMS))

    right = extensions(frozenset())
    assert "right" in verdict(capsys, "4.4", right)
    for wrong in (6, 720, right + 1):
        assert "not yet" in verdict(capsys, "4.4", wrong)


@pytest.mark.parametrize("name", ["4.1", "4.2", "4.3", "4.4"])
def test_unanswered(capsys, name):
    assert "not answered yet" in verdict(capsys, name, ...)
