"""Group-relative advantages and their exact moments, against every tuple of trajectories."""

import itertools
import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from tests import brute_force
from tests.brute_force_batches import group_moments, plain_advantages
from tests.instances import Instance, random_instance
from tests.theory.engines.comparing import ask, assert_same_moments
from theory import groups
from theory.engines import question
from theory.engines.problem import checked_ratios

CENTRES, SCALES = ["mean", "leave_one_out", "none"], ["std", "none"]


def prompts(step_rewards=False, seed=2, S=3, T=2, drift=1.0):
    """Two prompts, each with few trajectories: the first state can end the episode at once, the second cannot."""
    rng = np.random.default_rng(seed)
    ended = np.zeros(S, bool)
    ended[-1] = True
    following = np.array([[2, 1], [0, 1], [2, 2]])
    process = theory.MarkovProcess(
        initial=[0.4, 0.6, 0.0],
        transition=np.eye(S)[following],
        reward=rng.normal(size=(S, 2)) if step_rewards else np.zeros((S, 2)),
        horizon=T,
        terminal_reward=[0.0, 1.0, 0.5],
        absorbing=ended,
        discount=1.0 if not step_rewards else 0.9,
    )
    target = theory.SoftmaxPolicy(rng.normal(size=(S, 2)))
    return Instance(process, target, theory.SoftmaxPolicy(target.logits + drift * rng.normal(size=(S, 2))))


# Advantages


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=6), st.sampled_from(CENTRES), st.sampled_from(SCALES))
def test_advantages_are_those_of_the_loops(returns, centre, scale):
    signal = theory.group(len(returns), centre=centre, scale=scale)
    found = signal.advantages(np.array([returns, returns[::-1]], dtype=float))
    plain = plain_advantages([float(r) for r in returns], centre, scale)
    np.testing.assert_allclose(found, [plain, plain[::-1]], rtol=1e-12, atol=1e-13)


def test_advantages_by_hand():
    returns = np.array([0.0, 0.0, 3.0])
    for centre, expected in [("mean", [-1, -1, 2]), ("leave_one_out", [-1.5, -1.5, 3]), ("none", [0, 0, 3])]:
        np.testing.assert_allclose(theory.group(3, centre=centre, scale="none").advantages(returns), expected)
    # The sample deviation of 0, 0, 3 is sqrt(3), that of the population sqrt(2).
    np.testing.assert_allclose(theory.group(3, epsilon=0.0).advantages(returns), np.array([-1, -1, 2]) / np.sqrt(3))
    np.testing.assert_allclose(
        theory.group(3, ddof=0, epsilon=0.5).advantages(returns), np.array([-1, -1, 2]) / (np.sqrt(2) + 0.5)
    )


@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_a_group_of_equal_returns_gets_zero(epsilon):
    """Also where the mean of equal numbers is not that number in floating point."""
    for value in (0.1, 1 / 3, -7.7):
        returns = np.full((4, 7), value)
        for centre in CENTRES:
            np.testing.assert_array_equal(theory.group(7, centre=centre, epsilon=epsilon).advantages(returns), 0.0)
        np.testing.assert_array_equal(theory.group(7, scale="none").advantages(returns), 0.0)
        # Where nothing is compared, a return is a return.
        np.testing.assert_array_equal(theory.group(7, centre="none", scale="none").advantages(returns), value)


def test_labels_and_the_size_that_token_mean_takes_over():
    signal = theory.group(4, centre="leave_one_out", scale="none")
    assert signal.label == "group(size=4, centre=leave_one_out, scale=none)"
    estimator = theory.Estimator("token", signal, reduction="token_mean")
    assert estimator.reduction.batch == estimator.trajectories_per_draw == 4


# Exact moments


@pytest.mark.parametrize("weight", ["token", "minpro", "prefix", "ppo_clip"])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("centre", CENTRES)
def test_a_groups_moments_are_those_of_every_tuple(weight, size, scale, centre):
    instance, signal = prompts(), theory.group(size, centre=centre, scale=scale)
    for reduction in ("sum", "length_mean", "constant", "token_mean") if size == 2 else ("sum", "token_mean"):
        mean, outer = group_moments(*instance, weight, signal, reduction=reduction)
        assert np.linalg.norm(mean) > 1e-3
        for engine in ("recursion", "enumeration"):
            m = ask(instance, weight, signal, engine, reduction=reduction, covariance=True)
            assert_same_moments(m, mean, np.trace(outer))
            np.testing.assert_allclose(m.covariance, outer - np.outer(mean, mean), rtol=0, atol=1e-11)
            assert np.trace(m.covariance) == pytest.approx(m.variance, rel=1e-10)


