"""Between prompts and within them: against every tuple of trajectories, and against what averaging does to a batch."""

import itertools

import numpy as np
import pytest

import testbed
import theory
from tests import brute_force
from tests.brute_force_batches import group_moments
from tests.instances import Instance, random_instance

GROUPS = {
    "GRPO": {},
    "Dr.GRPO": {"scale": "none"},
    "RLOO": {"centre": "leave_one_out", "scale": "none"},
    "returns": {"centre": "none", "scale": "none"},
}


def prompts(drift=1.0, step_rewards=False):
    """Three prompts with a few trajectories each; the last one is over before it began."""
    rng = np.random.default_rng(5)
    process = theory.MarkovProcess(
        initial=[0.3, 0.5, 0.2],
        transition=np.eye(3)[[[2, 1], [0, 1], [2, 2]]],
        reward=rng.normal(size=(3, 2)) * step_rewards,
        horizon=2,
        terminal_reward=[0.0, 1.0, 0.5],
        absorbing=[False, False, True],
        discount=0.9,
    )
    target = theory.SoftmaxPolicy(rng.normal(size=(3, 2)))
    return Instance(process, target, theory.SoftmaxPolicy(target.logits + drift * rng.normal(size=(3, 2))))


def only(instance, state):
    p = instance.process
    initial = np.eye(p.states)[state]
    process = theory.MarkovProcess(
        initial, p.transition, p.reward, p.horizon, p.terminal_reward, p.absorbing, p.discount
    )
    return Instance(process, instance.target, instance.behaviour)


def split(instance, weight, signal, engine="auto", **choices):
    return theory.group_variance(*instance, theory.Estimator(weight, signal, **choices), engine)


def assert_split(found, moments_of_prompt, initial):
    """`moments_of_prompt(x)` gives E[g | x] and E|g|^2 of prompt x, by brute force."""
    at = np.flatnonzero(initial)
    m, second = (np.array(c) for c in zip(*(moments_of_prompt(x) for x in at), strict=True))
    mean = initial[at] @ m
    size = max(float(initial[at] @ second), 1e-6)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-12 * np.sqrt(size))
    assert abs(found.between - initial[at] @ ((m - mean) ** 2).sum(axis=1)) <= 1e-12 * size
    assert abs(found.within - initial[at] @ (second - (m**2).sum(axis=1))) <= 1e-12 * size
    np.testing.assert_allclose(found.prompt_mean, m, rtol=0, atol=1e-12 * np.sqrt(size))
    assert found.between > 1e-6
    assert found.within > 1e-6


@pytest.mark.parametrize("weight", ["token", "minpro", "prefix", "ppo_clip"])
@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("reduction", ["sum", "length_mean", "token_mean"])
def test_of_groups_against_every_tuple(weight, kind, reduction):
    instance, signal = prompts(), theory.group(2, **GROUPS[kind])

    def of_prompt(x):
        mean, outer = group_moments(*only(instance, x), weight, signal, reduction=reduction)
        return mean, np.trace(outer)

    for engine in ("recursion", "enumeration"):
        found = split(instance, weight, signal, engine, reduction=reduction)
        assert_split(found, of_prompt, instance.process.initial)
        assert found.engine == engine
        assert found.trajectories_per_draw == 2
        # Against all prompts at once, by brute force as well: the two parts are the whole.
        mean, outer = group_moments(*instance, weight, signal, reduction=reduction)
        assert found.variance == pytest.approx(np.trace(outer) - mean @ mean, rel=1e-11)


def test_of_groups_of_three():
    instance = prompts(step_rewards=True)
    for kind in GROUPS:
        signal = theory.group(3, **GROUPS[kind])

        def of_prompt(x, signal=signal):
            mean, outer = group_moments(*only(instance, x), "minpro", signal)
            return mean, np.trace(outer)

        assert_split(split(instance, "minpro", signal), of_prompt, instance.process.initial)


@pytest.mark.parametrize("weight", ["none", "sequence", "minpro", "gspo"])
@pytest.mark.parametrize("signal", ["target_advantage", "outcome", "reward_to_go"])
def test_of_plain_estimators_against_every_trajectory(weight, signal):
    instance = prompts(step_rewards=True)
    found = split(instance, weight, signal)

    def of_prompt(x):
        return brute_force.moments(*only(instance, x), weight, signal)

    assert_split(found, of_prompt, instance.process.initial)
    assert found.trajectories_per_draw == 1


