"""Divergences against a walk over all trajectories, closed forms and inequalities; each rejects a wrong answer."""

import math
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import theory
from tests.instances import instances, random_instance
from theory.divergence import kl_behaviour_target


def trajectory_laws(process, target, behaviour):
    """Plain loops: {trajectory: (probability under pi, probability under mu)}, of positive probability under either."""
    laws = {}

    def walk(trajectory, s, steps, under_pi, under_mu):
        if steps == process.horizon or process.absorbing[s]:
            laws[trajectory] = (under_pi, under_mu)
            return
        for a in range(process.actions):
            for following in range(process.states):
                p = process.transition[s, a, following]
                pi, mu = under_pi * target.probabilities[s, a] * p, under_mu * behaviour.probabilities[s, a] * p
                if pi > 0 or mu > 0:
                    walk((*trajectory, a, following), following, steps + 1, pi, mu)

    for s in range(process.states):
        if process.initial[s] > 0:
            walk((s,), s, 0, process.initial[s], process.initial[s])
    return laws


def token_laws(laws):
    """Laws of the token (s, a) with the state of a token of mu: ({(s, a): mu}, expected length)."""
    count = defaultdict(float)
    for trajectory, (_, mu) in laws.items():
        for i in range(0, len(trajectory) - 1, 2):
            count[trajectory[i], trajectory[i + 1]] += mu
    length = sum(count.values())
    return {pair: value / length for pair, value in count.items() if value}, length


def kl_of(pairs):
    """Sum of p log(p / q) over (p, q)."""
    return sum(0.0 if p == 0 else math.inf if q == 0 else p * math.log(p / q) for p, q in pairs)


def chi_square_of(pairs):
    """Sum of p^2 / q - 1 over (p, q)."""
    return sum(0.0 if p == 0 else math.inf if q == 0 else p * p / q for p, q in pairs) - 1.0


def twin(process, target, behaviour):
    """All fields by name, from the laws alone."""
    laws = trajectory_laws(process, target, behaviour)
    sequence = list(laws.values())
    reversed_ = [(mu, pi) for pi, mu in sequence]
    chi_square = chi_square_of(sequence)
    result = {
        "sequence.kl_behaviour_target": kl_of(reversed_),
        "sequence.kl_target_behaviour": kl_of(sequence),
        "sequence.total_variation": sum(abs(pi - mu) for pi, mu in sequence) / 2,
        "sequence.chi_square": chi_square,
        "sequence.renyi": math.log1p(chi_square),
        "sequence.effective_sample_size": 1 / (1 + chi_square),
        "sequence.lost_mass": sum(pi for pi, mu in sequence if mu == 0),
    }
    drawn, result["expected_length"] = token_laws(laws) if any(len(t) > 1 for t in laws) else ({}, 0.0)
    states = defaultdict(float)
    for (s, _), probability in drawn.items():
        states[s] += probability
    token = [
        (d * target.probabilities[s, a], d * behaviour.probabilities[s, a])
        for s, d in states.items()
        for a in range(process.actions)
    ]
    distances = [sum(abs(target.probabilities[s] - behaviour.probabilities[s])) / 2 for s in states]
    chi_square = chi_square_of(token) if token else math.nan
    result |= {
        "token.kl_behaviour_target": kl_of((mu, pi) for pi, mu in token) if token else math.nan,
        "token.kl_target_behaviour": kl_of(token) if token else math.nan,
        "token.total_variation": sum(abs(pi - mu) for pi, mu in token) / 2 if token else math.nan,
        "token.maximum_total_variation": max(distances, default=math.nan),
        "token.chi_square": chi_square,
        "token.renyi": math.log1p(chi_square),
        "token.effective_sample_size": 1 / (1 + chi_square),
    }
    return result


def flat(divergences):
    result = {f"token.{k}": v for k, v in vars(divergences.token).items()}
    result |= {f"sequence.{k}": v for k, v in vars(divergences.sequence).items()}
    return result | {"expected_length": divergences.expected_length}


def agree(process, target, behaviour, expected):
    actual = flat(theory.divergences(process, target, behaviour))
    assert actual.keys() == expected.keys()
    return all(actual[k] == pytest.approx(expected[k], rel=1e-9, abs=1e-12, nan_ok=True) for k in expected)


def truncated(policy, seed):
    """The policy with a random half of its actions taken away, at least one left per state."""
    keep = np.random.default_rng(seed).random(policy.logits.shape) < 0.6
    keep[np.arange(policy.states), policy.probabilities.argmax(axis=1)] = True
    return theory.SoftmaxPolicy(np.where(keep, policy.logits, -np.inf))


