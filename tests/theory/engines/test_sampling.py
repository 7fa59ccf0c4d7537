"""Sampling against the exact engines, in units of its standard errors.

Each test states its false-alarm rate: the probability that it would fail for a right sampler, over its choice of seed.
The seeds are fixed, so that it fails always or never. Negative controls: the same test rejects another expectation.
"""

import numpy as np
import pytest
from scipy import stats

import theory
from tests.brute_force_batches import batch_moments, coupled_moments, group_moments
from tests.instances import Instance, random_instance
from tests.theory.engines.comparing import ask
from tests.theory.test_groups import prompts

FALSE_ALARM = 1e-6
DRAWS = 40_000


def z_scores(sampled, mean):
    """(mean of the sample - mean) / standard error of the components that vary; the others must be exact."""
    varies = sampled.standard_error > 0.0
    np.testing.assert_allclose(sampled.mean[~varies], mean[~varies], atol=1e-12)
    return (sampled.mean - mean)[varies] / sampled.standard_error[varies]


def agrees(sampled, mean):
    """Whether the largest of the z-scores is below the normal quantile, corrected for their number (Bonferroni)."""
    z = z_scores(sampled, mean)
    return bool(np.abs(z).max() < stats.norm.isf(FALSE_ALARM / 2 / z.size))


def variance_agrees(sampled, variance):
    return abs(sampled.variance - variance) / sampled.variance_standard_error < stats.norm.isf(FALSE_ALARM / 2)


def even(step_rewards=True, features=0, T=4):
    """No rare states, no rare actions and a mild drift: averages of a few thousand draws are nearly normal."""
    rng = np.random.default_rng(8)
    process = theory.MarkovProcess(
        initial=[0.5, 0.4, 0.1],
        transition=rng.dirichlet(np.full(3, 8.0), size=(3, 2)),
        reward=rng.uniform(-1, 1, size=(3, 2)) if step_rewards else np.zeros((3, 2)),
        horizon=T,
        terminal_reward=[0.0, 1.0, 2.0],
        absorbing=[False, False, True],
        discount=0.9,
    )
    if features:
        table = rng.uniform(-1, 1, size=(3, 2, features))
        target = theory.SoftmaxPolicy.from_features(table, rng.uniform(-0.5, 0.5, size=features))
    else:
        target = theory.SoftmaxPolicy(rng.uniform(-0.5, 0.5, size=(3, 2)))
    return Instance(process, target, theory.SoftmaxPolicy(target.logits + rng.uniform(-0.6, 0.6, size=(3, 2))))


INSTANCE, AT_THE_END = even(), even(step_rewards=False)
QUESTIONS = [
    (INSTANCE, "token", "outcome", {}),
    (INSTANCE, "minpro", theory.signal("reward_to_go", baseline="behaviour_value"), {}),
    (INSTANCE, "prefix", "target_advantage", {"score": "cumulative"}),
    (INSTANCE, "gspo", "outcome", {"reduction": "length_mean"}),
    (INSTANCE, "truncated", theory.signal("outcome", baseline="optimal"), {}),
    (INSTANCE, "ppo_clip", theory.signal("outcome", baseline="target_value"), {"score": "cumulative"}),
    (INSTANCE, "v_trace", "reward", {"reduction": "constant"}),
    (INSTANCE, "geometric", "outcome", {"reduction": theory.reduction("token_mean", batch=3)}),
    (even(features=2), "cispo", "outcome", {}),
    (AT_THE_END, "minpro", theory.group(4), {}),
    (AT_THE_END, "ppo_clip", theory.group(3, centre="leave_one_out", scale="none"), {}),
    (prompts(), "token", theory.group(4), {"reduction": "token_mean"}),
]


def identity(question):
    _, weight, signal, options = question
    return theory.Estimator(weight, signal, **options).label


