"""Fixed-length token tasks against their closed forms, with token probabilities that are nothing special."""

import itertools

import numpy as np
import pytest

import testbed
from tests.testbed.environments.plain import expected_return, policy_of, uniform


@pytest.mark.parametrize("T", [1, 2, 5, 10])
@pytest.mark.parametrize("p", [0.5, 0.1, 0.7])
def test_parity_of_biased_coins(T, p):
    process = testbed.environment("parity", horizon=T).process
    value = expected_return(process, policy_of(process, [1 - p, p]))
    np.testing.assert_allclose(value, (1 + (1 - 2 * p) ** T) / 2, rtol=1e-12)
    if p != 0.5:
        assert abs(value - (1 - (1 - 2 * p) ** T) / 2) > 1e-7  # odd parity is told from even


def test_parity_of_the_default_target_is_the_two_state_chain():
    made = testbed.environment("parity")
    p, q = made.target.probabilities[:, 1]
    value = expected_return(made.process, made.target)
    np.testing.assert_allclose(value, (q + p * (1 - p - q) ** 10) / (p + q), rtol=1e-12)
    assert abs(value - (p + q * (1 - p - q) ** 10) / (p + q)) > 1e-3
    assert value > 0.5  # better than chance


@pytest.mark.parametrize(("modulus", "tokens", "T"), [(5, 3, 8), (2, 4, 5), (7, 2, 9), (3, 5, 1)])
def test_modular_sum_by_characters(modulus, tokens, T):
    process = testbed.environment("modular_sum", modulus=modulus, tokens=tokens, horizon=T).process
    p = np.arange(1.0, tokens + 1)
    p /= p.sum()
    k, a = np.arange(modulus), np.arange(tokens)
    phi = np.exp(2j * np.pi * np.outer(k, a) / modulus) @ p
    value = expected_return(process, policy_of(process, p))
    np.testing.assert_allclose(value, (phi**T).mean().real, rtol=1e-10)
    other = (phi**T * np.exp(-2j * np.pi * k / modulus)).mean().real  # the sum is 1, not 0, modulo m
    assert abs(value - other) > 1e-4


def texts_without(word, letters, length):
    """The coefficient of z^length in c(z) / (z^m + (1 - q z) c(z)), by long division."""
    m = len(word)
    c = np.array([float(word[k:] == word[: m - k]) for k in range(m)])
    denominator = np.zeros(m + 1)
    denominator[m] += 1
    denominator[:m] += c
    denominator[1:] -= letters * c
    series = np.zeros(length + 1)
    for n in range(length + 1):
        series[n] = (c[n] if n < m else 0.0) - sum(denominator[j] * series[n - j] for j in range(1, min(n, m) + 1))
    return series[length]


@pytest.mark.parametrize(("word", "T"), [("abab", 10), ("aaaa", 10), ("ab", 3), ("abcab", 9), ("a", 4), ("abab", 3)])
def test_keyword_by_its_autocorrelation(word, T):
    made = testbed.environment("keyword", keyword=word, horizon=T)
    q = made.process.actions
    value = expected_return(made.process, uniform(made.process))
    np.testing.assert_allclose(value, 1 - texts_without(word, q, T) / q**T, atol=1e-12)
    if word == "abab":
        # A word of the same length that does not overlap itself occurs in another number of texts.
        assert T < 4 or abs(value - (1 - texts_without("aabb", q, T) / q**T)) > 1e-3


def test_keyword_automaton_agrees_with_substring_search():
    made = testbed.environment("keyword", keyword="aab", horizon=6)
    pi = made.target.probabilities
    successor = made.process.transition.argmax(axis=2)
    total = 0.0
    for letters in itertools.product(range(2), repeat=6):
        state, probability = 0, 1.0
        for a in letters:
            probability, state = probability * pi[state, a], successor[state, a]
        assert (state == 3) == ("aab" in "".join("ab"[a] for a in letters))
        total += probability * ("aab" in "".join("ab"[a] for a in letters))
    np.testing.assert_allclose(total, expected_return(made.process, made.target), rtol=1e-12)


@pytest.mark.parametrize(("depth", "vocabulary"), [(5, 3), (3, 2), (1, 4)])
def test_token_tree_merges_nothing(depth, vocabulary):
    made = testbed.environment("token_tree", depth=depth, vocabulary=vocabulary)
    pi, terminal = made.target.probabilities, made.process.terminal_reward
    total, leaves = 0.0, set()
    for tokens in itertools.product(range(vocabulary), repeat=depth):
        state, probability = 0, 1.0
        for a in tokens:
            probability, state = probability * pi[state, a], vocabulary * state + 1 + a
        leaves.add(state)
        total += probability * terminal[state]
    assert len(leaves) == vocabulary**depth == made.trajectories
    assert max(leaves) == made.process.states - 1
    np.testing.assert_allclose(total, expected_return(made.process, made.target), rtol=1e-12)
    share = terminal[sorted(leaves)].mean()
    np.testing.assert_allclose(expected_return(made.process, uniform(made.process)), share, rtol=1e-12)
    assert 0 < share < 1
    assert abs(total - share) > 1e-4  # the default target is not uniform


def test_token_tree_is_kept_sparse_when_large():
    process = testbed.environment("token_tree", depth=6).process
    assert process.transition.shape == (process.states * 3, process.states)
    assert process.transition.nnz == process.states * 3


def test_token_tree_rewards_depend_on_the_seed():
    one, again, two = (testbed.environment("token_tree", seed=seed).process.terminal_reward for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != two).any()