def one_state(T, pi, mu):
    with np.errstate(divide="ignore"):
        target, behaviour = theory.SoftmaxPolicy(np.log([pi])), theory.SoftmaxPolicy(np.log([mu]))
    A = len(pi)
    return theory.MarkovProcess([1.0], np.ones((1, A, 1)), np.zeros((1, A)), horizon=T), target, behaviour


@given(instances())
@settings(max_examples=150, deadline=None)
def test_equals_the_sum_over_all_trajectories(instance):
    assert agree(*instance, twin(*instance))


@given(instances(), st.integers(0, 100), st.sampled_from(["target", "behaviour", "both"]))
@settings(max_examples=150, deadline=None)
def test_equals_the_sum_over_all_trajectories_where_support_is_lost(instance, seed, which):
    process, target, behaviour = instance
    target = truncated(target, seed) if which != "behaviour" else target
    behaviour = truncated(behaviour, seed + 1) if which != "target" else behaviour
    assert agree(process, target, behaviour, twin(process, target, behaviour))


def test_rejects_swapped_policies_and_a_wrong_horizon():
    process, target, behaviour = random_instance(0)
    assert agree(process, target, behaviour, twin(process, target, behaviour))
    assert not agree(process, behaviour, target, twin(process, target, behaviour))
    longer = random_instance(0, T=5).process
    assert not agree(longer, target, behaviour, twin(process, target, behaviour))


@pytest.mark.parametrize("order", [0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("lost", ["none", "target", "behaviour", "both"])
def test_renyi_of_any_order(order, lost):
    process, target, behaviour = random_instance(1)
    target = truncated(target, 0) if lost in ("target", "both") else target
    behaviour = truncated(behaviour, 5) if lost in ("behaviour", "both") else behaviour
    laws = list(trajectory_laws(process, target, behaviour).values())
    if order == 1.0:
        expected = kl_of(laws)
    elif order > 1.0 and any(mu == 0 for _, mu in laws):
        expected = math.inf
    else:
        moment = sum(pi**order * mu ** (1 - order) for pi, mu in laws if pi > 0 and mu > 0)
        expected = math.log(moment) / (order - 1)
    actual = theory.renyi_divergence(process, target, behaviour, order)
    assert actual == pytest.approx(expected, rel=1e-9, abs=1e-12)
    if 0.0 < order < math.inf and math.isfinite(expected):
        assert actual != pytest.approx(theory.renyi_divergence(process, behaviour, target, order + 0.1), rel=1e-6)


@given(instances(same_policy=False))
@settings(max_examples=60, deadline=None)
def test_renyi_does_not_fall_with_its_order_and_passes_through_kl(instance):
    orders = [0.0, 0.5, 0.999, 1.0, 1.001, 2.0, 4.0]
    found = [theory.renyi_divergence(*instance, order) for order in orders]
    assert all(low <= high + 1e-10 for low, high in pairwise(found))
    skew = 0.3  # (1 - a) D_a(pi || mu) = a D_{1-a}(mu || pi): van Erven & Harremoes 2014, proposition 2
    process, target, behaviour = instance
    left = (1 - skew) * theory.renyi_divergence(process, target, behaviour, skew)
    assert left == pytest.approx(skew * theory.renyi_divergence(process, behaviour, target, 1 - skew), abs=1e-10)


def test_disjoint_policies():
    found = theory.divergences(*one_state(2, [1.0, 0.0], [0.0, 1.0]))
    sequence = found.sequence
    assert (sequence.kl_behaviour_target, sequence.kl_target_behaviour) == (math.inf, math.inf)
    assert (sequence.renyi, sequence.chi_square, sequence.effective_sample_size) == (math.inf, math.inf, 0.0)
    assert (sequence.total_variation, sequence.lost_mass, found.token.total_variation) == (1.0, 1.0, 1.0)
    assert theory.renyi_divergence(*one_state(2, [1.0, 0.0], [0.0, 1.0]), order=0.5) == math.inf


def test_two_coins_by_hand():
    # pi = (1/2, 1/2), mu = (4/5, 1/5), two tosses: mu - pi is .64 - .25, twice .16 - .25, and .04 - .25.
    found = theory.divergences(*one_state(2, [0.5, 0.5], [0.8, 0.2]))
    assert found.token.total_variation == pytest.approx(0.3)
    assert found.sequence.total_variation == pytest.approx(0.64 - 0.25)
    assert found.token.chi_square == pytest.approx(0.25 / 0.8 + 0.25 / 0.2 - 1)
    assert found.sequence.chi_square == pytest.approx(1.5625**2 - 1)
    assert found.token.kl_behaviour_target == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4))
    assert found.token.kl_target_behaviour == pytest.approx(0.5 * math.log(0.625) + 0.5 * math.log(2.5))