@pytest.mark.parametrize("question", QUESTIONS, ids=map(identity, QUESTIONS))
def test_sampled_moments_are_the_exact_ones(question):
    """False-alarm rate 2e-6 each: once for the mean, once for the variance."""
    instance, weight, signal, options = question
    exact = ask(instance, weight, signal, "auto", **options)
    assert exact.engine != "sampling"
    per_draw = exact.trajectories_per_draw
    sampled = ask(instance, weight, signal, "sampling", trajectories=DRAWS * per_draw, seed=1, **options)
    assert (sampled.engine, sampled.draws, sampled.trajectories_per_draw) == ("sampling", DRAWS, per_draw)
    assert agrees(sampled, exact.mean)
    assert variance_agrees(sampled, exact.variance)
    # Negative control: a mean that is off by a tenth of the deviation of one draw, and a variance off by a third.
    off = exact.mean + 0.1 * np.sqrt(exact.variance) * np.sign(exact.mean)
    assert not agrees(sampled, off)
    assert not variance_agrees(sampled, 1.33 * exact.variance)


COUPLED = [
    (theory.group(3), "sum"),
    (theory.group(3, "leave_one_out", "none"), "token_mean"),
    ("outcome", theory.reduction("token_mean", batch=3)),
]


@pytest.mark.parametrize(("signal", "reduction"), COUPLED, ids=["group", "group-token_mean", "outcome-token_mean"])
def test_a_weight_that_couples_its_batch_sees_all_of_it(signal, reduction):
    """M2PO sets its bounds by the tokens of all trajectories of a draw. False-alarm rate 2e-6 each."""
    instance, weight = prompts(seed=39, drift=0.5), theory.weight("m2po", budget=0.1, clip=(0.95, 1.05))
    mean, outer = coupled_moments(*instance, weight, signal, 3, "sum" if reduction == "sum" else "token_mean")
    exact = ask(instance, weight, signal, "auto", reduction=reduction, covariance=True)
    assert exact.engine == "enumeration"
    np.testing.assert_allclose(exact.mean, mean, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(exact.covariance, outer - np.outer(mean, mean), rtol=0, atol=1e-11)
    assert exact.variance == pytest.approx(np.trace(outer) - mean @ mean, rel=1e-10)
    m = ask(instance, weight, signal, "sampling", reduction=reduction, trajectories=3 * 5000, seed=1)
    assert agrees(m, mean)
    assert variance_agrees(m, np.trace(outer) - mean @ mean)
    # Negative control: each trajectory with the bounds of a batch of its own.
    if signal == "outcome":
        alone, _ = batch_moments(*instance, weight, signal, 3)
    else:
        alone, _ = group_moments(*instance, weight, signal, reduction=reduction)
    assert not agrees(m, alone)
    with pytest.raises(ValueError, match=r"depend on all trajectories of a draw; engine='enumeration' or 'sampling'"):
        ask(instance, weight, signal, "recursion", reduction=reduction)
    long = random_instance(T=12)
    with pytest.raises(ValueError, match=r"depend on all 3 traj.* are more than an exact engine .*engine='sampling'"):
        ask(long, weight, signal, "enumeration", reduction=reduction)
    assert ask(long, weight, signal, "auto", reduction=reduction, trajectories=30).engine == "sampling"
    assert ask(instance, weight, "outcome", "auto", reduction="token_mean").engine == "enumeration"


def test_the_standard_error_tells_a_biased_estimator_from_the_truth():
    """The mean of `none x outcome` is not the gradient, and that of `sequence x outcome` is."""
    biased = ask(INSTANCE, "none", "outcome", "sampling", trajectories=DRAWS, seed=2)
    unbiased = ask(INSTANCE, "sequence", "outcome", "sampling", trajectories=DRAWS, seed=2)
    assert agrees(unbiased, unbiased.gradient)
    assert not agrees(biased, biased.gradient)
    assert not agrees(unbiased, ask(INSTANCE, "none", "outcome", "recursion").mean)


def test_errors_are_as_large_as_the_standard_errors_say():
    """Over 300 seeds the squared z-scores of one component and of the variance average to 1.

    Their sum is nearly chi-square with 300 degrees of freedom: false-alarm rate 2e-4. Standard errors that are 1.5
    times too small or too large are found.
    """
    exact = ask(INSTANCE, "token", "outcome", "recursion")
    z, of_variance = [], []
    for seed in range(300):
        m = ask(INSTANCE, "token", "outcome", "sampling", trajectories=4000, seed=seed)
        z.append((m.mean[0] - exact.mean[0]) / m.standard_error[0])
        of_variance.append((m.variance - exact.variance) / m.variance_standard_error)
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], 300)
    for scores in (np.array(z), np.array(of_variance)):
        assert low < (scores**2).sum() < high
        assert not low < (scores**2).sum() * 1.5**2 < high
        assert not low < (scores**2).sum() / 1.5**2 < high