@pytest.mark.parametrize("weight", ["none", "suffix", "sequence", "geometric", "v_trace", "masked", "gspo"])
def test_other_weights_and_the_cumulative_score_in_a_group(weight):
    instance, signal = prompts(), theory.group(2)
    mean, outer = group_moments(*instance, weight, signal, score="cumulative")
    engines = ["enumeration"] + ["recursion"] * theory.weight(weight).factorises
    for engine in engines:
        assert_same_moments(ask(instance, weight, signal, engine, "cumulative"), mean, np.trace(outer))


@pytest.mark.parametrize("scale", SCALES)
def test_a_group_with_rewards_on_the_way(scale):
    instance, signal = prompts(step_rewards=True), theory.group(2, scale=scale)
    for weight in ("token", "ppo_clip"):
        mean, outer = group_moments(*instance, weight, signal)
        assert_same_moments(ask(instance, weight, signal, "enumeration"), mean, np.trace(outer))


def test_a_group_of_stochastic_transitions_and_empty_episodes():
    """A prompt that is an absorbing state: its groups have no token, and count as zero."""
    process, target, behaviour = random_instance(seed=3, S=2, A=2, T=2, step_rewards=False, discount=0.5)
    assert process.initial[1] > 0.0
    for reduction in ("sum", "token_mean"):
        for centre in CENTRES:
            signal = theory.group(2, centre=centre, scale="none")
            mean, outer = group_moments(process, target, behaviour, "minpro", signal, reduction=reduction)
            for engine in ("recursion", "enumeration"):
                m = ask((process, target, behaviour), "minpro", signal, engine, reduction=reduction)
                assert_same_moments(m, mean, np.trace(outer))


def test_leaving_oneself_out_subtracts_the_prompts_expected_return_at_every_size():
    """The others are independent of the own trajectory, so their mean return is the expected one in the mean."""
    process, target, behaviour = instance = prompts()
    of_prompt = theory.values(process, behaviour).state_value[0]
    expected = np.zeros(target.parameter_count)
    for x in brute_force.trajectories(process, behaviour):
        baseline = float(of_prompt[x.states[0]])
        expected += x.probability * brute_force.estimate(*instance, "minpro", "outcome", x, baseline=baseline)
    for size in (2, 8, 32):
        m = ask(instance, "minpro", theory.group(size, centre="leave_one_out", scale="none"), "recursion")
        np.testing.assert_allclose(m.mean, expected, rtol=1e-9, atol=1e-12)
    # Not so where the own return is subtracted too.
    m = ask(instance, "minpro", theory.group(2, centre="mean", scale="none"), "recursion")
    np.testing.assert_allclose(m.mean, expected / 2, rtol=1e-9, atol=1e-12)


# What a group does to the gradient


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_mean_that_includes_the_sample_shrinks_the_gradient_by_exactly_its_share(size):
    """On-policy, without a scale: E = (G-1)/G g with the mean of all, g with the mean of the others."""
    process, target, _ = prompts()
    same, g = Instance(process, target, target), theory.policy_gradient(process, target)
    for weight in ("none", "token", "prefix"):
        shrunk = ask(same, weight, theory.group(size, centre="mean", scale="none"), "recursion")
        np.testing.assert_allclose(shrunk.mean, (size - 1) / size * g, rtol=1e-10, atol=1e-14)
        whole = ask(same, weight, theory.group(size, centre="leave_one_out", scale="none"), "recursion")
        np.testing.assert_allclose(whole.mean, g, rtol=1e-10, atol=1e-14)
        uncentred = ask(same, weight, theory.group(size, centre="none", scale="none"), "recursion")
        np.testing.assert_allclose(uncentred.mean, g, rtol=1e-10, atol=1e-14)
    assert shrunk.effective_step == pytest.approx((size - 1) / size, rel=1e-10)
    assert shrunk.relative_bias == pytest.approx(1 / size, rel=1e-10)


