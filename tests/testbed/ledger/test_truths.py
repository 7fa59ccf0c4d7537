"""Key numbers of the ledger against closed forms and plain loops."""

import math
from itertools import product

import numpy as np
import pytest

import theory
from testbed.ledger import cases
from testbed.ledger.claims.gspo_ratio_is_an_importance_weight import expected_root
from testbed.ledger.claims.masking_beats_truncation import _kept_count, _kept_share
from testbed.ledger.claims.minpro_clip_only_cuts_extremes import share_at_ceiling, share_at_floor
from testbed.ledger.claims.token_level_bias_grows_as_length_squared import bound
from testbed.ledger.claims.top_p_log_probabilities_give_a_policy_ratio import truncated
from testbed.ledger.claims.variance_of_prefix_ratio_is_a_product import both
from testbed.ledger.record import plain
from testbed.ledger.tiny import tiny_trees
from tests import brute_force


@pytest.fixture
def number(settled):
    return lambda name, key: plain(settled[name].finding.numbers[key])


def test_groups_shrink_by_one_over_their_size(number):
    for where in ("on policy, one prompt", "sequence ratio, one prompt", "on policy, two prompts"):
        mean = number("group_mean_is_an_unbiased_baseline", f"effective step, mean, G = 8, {where}")
        out = number("group_mean_is_an_unbiased_baseline", f"effective step, leave one out, G = 8, {where}")
        assert mean == pytest.approx(7 / 8, rel=1e-12)
        assert out == pytest.approx(1.0, rel=1e-12)


def test_two_tokens_have_the_sign_of_their_closed_form(number):
    name = "prefix_ratio_is_the_rigorous_correction"
    assert number(name, "two tokens, first logit: truth") == pytest.approx(-0.05)
    assert number(name, "two tokens, first logit: with outcome") == pytest.approx(0.05)


def test_gaussian_sums_of_nine_thousand(number):
    name = "averaging_log_ratios_fixes_sequence_weights"
    assert number(name, "median of W, T = 9000") == pytest.approx(math.exp(-9000 * 0.03**2 / 2))
    assert number(name, "ESS/N of W, T = 9000") == pytest.approx(math.exp(-8.1))
    # A plain draw of the tokens themselves, not of their sum; the record's median must halve it.
    rng = np.random.default_rng(7)
    log_w = np.array([rng.normal(-0.00045, 0.03, 9000).sum() for _ in range(1000)])
    below = np.mean(np.exp(log_w) < number(name, "median of W, T = 9000"))
    assert abs(below - 0.5) < 4.5 * 0.5 / math.sqrt(1000)  # false alarm in 150,000 runs
    assert abs(np.mean(np.exp(log_w) < 0.1) - 0.5) > 4.5 * 0.5 / math.sqrt(1000)


@pytest.mark.parametrize(("tokens", "sd"), [(1, 0.3), (2, 0.3), (7, 0.1), (50, 0.2)])
def test_the_floor_against_a_sum_over_positions(tokens, sd):
    """The same probability by a midpoint rule over the own log-ratio, one position at a time."""
    edges = np.linspace(-8, 8, 40_001)
    x = -(sd**2) / 2 + sd * (edges[1:] + edges[:-1]) / 2
    density = np.exp(-(((edges[1:] + edges[:-1]) / 2) ** 2) / 2) / math.sqrt(2 * math.pi) * (edges[1] - edges[0])
    cumulative = np.vectorize(lambda v: 0.5 * math.erfc(-(v + sd**2 / 2) / sd / math.sqrt(2)))
    floor = ceiling = 0.0
    for t in range(tokens):
        if t == 0:
            # The first token has m = 1: a step, which a midpoint rule would blur.
            floor += cumulative(math.log(0.8))
            ceiling += 1 - cumulative(math.log(1.28))
        else:
            floor += density @ (1 - (1 - cumulative(math.log(0.8) - x)) ** t)
            ceiling += density @ ((1 - cumulative(math.log(1.28) - x)) ** t)
    assert share_at_floor(tokens, sd) == pytest.approx(floor / tokens, abs=1e-7)
    assert share_at_ceiling(tokens, sd) == pytest.approx(ceiling / tokens, abs=1e-7)


def tree():
    return cases.reference(kl=0.1, depth=2)


def sequence_ratios(case):
    paths = brute_force.trajectories(case.process, case.behaviour)
    ratios = [math.exp(sum(brute_force.log_ratios(path, case.target, case.behaviour))) for path in paths]
    return np.array([path.probability for path in paths]), np.array(ratios)


def test_the_root_and_the_kept_share_against_all_sequences():
    chance, ratio = sequence_ratios(tree())
    assert expected_root(tree()) == pytest.approx(chance @ np.sqrt(ratio), rel=1e-12)
    assert _kept_share(tree(), 1.3) == pytest.approx(chance[ratio <= 1.3].sum(), rel=1e-12)
    assert both(tree())[0] == pytest.approx(chance @ ratio**2 - 1, rel=1e-10)


def test_a_kept_count_denominator_against_all_pairs_of_sequences():
    case = tree()
    paths = brute_force.trajectories(case.process, case.behaviour)
    _, ratio = sequence_ratios(case)
    score = case.target.score
    each = [
        w * path.terminal * sum(score[s, a] for s, a in zip(path.states, path.actions, strict=False))
        for w, path in zip(ratio, paths, strict=True)
    ]
    keep = ratio <= 1.3
    mean, second = 0.0, 0.0
    for i, j in product(range(len(paths)), repeat=2):
        chance = paths[i].probability * paths[j].probability
        kept = int(keep[i]) + int(keep[j])
        value = (keep[i] * each[i] + keep[j] * each[j]) / max(kept, 1)
        mean, second = mean + chance * value, second + chance * (value @ value)
    gradient = theory.policy_gradient(case.process, case.target)
    expected = (second - 2 * mean @ gradient + gradient @ gradient) / (gradient @ gradient)
    m = cases.moments(case, theory.weight("masked", level="sequence", interval=(0.0, 1.3)), "outcome")
    assert _kept_count(m, _kept_share(case, 1.3), 2).total == pytest.approx(expected, rel=1e-10)
    # Negative control: the fixed denominator is another estimator.
    assert m.mean_squared_error(2) / (gradient @ gradient) != pytest.approx(expected, rel=1e-3)


def test_the_bound_is_above_every_tiny_bias_and_an_eighth_of_it_is_not():
    shares = []
    for one in tiny_trees(depths=(1,)):
        case = cases.Case(*one.case)
        if one.target != one.behaviour:
            shares.append(np.linalg.norm(cases.moments(case, "none", "outcome").bias) / bound(case))
    assert max(shares) <= 1.0
    assert max(shares) > 1 / 8


def test_top_p_keeps_the_least_set_that_reaches_the_mass():
    policy = theory.SoftmaxPolicy(np.log([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]))
    np.testing.assert_allclose(truncated(policy, 0.7).probabilities, [[5 / 8, 3 / 8, 0], [0, 2 / 3, 1 / 3]])
    np.testing.assert_allclose(truncated(policy, 0.5).probabilities, [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(truncated(policy, 1.0).probabilities, policy.probabilities)