def test_the_error_of_the_variance_does_not_count_the_mean():
    """An estimator whose mean is a thousand times its deviation: scores of 51.0 and 51.5, by a fair coin, 50 times.

    The error of the variance comes from the spread of |g - mean|^2; that of |g|^2 is some thousand times larger. Over
    300 seeds the squared z-scores of the variance sum to a chi-square, nearly. False-alarm rate 1e-4.
    """
    process = theory.MarkovProcess([1.0], np.ones((1, 3, 1)), [[1.0, 1.0, 1.0]], 50)
    # The target takes the third action, whose score is nearly 0; mu hardly ever does.
    target = theory.SoftmaxPolicy.from_features([[[1.0], [1.5], [-50.0]]], [-1.0])
    instance = Instance(process, target, theory.SoftmaxPolicy([[0.0, 0.0, -30.0]]))
    exact = ask(instance, "none", "reward", "recursion")
    assert np.linalg.norm(exact.mean) > 1000 * np.sqrt(exact.variance)
    samples = [ask(instance, "none", "reward", "sampling", trajectories=1000, seed=seed) for seed in range(300)]
    z = np.array([(m.variance - exact.variance) / m.variance_standard_error for m in samples])
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], 300)
    assert low < (z**2).sum() < high


def test_the_covariance_is_sampled_where_asked_for_and_only_there():
    exact = ask(INSTANCE, "token", "outcome", "recursion", covariance=True)
    m = ask(INSTANCE, "token", "outcome", "sampling", trajectories=DRAWS, seed=3, covariance=True)
    assert np.trace(m.covariance) == pytest.approx(m.variance, rel=1e-10)
    np.testing.assert_allclose(np.diag(m.covariance), DRAWS * m.standard_error**2, rtol=1e-10)
    # n (sample mean - mean)' C^+ (sample mean - mean) is chi-square with the rank of C; false-alarm rate 1e-6.
    rank = np.linalg.matrix_rank(exact.covariance, tol=1e-9)

    def distance(mean):
        return DRAWS * (m.mean - mean) @ np.linalg.pinv(m.covariance, rcond=1e-9) @ (m.mean - mean)

    assert 0 < rank < 6
    assert distance(exact.mean) < stats.chi2.isf(FALSE_ALARM, rank)
    assert distance(ask(INSTANCE, "none", "outcome", "recursion").mean) > stats.chi2.isf(FALSE_ALARM, rank)
    with pytest.raises(ValueError, match="the covariance was not kept"):
        _ = ask(INSTANCE, "token", "outcome", "sampling", trajectories=100).covariance