@pytest.mark.parametrize("T", [1, 7, 300])
def test_independent_tokens(T):
    pi, mu = [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]
    found = theory.divergences(*one_state(T, pi, mu))
    for kl in ("kl_behaviour_target", "kl_target_behaviour", "renyi"):
        assert getattr(found.sequence, kl) == pytest.approx(T * getattr(found.token, kl), rel=1e-12)
    assert 1 + found.sequence.chi_square == pytest.approx((1 + found.token.chi_square) ** T, rel=1e-10)
    assert found.expected_length == T


def test_total_variation_of_many_tosses_is_that_of_the_count():
    # The count of heads is sufficient, so the sequence's distance is that of two binomial laws, here in whole numbers.
    T = 60
    found = theory.divergences(*one_state(T, [0.5, 0.5], [0.75, 0.25]))
    expected = sum(math.comb(T, k) * abs(2**T - 3**k) for k in range(T + 1)) / 2 / 4**T
    assert found.sequence.total_variation == pytest.approx(expected, rel=1e-11)
    assert found.sequence.total_variation != pytest.approx(T * found.token.total_variation, rel=0.1)


def test_horizon_of_ten_thousand():
    found = theory.divergences(*one_state(10_000, [0.9, 0.1], [0.5, 0.5]))
    assert found.sequence.renyi == pytest.approx(10_000 * math.log(2 * (0.81 + 0.01)), rel=1e-10)
    assert found.sequence.chi_square == math.inf
    assert found.sequence.effective_sample_size == 0.0
    assert math.isnan(found.sequence.total_variation)
    assert found.sequence.kl_behaviour_target == pytest.approx(10_000 * found.token.kl_behaviour_target, rel=1e-10)


def test_a_slow_corner_that_only_matters_late_is_not_lost_to_a_fast_one():
    # Start in state 1, where nothing drifts; state 0 is never reached, but its moment grows past the largest float.
    transition = np.zeros((2, 2, 2))
    transition[[0, 1], :, [0, 1]] = 1.0
    process = theory.MarkovProcess([0.0, 1.0], transition, np.zeros((2, 2)), horizon=10_000)
    target = theory.SoftmaxPolicy([[5.0, 0.0], [0.0, 0.01]])
    found = theory.divergences(process, target, theory.SoftmaxPolicy(np.zeros((2, 2))))
    assert found.sequence.renyi == pytest.approx(10_000 * math.log(2 * (target.probabilities[1] ** 2).sum()), rel=1e-8)
    assert found.sequence.renyi < 1.0


def test_small_divergences_keep_their_digits():
    # KL of a tiny shift d of one logit of a fair coin is x tanh(x) - log cosh(x) with x = d / 2
    for d in (1e-2, 1e-4, 1e-6):
        process, target, _ = one_state(3, [0.5, 0.5], [0.5, 0.5])
        behaviour = theory.SoftmaxPolicy(target.logits + np.array([d, 0.0]))
        assert kl_behaviour_target(process, target, behaviour) == pytest.approx(d * d / 8 - d**4 / 64, rel=1e-8, abs=0)
        naive = (behaviour.probabilities * (behaviour.log_probabilities - target.log_probabilities)).sum()
        assert d > 1e-6 or naive != pytest.approx(d * d / 8, rel=1e-5, abs=0)