ESTIMATORS = [
    theory.Estimator("minpro", "target_advantage"),
    theory.Estimator("gspo", theory.signal("outcome", baseline="expected_return"), reduction="length_mean"),
    theory.Estimator("token", theory.signal("outcome", baseline="optimal")),
    theory.Estimator("token", theory.signal("reward_to_go", baseline="optimal", per_state=True)),
    theory.Estimator("prefix", theory.signal("reward_to_go", baseline="target_value"), score="cumulative"),
    theory.Estimator("token", theory.group(4), reduction="token_mean"),
    theory.Estimator("ppo_clip", theory.group(8), reduction="length_mean"),
    theory.Estimator("sequence", theory.group(5, centre="leave_one_out", scale="none")),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.label)
@pytest.mark.parametrize("instance", [prompts(), random_instance(2, S=3, A=2, T=3, step_rewards=False, discount=1.0)])
def test_the_parts_sum_to_the_variance(estimator, instance):
    found, m = theory.group_variance(*instance, estimator), theory.moments(*instance, estimator)
    size = m.variance + float(m.mean @ m.mean)
    assert abs(found.variance - m.variance) <= 1e-12 * size
    np.testing.assert_allclose(found.mean, m.mean, rtol=0, atol=1e-12 * np.sqrt(size))
    np.testing.assert_array_equal(found.gradient, m.gradient)
    assert 0.0 < found.between_share < 1.0
    assert found.mean_squared_error(1) == pytest.approx(m.mean_squared_error(m.trajectories_per_draw), rel=1e-11)


def test_a_baseline_of_all_prompts_stays_theirs():
    """Conditioned on a prompt, the expected return that is subtracted is still that of all prompts."""
    instance = prompts()
    found = split(instance, "none", theory.signal("outcome", baseline="expected_return"))
    number = theory.values(instance.process, instance.behaviour).expected_return
    assert found.between == pytest.approx(split(instance, "none", theory.signal("outcome", baseline=number)).between)
    # Off-policy the baseline matters: the control subtracts each prompt's own.
    own = split(instance, "none", theory.signal("outcome", baseline="behaviour_value"))
    assert abs(found.between - own.between) > 1e-3


def test_a_batch_of_prompts_and_rollouts_by_brute_force():
    """Two prompts, two rollouts each: every (x, y, y', x', z, z') with its probability."""
    instance = prompts()
    found = split(instance, "token", "outcome")
    paths = brute_force.trajectories(instance.process, instance.behaviour)
    initial = instance.process.initial
    pairs = []
    for y, z in itertools.product(paths, repeat=2):
        if y.states[0] == z.states[0]:
            g = sum(brute_force.estimate(*instance, "token", "outcome", path) for path in (y, z)) / 2
            pairs.append((y.probability * z.probability / initial[y.states[0]], g))
    p = np.array([chance for chance, _ in pairs])
    g = np.array([value for _, value in pairs])
    assert p.sum() == pytest.approx(1.0)
    both, joint = (g[:, None] + g) / 2, np.outer(p, p)
    mean = np.einsum("ij,ijp->p", joint, both)
    variance = np.einsum("ij,ijp,ijp->", joint, both, both) - mean @ mean
    assert found.batch_variance(2, 2) == pytest.approx(variance, rel=1e-12)
    assert found.batch_variance(2, 2) == pytest.approx(found.between / 2 + found.within / 4, rel=1e-15)
    # The controls: four rollouts of four prompts, and of one, have other variances.
    assert found.batch_variance(4, 1) == pytest.approx(found.variance / 4)
    assert found.batch_variance(4, 1) < 0.99 * variance
    assert found.batch_variance(1, 4) > 1.01 * variance


def test_more_rollouts_of_one_prompt_leave_what_is_between():
    found = split(prompts(), "minpro", "target_advantage")
    assert found.batch_variance(3, 10**12) == pytest.approx(found.between / 3, rel=1e-9)
    assert found.batch_variance(10**12) == pytest.approx(0.0, abs=1e-9)