def test_a_seed_gives_the_same_sample_and_another_seed_another_one():
    one, again, other = (ask(INSTANCE, "token", "outcome", "sampling", trajectories=500, seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.mean, again.mean)
    assert one.variance == again.variance
    assert np.abs(one.mean - other.mean).max() > 1e-6


def test_blocks_do_not_change_what_is_estimated(monkeypatch):
    """Small blocks are other draws of the same estimator: means differ by standard errors. False-alarm rate 2e-6."""
    for question in (QUESTIONS[0], QUESTIONS[7], QUESTIONS[11]):
        instance, weight, signal, options = question
        exact = ask(instance, weight, signal, "auto", **options)
        monkeypatch.setattr("theory.engines.sampling._BLOCK_NUMBERS", 20_000)
        trajectories = 10_000 * exact.trajectories_per_draw
        m = ask(instance, weight, signal, "sampling", trajectories=trajectories, seed=4, **options)
        assert m.draws == 10_000
        assert agrees(m, exact.mean)
        assert variance_agrees(m, exact.variance)


def test_whole_draws_are_drawn():
    """A group of 4 out of 10 trajectories asked for makes three groups; an error needs at least two."""
    m = ask(AT_THE_END, "token", theory.group(4), "sampling", trajectories=10)
    assert (m.draws, m.trajectories_per_draw) == (3, 4)
    assert ask(INSTANCE, "token", "outcome", "sampling", trajectories=1).draws == 2


def test_where_nothing_is_left_to_chance_the_sample_is_exact():
    """One action and one way: no standard error."""
    process = theory.MarkovProcess([1.0], [[[1.0]]], [[2.0]], 3)
    one = theory.SoftmaxPolicy([[0.0]])
    m = ask(Instance(process, one, one), "token", "outcome", "sampling", trajectories=10)
    np.testing.assert_array_equal(m.mean, [0.0])
    np.testing.assert_array_equal(m.standard_error, [0.0])
    assert (m.variance, m.variance_standard_error) == (0.0, 0.0)


def test_a_long_horizon_is_sampled_right():
    """T = 300, which only the recursion and sampling reach. False-alarm rate 2e-6."""
    instance = random_instance(seed=6, S=3, A=2, T=300, absorbing=False, drift=0.1)
    exact = ask(instance, "minpro", "target_advantage", "recursion")
    m = ask(instance, "minpro", "target_advantage", "sampling", trajectories=4000, seed=1)
    assert agrees(m, exact.mean)
    assert variance_agrees(m, exact.variance)


@pytest.mark.parametrize("name", ["sum", "length_mean", "constant"])
def test_a_batch_without_coupling_averages_independent_trajectories(name):
    instance = random_instance(S=3, A=2, T=3, drift=1.5)
    one = ask(instance, "minpro", "outcome", "auto", reduction=name, covariance=True)
    for engine in ("recursion", "enumeration"):
        batch = theory.reduction(name, batch=4)
        four = ask(instance, "minpro", "outcome", engine, reduction=batch, covariance=True)
        np.testing.assert_allclose(four.mean, one.mean, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(four.covariance, one.covariance / 4, rtol=1e-9, atol=1e-12)
        assert four.variance == pytest.approx(one.variance / 4, rel=1e-9)
        assert four.mean_squared_error(8) == pytest.approx(one.mean_squared_error(8), rel=1e-9)
    # Negative control: where the weight couples the batch, its mean changes with the batch.
    m2po = theory.weight("m2po", budget=0.1, clip=(0.95, 1.05))
    alone = ask(instance, m2po, "outcome", "auto", reduction=name)
    coupled = ask(instance, m2po, "outcome", "auto", reduction=theory.reduction(name, batch=2))
    assert coupled.engine == "enumeration"
    assert np.abs(coupled.mean - alone.mean).max() > 1e-6


def test_a_coupled_batch_that_is_averaged_is_every_tuple_of_its_trajectories():
    instance, weight = prompts(seed=39, drift=0.5), theory.weight("m2po", budget=0.1, clip=(0.95, 1.05))
    mean, outer = coupled_moments(*instance, weight, "outcome", 3, "sum")
    m = ask(instance, weight, "outcome", "auto", reduction=theory.reduction("sum", batch=3), covariance=True)
    np.testing.assert_allclose(m.mean, mean, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(m.covariance, outer - np.outer(mean, mean), rtol=0, atol=1e-11)
