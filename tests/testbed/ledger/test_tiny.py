"""Tiny trees: which there are, in which order, and their moments against a visit of every trajectory."""

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from testbed.ledger.tiny import HALF, TinyTree, smallest, tiny_trees
from tests import brute_force

QUARTER = Fraction(1, 4)


def test_there_are_nine_pairs_of_policies_and_two_rewards_at_one_token():
    trees = list(tiny_trees(depths=(1,)))
    assert len(trees) == len(set(trees)) == 9 * 2
    assert len(list(tiny_trees(depths=(1,), on_policy=True))) == 3 * 2
    assert len(list(tiny_trees(depths=(2,)))) == 9**3 * (2**4 - 2)


def test_smaller_and_plainer_trees_come_first():
    def departures(tree):
        pairs = zip(tree.target, tree.behaviour, strict=True)
        return sum(pair != (HALF, HALF) for pair in pairs) + sum(r != 0 for r in tree.rewards)

    trees = list(tiny_trees(depths=(1, 2)))
    order = [(tree.depth, departures(tree)) for tree in trees]
    assert order == sorted(order)
    assert trees[0].label == "T=1, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/2; R = 1 0"


@pytest.mark.parametrize("weight", ["token", "prefix", "minpro"])
def test_moments_are_those_of_the_printed_tree(weight):
    tree = TinyTree((HALF, QUARTER, HALF), (QUARTER, HALF, Fraction(3, 4)), (1, 0, 0, 1))
    process, pi, mu = tree.case
    np.testing.assert_allclose(pi.probabilities[:3, 1], [0.5, 0.25, 0.5])
    np.testing.assert_allclose(mu.probabilities[:3, 1], [0.25, 0.5, 0.75])
    # Leaves left to right: 00, 01, 10, 11.
    paid = {x.actions: x.terminal for x in brute_force.trajectories(process, mu)}
    assert paid == {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 1.0}
    mean, second = brute_force.moments(process, pi, mu, weight, "outcome")
    m = tree.moments(weight, "outcome")
    np.testing.assert_allclose(m.mean, mean, atol=1e-14)
    assert m.variance == pytest.approx(second - mean @ mean, rel=1e-12)


def test_the_first_instance_is_found_and_the_count_is_right():
    def shows(tree):
        return {"depth": 2.0} if tree.depth == 2 else None

    found = smallest("two tokens", shows, tiny_trees(depths=(1, 2)))
    assert (found.searched, found.numbers) == (19, {"depth": 2.0})
    assert found.found == next(tiny_trees(depths=(2,))).label
    assert smallest("never", lambda tree: None, tiny_trees(), most=30).searched == 30
    assert smallest("never", lambda tree: None, islice(tiny_trees(), 7)).searched == 7
    assert smallest("never", lambda tree: None, tiny_trees(), most=30).found is None
