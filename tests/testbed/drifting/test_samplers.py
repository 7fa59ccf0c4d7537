"""Samplers: what they keep by a plain loop, the mass they lose by brute force, and which divergences they can reach."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import theory
from testbed import drift
from testbed.drifting import registry, samplers
from tests.instances import instances, random_instance
from theory.divergence import kl_behaviour_target

SAMPLERS = sorted(name for name, kind in registry.KINDS.items() if kind.steps is not None)
BANDIT = theory.MarkovProcess([1.0], np.ones((1, 4, 1)), np.arange(4.0)[None], horizon=1)
FOUR = theory.SoftmaxPolicy(np.log([[0.2, 0.5, 0.05, 0.25]]))


def strengths_of(kind, process, policy):
    return registry.KINDS[kind].steps(process, policy)


def nucleus(probabilities, p):
    """One by one from the likeliest, the lower index first among equals, until their sum is at least p."""
    order = sorted(range(len(probabilities)), key=lambda a: (-probabilities[a], a))
    kept, total = [], 0.0
    for a in order:
        if total >= p - 1e-12:
            break
        kept.append(a)
        total += probabilities[a]
    return kept


def restricted(probabilities, kept):
    """The probabilities of what is kept, over their sum."""
    total = math.fsum(probabilities[a] for a in kept)
    return np.array([probabilities[a] / total if a in kept else 0.0 for a in range(len(probabilities))])


def test_the_samplers_are_these():
    assert SAMPLERS == ["rounding", "top_k", "top_p"]


@given(instances(max_actions=4), st.floats(0.01, 1.0))
@settings(max_examples=100, deadline=None)
def test_top_p_is_the_nucleus_of_a_plain_loop(instance, p):
    process, policy, _ = instance
    tails = samplers._tails(policy)
    assume(np.abs(tails - (1.0 - p)).min() > 1e-10)  # not on the edge of a step, where the last digit decides
    target, behaviour = drift.apply("top_p", process, policy, p=p)
    assert target is policy or p == 1.0
    expected = np.array([restricted(row, nucleus(row, p)) for row in policy.probabilities])
    assert np.allclose(behaviour.probabilities, expected, rtol=1e-12, atol=0)
    assert np.allclose(behaviour.probabilities.sum(axis=1), 1.0, rtol=1e-14)


@given(instances(max_actions=4), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_top_k_is_that_of_a_plain_loop(instance, k):
    process, policy, _ = instance
    target, behaviour = drift.apply("top_k", process, policy, k=k)
    kept = [sorted(range(len(row)), key=lambda a, row=row: (-row[a], a))[:k] for row in policy.probabilities]
    expected = np.array([restricted(row, those) for row, those in zip(policy.probabilities, kept, strict=True)])
    assert np.allclose(behaviour.probabilities, expected, rtol=1e-12, atol=0)
    assert target is policy
    assert (behaviour is policy) == (k >= policy.actions)


def test_a_nucleus_ends_where_its_sum_is_exactly_p():
    """Sums of binary fractions of 0.5 + 0.3 may miss 0.8 by a rounding; the third action must not come in for it."""
    for p, kept in [(0.5, 1), (0.75, 2), (0.7500001, 3), (0.95, 3), (0.9500001, 4), (1.0, 4), (1e-9, 1)]:
        _, behaviour = drift.apply("top_p", BANDIT, FOUR, p=p)
        assert np.count_nonzero(behaviour.probabilities) == kept, p
    third = theory.SoftmaxPolicy(np.log([[0.5, 0.3, 0.2]]))
    one = theory.MarkovProcess([1.0], np.ones((1, 3, 1)), np.zeros((1, 3)), horizon=1)
    assert np.count_nonzero(drift.apply("top_p", one, third, p=0.8)[1].probabilities) == 2


def test_of_equal_actions_the_lower_index_is_kept():
    even = theory.SoftmaxPolicy(np.zeros((1, 4)))
    for options in ({"k": 2}, {"p": 0.5}):
        kind = "top_k" if "k" in options else "top_p"
        _, behaviour = drift.apply(kind, BANDIT, even, **options)
        assert behaviour.probabilities.tolist() == [[0.5, 0.5, 0.0, 0.0]]


@given(instances(max_actions=4), st.floats(0.0, 0.99), st.floats(0.0, 0.99))
@settings(max_examples=60, deadline=None)
def test_a_smaller_nucleus_lies_in_a_larger_one(instance, one, other):
    process, policy, _ = instance
    small, large = (drift.apply("top_p", process, policy, s)[1].probabilities > 0.0 for s in sorted((one, other))[::-1])
    assert (small <= large).all()
    assert small.any(axis=1).all()


def test_one_state_by_closed_form():
    """KL(mu || pi) = -log of the probability that is kept, and the lost mass is the rest."""
    for kind, options, kept in [("top_p", {"p": 0.6}, 0.75), ("top_k", {"k": 1}, 0.5), ("top_k", {"k": 3}, 0.95)]:
        drifted = drift.measured(kind, BANDIT, FOUR, **options)
        assert drifted.kl == pytest.approx(-math.log(kept), rel=1e-12)
        assert drifted.lost_mass == pytest.approx(1.0 - kept, rel=1e-12)
        d = theory.divergences(BANDIT, drifted.target, drifted.behaviour)
        assert d.token.kl_target_behaviour == math.inf
        # Negative control: another cut is another divergence.
        assert drift.measured("top_k", BANDIT, FOUR, k=2).kl != pytest.approx(drifted.kl, rel=0.1) or kept == 0.75


def lost_by_brute_force(process, target, behaviour):
    """Probability under pi of every trajectory in which some action has probability zero under mu, one by one."""
    pi, mu = target.probabilities, behaviour.probabilities
    transition = process.transition
    transition = np.asarray(transition.todense() if hasattr(transition, "todense") else transition)
    transition = transition.reshape(process.states, process.actions, -1)

    def walk(state, t, probability, possible):
        if t == process.horizon or process.absorbing[state]:
            return 0.0 if possible else probability
        return sum(
            walk(following, t + 1, probability * pi[state, a] * transition[state, a, following],
                 possible and mu[state, a] > 0.0)
            for a, following in itertools.product(range(process.actions), range(process.states))
            if transition[state, a, following] > 0.0
        )  # fmt: skip

    return sum(walk(s, 0, process.initial[s], True) for s in range(process.states))


@given(instances(max_actions=3), st.sampled_from(SAMPLERS), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_lost_mass_by_brute_force(instance, kind, index):
    process, policy, _ = instance
    strengths = [0.0, *strengths_of(kind, process, policy)]
    drifted = drift.measured(kind, process, policy, strengths[index % len(strengths)])
    expected = lost_by_brute_force(process, drifted.target, drifted.behaviour)
    assert drifted.lost_mass == pytest.approx(expected, rel=1e-10, abs=1e-14)
    estimator = theory.Estimator("token", "outcome")
    m = theory.moments(process, drifted.target, drifted.behaviour, estimator, missing_support="allow")
    assert m.lost_mass == pytest.approx(expected, rel=1e-10, abs=1e-14)
    if kind == "rounding":
        assert drifted.lost_mass == 0.0


def test_what_the_sequence_ratio_leaves_out_is_what_the_lost_trajectories_would_have_been_paid():
    """E_mu[W R sum of z] - g = -(sum over lost trajectories of their probability under pi times R sum of z)."""
    process, policy, _ = random_instance(0, discount=1.0)
    transition = process.transition
    transition = np.asarray(transition.todense() if hasattr(transition, "todense") else transition)
    transition = transition.reshape(process.states, process.actions, -1)
    reward, edges = np.zeros_like(transition), process.edges
    reward[edges.state, edges.action, edges.next_state] = edges.reward
    assert np.ptp(reward) > 0.0

    def missing(behaviour, state, t, probability, paid, score, possible):
        if t == process.horizon or process.absorbing[state]:
            return 0.0 if possible else probability * (paid + process.terminal_reward[state]) * score
        total = np.zeros(policy.parameter_count)
        for a, following in itertools.product(range(process.actions), range(process.states)):
            chance = probability * policy.probabilities[state, a] * transition[state, a, following]
            if chance > 0.0:
                total = total + missing(
                    behaviour, following, t + 1, chance, paid + reward[state, a, following],
                    score + policy.score[state, a],
                    possible and behaviour.probabilities[state, a] > 0.0,
                )  # fmt: skip
        return total

    for kind, options in (("top_p", {"p": 0.8}), ("top_k", {"k": 2})):
        cut = drift.measured(kind, process, policy, **options)
        m = theory.moments(
            process, policy, cut.behaviour, theory.Estimator("sequence", "outcome"), missing_support="allow"
        )
        lost = sum(
            missing(cut.behaviour, s, 0, process.initial[s], 0.0, np.zeros(policy.parameter_count), True)
            for s in range(process.states)
        )
        assert 0.0 < cut.lost_mass < 1.0
        assert np.allclose(m.bias, -lost, rtol=1e-10, atol=1e-13)
        # Negative control: the true prefix ratios with target advantages leave out something else.
        prefix = theory.moments(
            process, policy, cut.behaviour, theory.Estimator("prefix", "target_advantage"), missing_support="allow"
        )
        assert not np.allclose(prefix.bias, -lost, rtol=1e-2, atol=1e-3)


def test_the_lost_mass_is_that_of_sequences_and_not_of_tokens():
    process, policy, _ = random_instance(0)
    drifted = drift.measured("top_k", process, policy, k=2)
    token = 1.0 - policy.probabilities[drifted.behaviour.probabilities > 0.0].sum() / policy.states
    assert drifted.lost_mass > 1.2 * token > 0.0


def rounded_one_by_one(x, bits):
    """To the nearest number with so many explicit mantissa bits, halves to even, with whole numbers alone."""
    if x == 0.0:
        return 0.0
    exponent = math.floor(math.log2(abs(x)))
    unit = 2.0 ** (exponent - bits)
    down = math.floor(abs(x) / unit)
    rest = abs(x) / unit - down
    up = rest > 0.5 or (rest == 0.5 and down % 2 == 1)
    return math.copysign((down + up) * unit, x)


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 7, 10, 52])
def test_rounding_is_that_of_a_plain_loop(bits):
    process, policy, _ = random_instance(3)
    _, behaviour = drift.apply("rounding", process, policy, bits=bits)
    logits = np.vectorize(lambda x: rounded_one_by_one(x, bits))(policy.log_probabilities)
    assert np.array_equal(behaviour.logits, logits)
    assert (behaviour.probabilities > 0.0).all()
    if bits == 52:
        assert np.array_equal(behaviour.logits, policy.log_probabilities)
    else:
        assert not np.array_equal(logits, policy.log_probabilities)


def test_formats_are_their_mantissas():
    process, policy, _ = random_instance(3)
    for name, bits in {"fp16": 10, "bf16": 7, "e4m3": 3, "e5m2": 2}.items():
        named, counted = (drift.measured("rounding", process, policy, **o) for o in ({"format": name}, {"bits": bits}))
        assert named.strength == counted.strength == 2.0**-bits
        assert np.array_equal(named.behaviour.logits, counted.behaviour.logits)
    torch = pytest.importorskip("torch")
    for name, kind in {"bf16": torch.bfloat16, "fp16": torch.float16}.items():
        ours = drift.apply("rounding", process, policy, format=name)[1].logits
        theirs = torch.tensor(policy.log_probabilities.copy()).to(kind).to(torch.float64).numpy()
        assert np.array_equal(ours, theirs)
        assert not np.array_equal(drift.apply("rounding", process, policy, format="e5m2")[1].logits, theirs)


def test_a_format_is_its_mantissa_and_not_its_range():
    """Against the casts of torch: the same in the normal range of the exponents, another number below and beyond."""
    torch = pytest.importorskip("torch")
    process = theory.MarkovProcess([1.0], np.ones((1, 3, 1)), np.zeros((1, 3)), horizon=1)
    for name, kind, least in [("e4m3", torch.float8_e4m3fn, -6), ("e5m2", torch.float8_e5m2, -14)]:
        # log-probabilities: one near zero, which is the size of the second action's probability.
        for tiny, same in [(2.0 ** (least + 1) * 1.3, True), (2.0 ** (least - 3) * 1.3, False)]:
            policy = theory.SoftmaxPolicy(np.log([[1.0 - tiny, 0.6 * tiny, 0.4 * tiny]]))
            ours = drift.apply("rounding", process, policy, format=name)[1].logits
            theirs = torch.tensor(policy.log_probabilities.copy()).to(kind).to(torch.float64).numpy()
            assert np.array_equal(ours[0, 1:], theirs[0, 1:])
            assert (ours[0, 0] == theirs[0, 0]) == same
    beyond = theory.SoftmaxPolicy([[0.0, -1.0, -700.0]])
    assert drift.apply("rounding", process, beyond, format="e4m3")[1].logits[0, 2] == -704.0
    # Some versions of torch stop at the largest number, others have no number for it.
    theirs = torch.tensor(beyond.log_probabilities.copy()).to(torch.float8_e4m3fn).to(torch.float64).numpy()
    assert theirs[0, 2] == -448.0 or np.isnan(theirs[0, 2])


@given(instances(max_actions=4), st.sampled_from(SAMPLERS), st.sampled_from(["token", "sequence"]), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_each_step_is_reached_and_nothing_between(instance, kind, per, index):
    process, policy, _ = instance
    assume(process.initial[~process.absorbing].any())
    points = [
        (s, kl_behaviour_target(process, *drift.apply(kind, process, policy, s), per))
        for s in strengths_of(kind, process, policy)
    ]
    reached = sorted({kl for _, kl in points if kl > 1e-9})
    assume(reached)
    kl = reached[index % len(reached)]
    drifted = drift.at(kind, process, policy, kl, per=per)
    assert drifted.kl == pytest.approx(kl, rel=1e-9)
    # The smallest strength that does it.
    assert drifted.strength == min(s for s, value in points if abs(value - kl) <= 1e-9 * kl)
    further = [value for value in reached if value > kl * (1.0 + 1e-6)]
    between = 0.4 * kl + 0.6 * min(further, default=2.0 * kl)
    with pytest.raises(drift.UnreachableError, match="out of reach") as caught:
        drift.at(kind, process, policy, between, per=per)
    found = drift.at(kind, process, policy, between, per=per, nearest=True)
    assert found.kl == pytest.approx(min([*reached, 0.0], key=lambda value: abs(value - between)), rel=1e-6)
    assert caught.value.below[1] == pytest.approx(kl, rel=1e-6)
    if further:
        assert caught.value.above[1] == pytest.approx(min(further), rel=1e-6)
        assert math.isnan(caught.value.maximum)
    else:
        assert caught.value.maximum == pytest.approx(max(reached), rel=1e-6)


def test_every_value_that_can_be_reached_is_among_the_steps():
    """Between two steps nothing changes: strengths in between give what the step below gives."""
    process, policy, _ = random_instance(1)
    steps = strengths_of("top_p", process, policy)
    assert len(steps) == policy.states * (policy.actions - 1)
    values = [kl_behaviour_target(process, *drift.apply("top_p", process, policy, s)) for s in steps]
    for i, low in enumerate(steps[:-1]):
        inside = low + np.array([0.01, 0.5, 0.99]) * (steps[i + 1] - low)
        found = [kl_behaviour_target(process, *drift.apply("top_p", process, policy, s)) for s in inside]
        assert found == [values[i]] * 3
    assert kl_behaviour_target(process, *drift.apply("top_p", process, policy, 0.99 * steps[0])) == 0.0


def test_the_message_names_both_neighbours():
    with pytest.raises(drift.UnreachableError) as caught:
        drift.at("top_k", BANDIT, FOUR, 0.1)
    told = re.search(
        r"the nearest are (\S+) at strength (\S+) and (\S+) at strength (\S+) \(nearest", str(caught.value)
    )
    assert [float(x) for x in told.groups()] == pytest.approx([-math.log(0.95), 1, -math.log(0.75), 2], rel=1e-5)
    with pytest.raises(drift.UnreachableError, match=r"the maximum is 0.693147 at strength 3$"):
        drift.at("top_k", BANDIT, FOUR, 5.0)
    with pytest.raises(drift.UnreachableError, match=r"the maximum is 0 at strength 0$"):
        drift.at("top_k", theory.MarkovProcess([1.0], [[[1.0]]], [[0.0]], 1), theory.SoftmaxPolicy([[0.0]]), 0.1)


def test_no_drift_and_some_states_only():
    process, policy, _ = random_instance(0)
    only = np.arange(policy.states) == 1
    for kind in SAMPLERS:
        assert drift.apply(kind, process, policy, 0.0) == (policy, policy)
        assert drift.at(kind, process, policy, 0.0).behaviour is policy
        strength = strengths_of(kind, process, policy)[-1]
        _, everywhere = drift.apply(kind, process, policy, strength)
        _, somewhere = drift.apply(kind, process, policy, strength, states=only)
        assert np.array_equal(somewhere.logits, np.where(only[:, None], everywhere.logits, policy.logits))
    assert drift.apply("top_p", process, policy, p=1.0) == (policy, policy)


def test_a_policy_without_an_action_never_gets_it_back():
    process, policy, _ = random_instance(0)
    logits = policy.logits.copy()
    logits[:, 0] = -np.inf
    for kind in SAMPLERS:
        without = theory.SoftmaxPolicy(logits)
        for strength in strengths_of(kind, process, without):
            assert not drift.apply(kind, process, without, strength)[1].probabilities[:, 0].any()


def test_refuses_in_the_users_words():
    process, policy, _ = random_instance(0)
    refused = [
        (lambda: drift.apply("top_p", process, policy, p=0.0), "p of top_p drift is 0.0; expected a number above 0"),
        (lambda: drift.apply("top_p", process, policy, p=1.5), "p of top_p drift is 1.5; expected"),
        (lambda: drift.apply("top_p", process, policy, p="a"), "p of top_p drift is 'a'; expected"),
        (lambda: drift.apply("top_p", process, policy, p=float("nan")), "p of top_p drift is nan; expected"),
        (lambda: drift.apply("top_p", process, policy, 1.0), r"strength of top_p drift is 1.0; expected 1 - p"),
        (lambda: drift.apply("top_p", process, policy, 0.1, p=0.9), "is said by strength or p, one of them; got str"),
        (lambda: drift.apply("top_p", process, policy), "is said by strength or p, one of them; got none of them"),
        (lambda: drift.apply("top_p", process, policy, k=2), "unknown option 'k' of drift 'top_p'"),
        (lambda: drift.apply("top_k", process, policy, k=0), "k of top_k drift is 0; expected a whole number"),
        (lambda: drift.apply("top_k", process, policy, 3.0), "strength of top_k drift is 3.0; expected A - k"),
        (lambda: drift.apply("top_k", process, policy, 0.5), "strength of top_k drift is 0.5; expected A - k"),
        (
            lambda: drift.apply("rounding", process, policy, 0.3),
            r"strength of rounding drift is 0.3; expected 2\^-bits",
        ),
        (
            lambda: drift.apply("rounding", process, policy, 2.0),
            r"strength of rounding drift is 2.0; expected 2\^-bits",
        ),
        (lambda: drift.apply("rounding", process, policy, bits=-1), "bits of rounding drift is -1; expected a whole"),
        (lambda: drift.apply("rounding", process, policy, format="bf8"), "unknown format 'bf8'.*'bf16'"),
        (lambda: drift.at("top_p", process, policy, p=0.9), r"p=0.9 says how strong .* drift.measured\('top_p'"),
        (lambda: drift.measured("top_p", process, policy, p=0.9, per="word"), "unknown per 'word'"),
    ]
    for call, message in refused:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_coarsest_rounding_is_a_step_too():
    """To powers of two: no mantissa bits at all, strength 1."""
    process, policy, _ = random_instance(3)
    steps = strengths_of("rounding", process, policy)
    assert list(steps) == [2.0**-bits for bits in range(52, -1, -1)]
    coarse = drift.measured("rounding", process, policy, bits=0)
    assert coarse.strength == 1.0
    others = [drift.measured("rounding", process, policy, s).kl for s in steps[:-1]]
    assert min(abs(kl / coarse.kl - 1.0) for kl in others) > 1e-3
    assert drift.at("rounding", process, policy, coarse.kl).strength == 1.0
