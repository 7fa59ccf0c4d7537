"""Statistics of single weights against a plain loop over every trajectory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import theory
from testbed import drift, environment
from testbed.sweep.token_weights import token_weights, tokens_of


@pytest.fixture(scope="module")
def pair():
    e = environment("brackets", horizon=5)  # responses of variable length
    return e.process, drift.at("noise", e.process, e.target, kl=0.1, seed=3)


def tokens_one_by_one(process, drifted):
    """(probability of the token's trajectory, log-ratios of that trajectory, position) of every token, by recursion."""
    pi, mu = drifted.target.probabilities, drifted.behaviour.probabilities
    transition = process.transition_matrix
    transition = np.asarray(transition.todense() if hasattr(transition, "todense") else transition)

    def walk(state, t, probability, log_ratios):
        if t == process.horizon or process.absorbing[state]:
            yield from ((probability, log_ratios, k) for k in range(len(log_ratios)))
            return
        for a, following in itertools.product(range(process.actions), range(process.states)):
            chance = mu[state, a] * transition[state * process.actions + a, following]
            if chance > 0.0:
                ratio = np.log(pi[state, a] / mu[state, a])
                yield from walk(following, t + 1, probability * chance, [*log_ratios, ratio])

    for state in np.flatnonzero(process.initial):
        yield from walk(state, 0, process.initial[state], [])


@pytest.mark.parametrize("name", ["token", "prefix", "sequence", "minpro"])
def test_mean_and_median_by_a_plain_loop(name, pair):
    process, drifted = pair
    formula = {
        "token": lambda log_ratios, t: np.exp(log_ratios[t]),
        "prefix": lambda log_ratios, t: np.exp(sum(log_ratios[: t + 1])),
        "sequence": lambda log_ratios, t: np.exp(sum(log_ratios)),
        "minpro": lambda log_ratios, t: np.exp(log_ratios[t] + min(log_ratios[:t], default=0.0)),
    }[name]
    tokens = list(tokens_one_by_one(process, drifted))
    share = np.array([probability for probability, _, _ in tokens])
    weights = np.array([formula(log_ratios, t) for _, log_ratios, t in tokens])
    share /= share.sum()
    found = token_weights(tokens_of(process, drifted.target, drifted.behaviour), theory.weight(name), None)
    assert found.mean == pytest.approx(share @ weights, rel=1e-12)
    assert found.share_zero == 0.0
    assert share[weights < found.median * (1 - 1e-9)].sum() < 0.5 <= share[weights <= found.median * (1 + 1e-9)].sum()


def test_ratios_average_to_one(pair):
    process, drifted = pair
    tokens = tokens_of(process, drifted.target, drifted.behaviour)
    assert token_weights(tokens, theory.weight("token"), None).mean == pytest.approx(1.0, rel=1e-12)
    # Negative control: what is cut off is missing.
    assert token_weights(tokens, theory.weight("truncated", cap=1.0), None).mean < 0.999


def test_share_of_masked_tokens(pair):
    process, drifted = pair
    tokens = tokens_of(process, drifted.target, drifted.behaviour)
    interval = (0.9, 1.1)
    walk, edge = tokens.walk, tokens.block.edge
    ratio = np.exp(tokens.ratios.log_ratio[walk.state[edge], walk.action[edge]])
    outside = (ratio < interval[0]) | (ratio > interval[1])
    expected = tokens.share[outside[tokens.block.acting]].sum()
    assert 0.0 < expected < 1.0
    found = token_weights(tokens, theory.weight("masked", interval=interval), None)
    assert found.share_zero == pytest.approx(expected, rel=1e-12)


def test_weights_that_look_at_the_sign_need_the_signal(pair):
    process, drifted = pair
    tokens = tokens_of(process, drifted.target, drifted.behaviour)
    clipped = theory.weight("ppo_clip")
    # Rewards are 0 and 1, so an outcome is never negative; an advantage is.
    one, other = (token_weights(tokens, clipped, theory.signal(name)) for name in ("target_advantage", "outcome"))
    assert one != other
    assert np.isnan(token_weights(tokens, clipped, theory.group(4)).mean)


def test_large_trees_are_left_out():
    e = environment("parity", horizon=20)
    assert tokens_of(e.process, e.target, e.target) is None


def test_the_median_is_where_half_of_the_tokens_are_reached():
    """Shares of exactly one half, and of one part in two thousand less."""
    process = theory.MarkovProcess([1.0], np.ones((1, 2, 1)), np.zeros((1, 2)), horizon=1)
    target = theory.SoftmaxPolicy(np.log([[0.4, 0.6]]))
    for share, expected in [(0.5, 0.4 / 0.5), (0.4995, 0.6 / 0.5005), (0.5005, 0.4 / 0.5005)]:
        behaviour = theory.SoftmaxPolicy(np.log([[share, 1.0 - share]]))
        found = token_weights(tokens_of(process, target, behaviour), theory.weight("token"), None)
        assert found.median == pytest.approx(expected, rel=1e-12)
