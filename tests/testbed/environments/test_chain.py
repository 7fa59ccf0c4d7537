"""River swim: detailed balance."""

import numpy as np
import pytest

import testbed
import theory
from tests.testbed.environments.plain import expected_return, policy_of

RIGHT = [0.0, 1.0]


def stationary_law(process, policy):
    """Detailed balance of a birth-death chain: d(s+1) / d(s) = P(s -> s+1) / P(s+1 -> s)."""
    step = np.einsum("sa,san->sn", policy.probabilities, process.transition)
    law = np.cumprod([1.0] + [step[s, s + 1] / step[s + 1, s] for s in range(process.states - 1)])
    return law / law.sum()


def return_from(process, policy, start, horizon):
    """The chain with another start law and horizon."""
    return expected_return(theory.MarkovProcess(start, process.transition, process.reward, horizon), policy)


def test_swimming_right_earns_7203_in_16805_steps():
    process = testbed.environment("chain", states=6).process
    law = stationary_law(process, policy_of(process, RIGHT))
    np.testing.assert_allclose(law[5], 7203 / 16805, rtol=1e-12)
    T = 7
    earned = return_from(process, policy_of(process, RIGHT), law, T)
    np.testing.assert_allclose(earned, T * 7203 / 16805, rtol=1e-12)
    other = return_from(process, policy_of(process, [0.1, 0.9]), law, T)
    assert abs(other - T * 7203 / 16805) > 0.01  # another policy has another law


def test_swimming_right_is_best_in_the_long_run():
    process = testbed.environment("chain", states=6).process
    gains = {}
    for actions in np.ndindex(*[2] * 6):
        law = stationary_law(process, policy_of(process, np.eye(2)[list(actions)]))
        gains[actions] = 0.005 * law[0] * (actions[0] == 0) + law[5] * (actions[5] == 1)
    assert max(gains, key=gains.get) == (1,) * 6
    np.testing.assert_allclose(gains[(1,) * 6], 0.4286, atol=5e-5)
    np.testing.assert_allclose(gains[(0,) * 6], 0.005, rtol=1e-12)


@pytest.mark.parametrize("states", [2, 3, 4, 7])
def test_stationary_start_earns_the_same_on_every_step(states):
    made = testbed.environment("chain", states=states)
    law = stationary_law(made.process, made.target)
    pi = made.target.probabilities
    gain = 0.005 * law[0] * pi[0, 0] + law[-1] * pi[-1, 1]
    np.testing.assert_allclose(return_from(made.process, made.target, law, 9), 9 * gain, rtol=1e-12)
    assert abs(expected_return(made.process, made.target) - 8 * gain) > 1e-3  # state 0 is not the stationary start