def test_off_policy_leave_one_out_keeps_the_full_sequence_ratio_unbiased():
    instance = prompts()
    for size in (2, 4):
        m = ask(instance, "sequence", theory.group(size, centre="leave_one_out", scale="none"), "recursion")
        np.testing.assert_allclose(m.mean, m.gradient, rtol=1e-10, atol=1e-14)
        signal = theory.group(size, centre="leave_one_out", scale="none")
        assert ask(instance, "token", signal, "recursion").relative_bias > 1e-2


def test_dividing_by_the_deviation_bends_the_gradient():
    """Two prompts of different difficulty get different factors: the direction changes, not only the length."""
    process, target, _ = prompts()
    same = Instance(process, target, target)
    straight = ask(same, "none", theory.group(4, scale="none"), "recursion")
    bent = ask(same, "none", theory.group(4, scale="std"), "recursion")
    assert straight.cosine == pytest.approx(1.0, abs=1e-12)
    assert bent.cosine < 0.999


def test_of_one_prompt_with_two_returns_the_deviation_only_scales():
    """Negative control of the bend: with returns 0 and 1 and one prompt, GRPO's expectation is parallel to g

    (33modeling's binary example: a factor that depends on the probability of success alone).
    """
    process, target, _ = prompts()
    process = theory.MarkovProcess(
        [1.0, 0.0, 0.0], process.transition, process.reward, 2, [0.0, 1.0, 0.0], process.absorbing
    )
    m = ask(Instance(process, target, target), "none", theory.group(4, scale="std", epsilon=0.0), "recursion")
    assert m.cosine == pytest.approx(1.0, abs=1e-12)
    # E = factor g, with K successes in G: the average over K of sqrt((G-1)/G) sqrt(K (G-K)) / G, over p (1-p).
    p = theory.values(process, target).expected_return
    chance = [np.array([1, 4, 6, 4, 1])[k] * p**k * (1 - p) ** (4 - k) for k in range(5)]
    spread = sum(chance[k] * np.sqrt(k * (4 - k)) / 4 for k in range(5))
    assert m.effective_step == pytest.approx(np.sqrt(3 / 4) * spread / (p * (1 - p)), rel=1e-10)


def test_equal_rewards_contribute_nothing():
    process, target, behaviour = prompts()
    equal = theory.MarkovProcess(
        process.initial, process.transition, process.reward, 2, [0.1, 0.1, 0.1], process.absorbing
    )
    for engine in ("recursion", "enumeration", "sampling"):
        for scale in SCALES:
            for centre in ("mean", "leave_one_out"):
                signal = theory.group(7, centre=centre, scale=scale, epsilon=0.0)
                m = ask(Instance(equal, target, behaviour), "token", signal, engine, trajectories=700)
                np.testing.assert_array_equal(m.mean, 0.0)
                assert m.variance == 0.0
    # Where the returns are not compared, they do contribute.
    m = ask(Instance(equal, target, behaviour), "token", theory.group(7, centre="none", scale="none"), "recursion")
    assert m.variance > 1e-4


@pytest.mark.parametrize("last", [0.0, -0.3])
def test_returns_that_are_equal_up_to_rounding_are_equal(last):
    """0.1 + 0.2 is not 0.3 in floating point; divided by a deviation of 1e-17 that would be an advantage of one.

    With -0.3 at the end both returns are zero, and what is left of one of them is rounding alone.
    """
    process = theory.MarkovProcess(
        [1.0, 0.0, 0.0],
        np.eye(3)[[[1, 2], [2, 2], [2, 2]]],
        [[0.1, 0.3], [0.2, 0.2], [0.0, 0.0]],
        2,
        [0.0, 0.0, last],
        absorbing=[False, False, True],
    )
    target = theory.SoftmaxPolicy([[0.3, -0.2], [0.0, 1.0], [0.0, 0.0]])
    paths = brute_force.trajectories(process, target)
    assert len({sum(x.rewards) + x.terminal for x in paths}) == 2
    for engine in ("enumeration", "sampling"):
        m = ask(Instance(process, target, target), "token", theory.group(2, epsilon=0.0), engine, trajectories=200)
        np.testing.assert_array_equal(m.mean, 0.0)
        assert m.variance == 0.0


def test_too_many_compositions_are_refused_and_auto_samples():
    instance = random_instance(S=6, A=2, T=4, step_rewards=False, discount=0.9)
    signal = theory.group(64)
    for engine in ("recursion", "enumeration"):
        with pytest.raises(ValueError, match=r"a group of 64 with \d+ distinct .* compositions; .*engine='sampling'"):
            ask(instance, "token", signal, engine)
    assert ask(instance, "token", signal, "auto", trajectories=640).engine == "sampling"