@given(instances())
@settings(max_examples=100, deadline=None)
def test_inequalities_and_identities(instance):
    process, target, behaviour = instance
    found = theory.divergences(*instance)
    token, sequence = found.token, found.sequence
    if found.expected_length == 0.0:
        assert all(math.isnan(v) for v in vars(token).values())
        assert (sequence.kl_behaviour_target, sequence.total_variation, sequence.renyi) == (0.0, 0.0, 0.0)
        return
    for level in (token, sequence):
        assert 0.0 <= level.total_variation <= 1.0 + 1e-12
        assert 0.0 < level.effective_sample_size <= 1.0
        # Pinsker; Bretagnolle & Huber; and chi-square over KL (Gibbs & Su 2002, theorem 5).
        for kl in (level.kl_behaviour_target, level.kl_target_behaviour):
            assert level.total_variation <= math.sqrt(kl / 2) + 1e-9
            assert level.total_variation <= math.sqrt(-math.expm1(-kl)) + 1e-9
        assert level.chi_square >= math.expm1(level.kl_target_behaviour) - 1e-9
        assert level.renyi == pytest.approx(math.log1p(level.chi_square), abs=1e-12)
    assert token.total_variation <= token.maximum_total_variation + 1e-12
    assert sequence.total_variation <= found.expected_length * token.total_variation + 1e-12
    assert sequence.kl_behaviour_target == pytest.approx(found.expected_length * token.kl_behaviour_target, abs=1e-12)
    assert sequence.lost_mass == 0.0
    for per, level in (("token", token), ("sequence", sequence)):
        assert kl_behaviour_target(process, target, behaviour, per) == level.kl_behaviour_target
    # Data processing: what a trajectory's end state tells is no more than what the trajectory tells.
    end = [theory.values(process, policy).occupancy[-1] for policy in (target, behaviour)]
    assert np.abs(end[0] - end[1]).sum() / 2 <= sequence.total_variation + 1e-12


def test_the_inequalities_can_fail():
    # chi-square bounds the KL of pi from mu, not that of mu from pi; the length identity is of mu, not of pi.
    found = theory.divergences(*one_state(1, [0.99, 0.01], [0.5, 0.5]))
    assert found.sequence.chi_square < math.expm1(found.sequence.kl_behaviour_target)
    found = theory.divergences(*random_instance(3))
    wrong = found.expected_length * found.token.kl_target_behaviour
    assert found.sequence.kl_target_behaviour != pytest.approx(wrong, rel=1e-3)


@given(instances(same_policy=True))
@settings(max_examples=30, deadline=None)
def test_no_drift_is_exactly_none(instance):
    found = theory.divergences(*instance)
    for level in (found.token, found.sequence):
        for name, value in vars(level).items():
            assert math.isnan(value) or value == (1.0 if name == "effective_sample_size" else 0.0)


def test_divergences_off_the_behaviours_path_do_not_count():
    # mu never leaves state 0; pi goes to state 1, where mu lacks pi's only action.
    transition = np.zeros((2, 2, 2))
    transition[:, 0, 0] = transition[:, 1, 1] = 1.0
    process = theory.MarkovProcess([1.0, 0.0], transition, np.zeros((2, 2)), horizon=2)
    inf = math.inf
    behaviour = theory.SoftmaxPolicy([[0.0, -inf], [0.0, -inf]])
    target = theory.SoftmaxPolicy([[0.0, 0.0], [-inf, 0.0]])
    found = theory.divergences(process, target, behaviour)
    assert found.token.kl_behaviour_target == pytest.approx(math.log(2))
    assert found.token.maximum_total_variation == pytest.approx(0.5)
    assert found.token.kl_target_behaviour == inf
    assert found.sequence.lost_mass == pytest.approx(0.75)
    assert found.sequence.total_variation == pytest.approx(0.75)


def test_too_many_moves_leaves_total_variation_undefined_and_nothing_else():
    instance = random_instance(0)
    full, skipped = flat(theory.divergences(*instance)), flat(theory.divergences(*instance, moves=0))
    assert math.isnan(skipped.pop("sequence.total_variation"))
    assert not math.isnan(full.pop("sequence.total_variation"))
    assert skipped == full


def test_sparse_transitions_give_the_same():
    import scipy.sparse

    process, target, behaviour = random_instance(2)
    S, A = process.states, process.actions
    sparse = theory.MarkovProcess(
        process.initial, scipy.sparse.csr_array(process.transition.reshape(S * A, S)), process.reward, process.horizon,
        process.terminal_reward, process.absorbing,
    )  # fmt: skip
    assert agree(
        sparse, target, truncated(behaviour, 1), flat(theory.divergences(process, target, truncated(behaviour, 1)))
    )


def test_refuses_in_the_users_words():
    process, target, behaviour = random_instance(0)
    other = theory.SoftmaxPolicy([[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"target policy has shape \(1, 2\); expected \(S, A\) = \(4, 3\)"):
        theory.divergences(process, other, behaviour)
    with pytest.raises(ValueError, match=r"behaviour policy has shape \(1, 2\)"):
        theory.divergences(process, target, other)
    for order in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected a finite number of at least 0"):
            theory.renyi_divergence(process, target, behaviour, order)
    with pytest.raises(ValueError, match="unknown per 'tokens'; the nearest known name is 'token'"):
        kl_behaviour_target(process, target, behaviour, "tokens")
