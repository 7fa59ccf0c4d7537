"""The speaker and the listener: whose turn it is, and the closed form of their return."""

import itertools

import numpy as np
import pytest

import testbed
import theory
from tests.testbed.environments.plain import expected_return, walk


def rule(process, acting, speaker, listener):
    """A policy that does not look at the matches so far: speaker (A,), listener (A, A) with row = the token heard."""
    A = process.actions
    heard = np.arange(process.states) % (A + 1)
    rows = np.where((acting == 0)[:, None], speaker, listener[heard - 1])
    return theory.SoftmaxPolicy(np.log(rows))


@pytest.mark.parametrize("coordination", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("rounds", "tokens"), [(1, 2), (4, 2), (3, 3)])
def test_the_return_of_independent_rounds(coordination, rounds, tokens):
    made = testbed.environment("two_agents", coordination=coordination, rounds=rounds, tokens=tokens)
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(tokens)), rng.dirichlet(np.ones(tokens), size=tokens)
    m = sum(p[a] * q[a, a] for a in range(tokens))
    found = expected_return(made.process, rule(made.process, made.acting, p, q))
    assert found == pytest.approx((1 - coordination) * m + coordination * m**rounds, rel=1e-12)
    # The control: the answers of one token taken for those of another.
    assert found != pytest.approx(expected_return(made.process, rule(made.process, made.acting, p, q[::-1])), rel=1e-3)


def test_turns_and_rewards_by_hand():
    """Every sequence of two rounds: who moves when, and what is paid."""
    made = testbed.environment("two_agents", coordination=0.25, rounds=2)
    step = made.process.transition.argmax(axis=2)
    for actions in itertools.product(range(2), repeat=4):
        state, movers = 0, []
        for a in actions:
            movers.append(int(made.acting[state]))
            state = step[state, a]
        matches = (actions[0] == actions[1]) + (actions[2] == actions[3])
        assert movers == [0, 1, 0, 1]
        assert made.process.terminal_reward[state] == pytest.approx({0: 0.0, 1: 0.375, 2: 1.0}[matches])
    assert made.trajectories == 16


def test_the_default_policy_by_walking_every_trajectory():
    made = testbed.environment("two_agents")
    found = walk(made.process, made.target)
    assert len(found) == made.trajectories == 256
    assert sum(p for p, _ in found) == pytest.approx(1.0)
    assert sum(p * paid for p, paid in found) == pytest.approx(expected_return(made.process, made.target), rel=1e-12)


def test_only_this_environment_has_agents():
    assert set(testbed.environment("two_agents").acting.tolist()) == {0, 1}
    assert testbed.environment("parity").acting is None


@pytest.mark.parametrize("options", [{"coordination": 1.1}, {"coordination": True}, {"rounds": 0}, {"tokens": 1}])
def test_options_without_meaning_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        testbed.environment("two_agents", **options)