def many_returns(T, seed=0):
    """3^T trajectories of as many returns, out of one start state."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((T, 3, T))
    transition[range(T), :, [min(s + 1, T - 1) for s in range(T)]] = 1.0
    process = theory.MarkovProcess(np.eye(T)[0], transition, rng.normal(size=(T, 3)), T)
    target = theory.SoftmaxPolicy(rng.normal(size=(T, 3)))
    return Instance(process, target, theory.SoftmaxPolicy(target.logits + 0.3 * rng.normal(size=(T, 3))))


def test_thousands_of_returns_are_refused_before_any_moments_are_held():
    """19683 returns: a table of categories by trajectories would be 3 GB."""
    instance = many_returns(9)
    tracemalloc.start()
    try:
        m = ask(instance, "token", theory.group(4), "auto", trajectories=400)
        with pytest.raises(
            ValueError, match=r"a group of 4 with over 1000 distinct .* compositions; engine='sampling'"
        ):
            ask(instance, "token", theory.group(4), "enumeration")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert m.engine == "sampling"
    assert peak < 100e6


def test_hundreds_of_returns_in_a_small_group_are_exact():
    """The full sequence ratio with the mean of the others is unbiased whatever the returns are."""
    m = ask(many_returns(6), "sequence", theory.group(2, "leave_one_out", "none"), "auto")
    assert m.engine == "enumeration"
    np.testing.assert_allclose(m.mean, m.gradient, rtol=0, atol=1e-12)
    assert ask(many_returns(6), "token", theory.group(2), "auto").relative_bias > 1e-2


@pytest.mark.parametrize("reduction", ["sum", "token_mean"])
@pytest.mark.parametrize("step_rewards", [False, True])
def test_categories_are_counted_as_they_are_found(step_rewards, reduction):
    """The choice of the engine counts them without their moments."""
    for seed in range(4):
        instance = random_instance(seed=seed, S=4, A=2, T=3, step_rewards=step_rewards)
        ratios = checked_ratios(*instance, allow_missing_support=False)
        e = theory.Estimator("token", theory.group(2), reduction=reduction)
        asked = question.Question(*instance, ratios, e, 10**6)
        for state in range(4):
            of_prompt = asked.from_start(state)
            found = question._categories(of_prompt, "enumeration").probability.size
            assert question._category_count(of_prompt) == found > (0 if state == 3 else 3)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_compositions_have_the_multinomial_law(rows):
    p = np.array([0.5, 0.2, 0.3, 0.0])
    for total in range(5):
        law = {}
        for draw in itertools.product(range(4), repeat=total):
            key = tuple(sorted(draw))
            law[key] = law.get(key, 0.0) + math.prod(p[list(draw)])
        found = {}
        for kinds, chance in groups._compositions(total, p, rows):
            assert len(kinds) <= rows
            found |= dict(zip(map(tuple, kinds.tolist()), chance, strict=True))
        assert found.keys() == law.keys()
        assert all(found[k] == pytest.approx(law[k], rel=1e-12, abs=1e-15) for k in law)
    # Thousands of categories are no depth of calls.
    many = np.full(5000, 1 / 5000)
    assert sum(chance.sum() for _, chance in groups._compositions(1, many, rows)) == pytest.approx(1.0)


@pytest.mark.parametrize("reduction", ["sum", "token_mean"])
@pytest.mark.parametrize("weight", ["sequence", "prefix", "ppo_clip"])
def test_a_variance_beyond_the_largest_number_is_infinite(weight, reduction):
    """(1 + chi2)^1500; groups of equal returns have no part in it, and zero times infinity is no number."""
    process = theory.MarkovProcess([1.0, 0.0], np.eye(2)[[[0, 1], [0, 1]]], np.zeros((2, 2)), 1500, [0.0, 1.0])
    target = theory.SoftmaxPolicy(np.log([[0.9, 0.1], [0.8, 0.2]]))
    instance = Instance(process, target, theory.SoftmaxPolicy(np.log([[0.2, 0.8], [0.3, 0.7]])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = ask(instance, weight, theory.group(4), "recursion", reduction=reduction, covariance=True)
    assert np.isfinite(m.mean).all()
    assert np.isfinite(m.variance) if weight == "ppo_clip" else m.variance == np.inf
    assert not np.isnan(np.diag(m.covariance)).any()