def test_with_one_prompt_nothing_is_between():
    instance = only(prompts(), 1)
    for signal in ("outcome", theory.group(3)):
        found = split(instance, "token", signal)
        assert found.between == 0.0
        assert found.within == pytest.approx(theory.moments(*instance, theory.Estimator("token", signal)).variance)
    # The control: with several there is.
    assert split(prompts(), "token", "outcome").between > 1e-3


@pytest.mark.parametrize("weight", ["token", "sequence", "minpro"])
def test_how_the_parts_depend_on_the_groups_size(weight):
    instance = prompts()

    def of(kind, size):
        return split(instance, weight, theory.group(size, **GROUPS[kind]))

    plain = split(instance, weight, "outcome")
    for size in (2, 3, 8):
        # Not compared with each other, rollouts of one prompt are independent: an average of G.
        returns = of("returns", size)
        assert returns.between == pytest.approx(plain.between, rel=1e-10)
        assert returns.within == pytest.approx(plain.within / size, rel=1e-10)
        # The others' mean does not bend the conditional mean, whatever their number; the own return shrinks it.
        assert of("RLOO", size).between == pytest.approx(of("RLOO", 2).between, rel=1e-10)
        shrunk = ((size - 1) / size) ** 2
        assert of("Dr.GRPO", size).between == pytest.approx(shrunk * of("RLOO", 2).between, rel=1e-10)
        assert of("Dr.GRPO", size).within == pytest.approx(shrunk * of("RLOO", size).within, rel=1e-10)
    # The control: dividing by the deviation follows neither law.
    assert of("GRPO", 8).between != pytest.approx((7 / 8) ** 2 * of("GRPO", 2).between * 4, rel=1e-2)
    # And the rollouts of a compared group are not independent: within does not fall as 1 / G.
    assert of("RLOO", 8).within != pytest.approx(of("RLOO", 2).within / 4, rel=1e-2)


def test_of_a_fixed_number_of_rollouts_groups_of_four_are_best_here():
    """64 rollouts of two-bit additions: small groups know their prompt's mean badly, large ones see few prompts."""
    made = testbed.environment("digit_addition", base=2)
    instance, rollouts = Instance(made.process, made.target, made.target), 64

    def deviations(signal_of, draws_of, sizes=(2, 4, 8, 16, 32)):
        parts = [(split(instance, "token", signal_of(size)), rollouts // size, draws_of(size)) for size in sizes]
        return [np.sqrt(p.batch_variance(B, K) / (p.mean @ p.mean)) for p, B, K in parts]

    rloo = deviations(lambda size: theory.group(size, **GROUPS["RLOO"]), lambda size: 1)
    np.testing.assert_allclose(rloo, [0.764, 0.659, 0.720, 0.889, 1.173], rtol=0, atol=1e-3)
    # The control: with each prompt's exact value as the baseline nothing is gained by asking a prompt twice.
    known = deviations(lambda size: theory.signal("outcome", baseline="behaviour_value"), lambda size: size)
    assert known == sorted(known)
    assert known[0] < min(rloo)


def test_what_has_no_exact_parts_is_refused():
    instance = prompts()
    with pytest.raises(ValueError, match="mixes trajectories of several prompts"):
        split(instance, "token", "outcome", reduction=theory.reduction("token_mean", batch=4))
    with pytest.raises(ValueError, match="unknown engine 'sampling'"):
        split(instance, "token", "outcome", "sampling")
    with pytest.raises(ValueError, match="no exact engine can take"):
        split(random_instance(S=6, A=2, T=4, step_rewards=False), "token", theory.group(64))
    with pytest.raises(ValueError, match="prompts is 0; expected a whole number of prompts, at least 1"):
        split(instance, "token", "outcome").batch_variance(0)
    with pytest.raises(ValueError, match=r"draws_per_prompt is 1\.5"):
        split(instance, "token", "outcome").batch_variance(2, 1.5)


def test_nothing_varies_where_nothing_can():
    process = theory.MarkovProcess([1.0], [[[1.0]]], [[1.0]], horizon=1)
    policy = theory.SoftmaxPolicy([[0.0]])
    found = split(Instance(process, policy, policy), "token", "outcome")
    assert found.variance == 0.0
    assert np.isnan(found.between_share)
