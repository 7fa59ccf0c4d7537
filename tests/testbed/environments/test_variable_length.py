"""Tasks with an end token: Catalan numbers and carries."""

import itertools
from math import comb

import numpy as np
import pytest

import testbed
import theory
from tests.testbed.environments.plain import expected_return, policy_of, uniform


def catalan(n):
    return comb(2 * n, n) // (n + 1)


def rewarded_of_length(process, length):
    """How many responses of exactly this length are rewarded: with a uniform policy each has probability A^-length."""
    right = int(np.flatnonzero(process.terminal_reward)[0])
    occupancy = theory.values(process, uniform(process)).occupancy[:, right]
    return (occupancy[length] - occupancy[length - 1]) * process.actions**length


def test_catalan_numbers_count_the_balanced_responses():
    process = testbed.environment("brackets", depth=6, horizon=13).process
    counts = [rewarded_of_length(process, 2 * n + 1) for n in range(1, 7)]
    np.testing.assert_allclose(counts, [1, 2, 5, 14, 42, 132], rtol=1e-9)
    np.testing.assert_allclose(counts, [catalan(n) for n in range(1, 7)], rtol=1e-9)
    assert all(abs(rewarded_of_length(process, even)) < 1e-9 for even in range(2, 13, 2))


def test_a_bound_on_the_depth_leaves_fewer():
    counts = {
        depth: [
            rewarded_of_length(testbed.environment("brackets", depth=depth).process, 2 * n + 1) for n in (1, 2, 3, 4)
        ]
        for depth in (1, 2, 3)
    }
    np.testing.assert_allclose(counts[1], [1, 1, 1, 1], rtol=1e-9)
    np.testing.assert_allclose(counts[2], [1, 2, 4, 8], rtol=1e-9)
    np.testing.assert_allclose(counts[3], [1, 2, 5, 13], rtol=1e-9)  # every other Fibonacci number


def test_default_brackets_reward_a_uniform_policy_as_catalan_says():
    process = testbed.environment("brackets").process
    value = expected_return(process, uniform(process))
    np.testing.assert_allclose(value, sum(catalan(n) / 3 ** (2 * n + 1) for n in range(1, 5)), rtol=1e-12)
    assert abs(value - sum(catalan(n) / 3 ** (2 * n + 1) for n in range(5))) > 0.3  # the empty response is not paid


def carry_probability(digits, base):
    """The share of pairs whose sum needs one more digit, by counting."""
    numbers = range(base**digits)
    return np.mean([x + y >= base**digits for x in numbers for y in numbers])


@pytest.mark.parametrize(("digits", "base"), [(1, 2), (1, 10), (2, 3), (3, 2), (2, 4)])
@pytest.mark.parametrize("p", [0.3, 0.9])
def test_addition_succeeds_as_the_carries_say(digits, base, p):
    made = testbed.environment("digit_addition", digits=digits, base=base)
    process, n = made.process, digits
    carry = (1 - base**-n) / 2
    np.testing.assert_allclose(carry, carry_probability(digits, base), rtol=1e-12)
    value = expected_return(process, _right_with_probability(process, p))
    np.testing.assert_allclose(value, (1 - carry) * p ** (n + 1) + carry * p ** (n + 2), rtol=1e-12)
    swapped = (1 - carry) * p ** (n + 2) + carry * p ** (n + 1)
    assert abs(value / swapped - 1) > 0.005  # the two lengths are told apart


def _right_with_probability(process, p):
    """The right token is the one after which a reward is still possible; there is one at most per state."""
    best = theory.values(process, uniform(process)).action_value[0]
    rows = np.full((process.states, process.actions), 1.0 / process.actions)
    for s in range(process.states):
        possible = np.flatnonzero(best[s] > 0)
        if possible.size == 1:
            rows[s] = (1 - p) / (process.actions - 1)
            rows[s, possible[0]] = p
    return policy_of(process, rows)


@pytest.mark.parametrize(("digits", "base"), [(2, 3), (1, 4), (3, 2)])
def test_exactly_the_written_sum_is_rewarded(digits, base):
    process = testbed.environment("digit_addition", digits=digits, base=base).process
    successor = process.transition.argmax(axis=2)
    columns = list(itertools.product(range(base), repeat=2))
    for start, prompt in enumerate(itertools.product(columns, repeat=digits)):  # lowest column first
        x, y = (sum(column[i] * base**k for k, column in enumerate(prompt)) for i in (0, 1))
        rewarded = []
        for tokens in itertools.product(range(base + 1), repeat=process.horizon):
            state, length = start, 0
            while not process.absorbing[state] and length < process.horizon:
                state, length = successor[state, tokens[length]], length + 1
            if process.terminal_reward[state]:
                rewarded.append(tokens[:length])
        written = [((x + y) // base**k) % base for k in range(digits)] + [1] * (x + y >= base**digits) + [base]
        assert set(rewarded) == {tuple(written)}


def test_default_target_of_addition_is_better_than_chance_and_worse_with_a_carry():
    made = testbed.environment("digit_addition")
    assert expected_return(made.process, made.target) > 5 * expected_return(made.process, uniform(made.process))
    value = theory.values(made.process, made.target).state_value[0]
    # 0 + 0 has no carry; 22 + 22 in base 3 has two.
    assert value[0] > value[80] > 0
