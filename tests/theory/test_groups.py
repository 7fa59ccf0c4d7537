"""Group-relative advantages and their exact moments, against every tuple of trajectories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from tests import brute_force
from tests.brute_force_batches import group_moments, plain_advantages
from tests.instances import Instance, random_instance
from tests.theory.engines.comparing import ask, assert_same_moments

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


@pytest.mark.parametrize("weight", ["none", "suffix", "sequence", "geometric", "v_trace", "masked", "gspo", "m2po"])
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
