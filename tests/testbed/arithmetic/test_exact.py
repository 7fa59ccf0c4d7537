"""Exact moments on networks: a linear network is a softmax policy of the theory; a transformer against differences."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import theory
from testbed.arithmetic.doors import sample_answers
from testbed.arithmetic.evaluating import evaluate
from testbed.arithmetic.exact import NetworkPrompt, network_decomposition, network_moments, network_prompt
from testbed.arithmetic.model import initial_parameters, model_for
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask, all_prompts
from testbed.arithmetic.tree import answer_tree
from testbed.arithmetic.trees import prefix_states, tree_log_probs

TASK = ArithmeticTask(digits=1)
PROMPTS = all_prompts(TASK)
CONFIG = model_for(TASK, layers=1, width=8, heads=2)
THETA = 1.5 * initial_parameters(CONFIG, 0, torch.float64)
BEHAVIOUR = THETA + 0.1 * torch.randn(THETA.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ESTIMATORS = [
    theory.Estimator("prefix", "target_advantage"),
    theory.Estimator("token", "outcome"),
    theory.Estimator(theory.weight("minpro", clip=(0.8, 1.28)), theory.signal("outcome", baseline=0.3)),
    theory.Estimator("ppo_clip", theory.group(3), reduction="token_mean"),
    theory.Estimator("gspo", theory.group(4, scale="none"), reduction="length_mean"),
]
LABELS = [e.label for e in ESTIMATORS]
MORE = [
    theory.Estimator("cispo", theory.signal("reward_to_go", baseline="behaviour_value"), reduction="constant"),
    theory.Estimator("prefix", "behaviour_action_value", score="cumulative"),
    theory.Estimator("token", theory.signal("outcome", baseline="optimal"), reduction="length_mean"),
    theory.Estimator("minpro", theory.group(3), score="cumulative", reduction="length_mean"),
    theory.Estimator("token", "outcome", reduction=theory.reduction("token_mean", batch=3)),
    theory.Estimator("m2po", "outcome"),
]
# Weights that couple the answers of a draw: every pair of answers is visited, so that they have to be few.
FEW = ArithmeticTask("modular_addition", digits=1, modulus=3)
COUPLED = [
    theory.Estimator(theory.weight("m2po", budget=1e-3), theory.group(2, "leave_one_out", "none")),
    theory.Estimator("self_normalised", "outcome", reduction=theory.reduction("token_mean", batch=2)),
]


def linear(prompt, seed=0, size=5, task=TASK):
    """A network whose logits are linear in theta, as a prompt and as policies of the theory."""
    tree, rng = answer_tree(task, all_prompts(task)[prompt]), np.random.default_rng(seed)
    features = 0.4 * rng.normal(size=(tree.process.states, tree.process.actions, size))
    features[tree.prefixes :] = 0.0
    theta, other = rng.normal(size=size), rng.normal(size=size)
    table = torch.from_numpy(features[: tree.prefixes])
    target, behaviour = (
        theory.SoftmaxPolicy.from_features(features, x) for x in (theta, theta + 0.3 * other)
    )  # fmt: skip
    network = NetworkPrompt(
        lambda t: table @ t, torch.from_numpy(theta), tree,
        *(tree.policy(torch.from_numpy(p.logits[: tree.prefixes].copy())) for p in (target, behaviour)),
    )  # fmt: skip
    return network, target, behaviour


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=LABELS)
def test_a_linear_network_is_a_softmax_policy_of_the_theory(estimator):
    network, target, behaviour = linear(57)
    truth = theory.moments(network.tree.process, target, behaviour, estimator)
    m = network_moments([network], estimator)
    np.testing.assert_allclose(m.mean, truth.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(m.gradient, truth.gradient, rtol=1e-9, atol=1e-12)
    assert m.variance == pytest.approx(truth.variance, rel=1e-9)
    assert m.trajectories_per_draw == truth.trajectories_per_draw
    # Negative control: the policies exchanged.
    swapped = theory.moments(network.tree.process, behaviour, target, estimator)
    assert np.linalg.norm(m.mean - swapped.mean) > 0.05 * np.linalg.norm(m.mean)


@pytest.mark.parametrize("estimator", MORE, ids=[e.label for e in MORE])
def test_so_is_one_of_every_kind_of_estimator(estimator):
    network, target, behaviour = linear(57)
    m, truth = network.moments(estimator), theory.moments(network.tree.process, target, behaviour, estimator)
    np.testing.assert_allclose(m.mean, truth.mean, rtol=1e-9, atol=1e-12)
    assert m.variance == pytest.approx(truth.variance, rel=1e-8)
    assert m.engine == "enumeration"


@pytest.mark.parametrize("estimator", COUPLED, ids=[e.label for e in COUPLED])
def test_so_is_one_with_a_weight_that_couples_answers(estimator):
    network, target, behaviour = linear(4, task=FEW)
    m, truth = network.moments(estimator), theory.moments(network.tree.process, target, behaviour, estimator)
    np.testing.assert_allclose(m.mean, truth.mean, rtol=1e-9, atol=1e-12)
    assert m.variance == pytest.approx(truth.variance, rel=1e-8)
    # Negative control: the policies exchanged.
    swapped = theory.moments(network.tree.process, behaviour, target, estimator)
    assert np.linalg.norm(m.mean - swapped.mean) > 1e-2 * np.linalg.norm(m.mean)
    assert m.variance != pytest.approx(swapped.variance, rel=1e-2)


@cache
def fast_and_slow():
    pair = prompts()[0]
    return pair, replace(pair, products=None), replace(pair, behaviour=pair.target, target=pair.behaviour)


IN_ANY_SPACE = [e for e in ESTIMATORS + MORE if e.signal.label != "outcome(baseline=optimal)"]


@pytest.mark.parametrize("estimator", IN_ANY_SPACE, ids=[e.label for e in IN_ANY_SPACE])
def test_the_variance_on_a_transformer_is_that_of_the_whole_jacobian(estimator):
    """The slow way: the covariance in the logits, and the products of all their gradients."""
    pair, slow, swapped = fast_and_slow()
    m = pair.moments(estimator)
    in_logits = theory.moments(
        pair.tree.process, pair.target, pair.behaviour, estimator, "enumeration", covariance=True
    )
    count = len(pair.gram)
    spread = float((pair.gram * in_logits.covariance[:count, :count]).sum())
    assert m.variance == pytest.approx(spread, rel=1e-8)
    assert slow.moments(estimator).variance == pytest.approx(spread, rel=1e-8)
    plain = pair.moments(estimator, variance=False)
    np.testing.assert_allclose(m.mean, plain.mean, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(m.gradient, plain.gradient, rtol=1e-9, atol=1e-12)
    # Negative control: the policies exchanged.
    assert swapped.moments(estimator).variance != pytest.approx(spread, rel=1e-3)


def test_the_optimal_baseline_is_that_of_theta():
    """The numbers that minimise the variance in the logits do not minimise it in theta."""
    config, optimal = model_for(FEW, layers=1, width=8, heads=2), MORE[2]
    theta = 1.5 * initial_parameters(config, 0, torch.float64)
    noise = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pair = network_prompt(config, theta, FEW, all_prompts(FEW)[5], behaviour_theta=theta + 0.1 * noise)
    m, plain = pair.moments(optimal), pair.moments(optimal, variance=False)
    in_logits = theory.moments(pair.tree.process, pair.target, pair.behaviour, optimal, "enumeration", covariance=True)
    spread = float((pair.gram * in_logits.covariance[: len(pair.gram), : len(pair.gram)]).sum())
    assert m.variance < spread * (1.0 - 1e-6)
    np.testing.assert_allclose(plain.mean, m.mean, rtol=1e-8, atol=1e-12)
    assert np.isnan(plain.variance)
    assert np.abs(pair.pull_back(in_logits.mean) - m.mean).max() > 1e-6
    parts = network_decomposition([pair], optimal)
    np.testing.assert_allclose(sum(parts.values()), m.bias, rtol=0, atol=1e-11)
    for number in (0.0, 0.2):
        other = theory.Estimator("token", theory.signal("outcome", baseline=number), reduction="length_mean")
        assert m.variance < pair.moments(other).variance


def test_answers_of_four_tokens_need_no_jacobian():
    task = ArithmeticTask()
    config = model_for(task)
    theta = initial_parameters(config, 0)
    pair = network_prompt(config, theta, task, all_prompts(task)[735], behaviour_theta=1.01 * theta)
    with pytest.raises(ValueError, match=r"the Jacobian of 12221 logits in 100800 parameters is beyond 3e\+08"):
        assert pair.gram.size
    plain, group = (pair.moments(theory.Estimator("ppo_clip", s)) for s in ("outcome", theory.group(8, scale="none")))
    assert 0.0 < plain.variance < 1e3
    # Dr.GRPO's group of independent answers: the mean shrinks by (G - 1) / G where the weight looks at no sign.
    one, of_group = (
        pair.moments(theory.Estimator("prefix", s)) for s in ("outcome", theory.group(8, "leave_one_out", "none"))
    )
    np.testing.assert_allclose(of_group.mean, one.mean, rtol=1e-6, atol=1e-9)
    assert 0.0 < group.variance < plain.variance


def test_the_moments_of_several_prompts_are_those_of_a_random_one():
    both = [linear(p, seed)[0] for seed, p in enumerate((12, 89))]
    both[1] = replace(both[1], theta=both[0].theta)
    e = ESTIMATORS[1]
    one, two = (network_moments([p], e) for p in both)
    m = network_moments(both, e)
    np.testing.assert_allclose(m.mean, 0.5 * (one.mean + two.mean), rtol=1e-12)
    between = 0.25 * float((one.mean - two.mean) @ (one.mean - two.mean))
    assert m.variance == pytest.approx(0.5 * (one.variance + two.variance) + between, rel=1e-9)


def prompts(**options):
    return [network_prompt(CONFIG, THETA, TASK, PROMPTS[i], behaviour_theta=BEHAVIOUR, **options) for i in (5, 38)]


def test_the_gradient_is_that_of_finite_differences():
    direction = torch.randn(THETA.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-5

    def reward(theta):
        return evaluate(CONFIG, theta, TASK, PROMPTS[[5, 38]]).expected_reward

    difference = (reward(THETA + step * direction) - reward(THETA - step * direction)) / (2 * step)
    m = network_moments(prompts(), ESTIMATORS[0], variance=False)
    assert m.gradient @ direction.numpy() == pytest.approx(difference, rel=1e-6)
    assert np.isnan(m.variance)
    # Negative control: the estimator's expectation is another vector.
    token = network_moments(prompts(), ESTIMATORS[1], variance=False)
    assert token.mean @ direction.numpy() != pytest.approx(difference, rel=1e-2)


def test_the_identities_of_the_theory_hold_on_the_network():
    pairs = prompts()
    assert network_moments(pairs, theory.Estimator("prefix", "target_advantage"), variance=False).relative_bias < 1e-10
    assert network_moments(pairs, theory.Estimator("sequence", "outcome"), variance=False).relative_bias < 1e-10
    assert network_moments(pairs, theory.Estimator("prefix", "outcome"), variance=False).relative_bias > 1e-2
    assert network_moments(pairs, theory.Estimator("token", "target_advantage"), variance=False).relative_bias > 1e-2


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=LABELS)
def test_the_causes_sum_to_the_bias(estimator):
    pairs = prompts()
    parts = network_decomposition(pairs, estimator)
    m = network_moments(pairs, estimator, variance=False)
    np.testing.assert_allclose(sum(parts.values()), m.bias, rtol=0, atol=1e-11)


def test_the_variance_is_that_of_every_answer_differentiated_by_itself():
    """The slow way: one backward pass for each answer."""
    pair = prompts()[0]
    estimator = theory.Estimator("token", "outcome")
    process, S = pair.tree.process, pair.tree.prefixes
    mean, second = torch.zeros_like(THETA), 0.0
    step = process.transition_matrix.reshape(process.states * process.actions, process.states).tocsr()
    log_ratio = pair.target.log_probabilities - pair.behaviour.log_probabilities

    def walk(state, chance, taken):
        nonlocal mean, second
        if state >= S:
            paid = process.terminal_reward[state]
            if paid == 0.0:
                return
            theta = THETA.clone().requires_grad_()
            log_pi = pair.logits(theta).log_softmax(-1)
            surrogate = sum(float(np.exp(log_ratio[s, a])) * paid * log_pi[s, a] for s, a in taken)
            (g,) = torch.autograd.grad(surrogate, theta)
            mean, second = mean + chance * g, second + chance * float(g @ g)
            return
        for a in range(process.actions):
            after = int(step[[state * process.actions + a]].argmax())
            walk(after, chance * pair.behaviour.probabilities[state, a], [*taken, (state, a)])

    walk(0, 1.0, [])
    m = pair.moments(estimator)
    np.testing.assert_allclose(m.mean, mean.numpy(), rtol=1e-8, atol=1e-12)
    assert m.variance == pytest.approx(second - float(mean @ mean), rel=1e-8)


@pytest.mark.parametrize("sampler", [Sampler(top_p=0.8), Sampler(temperature=0.7), Sampler(weights="bf16")])
def test_what_samplers_lose_is_said(sampler):
    m = network_moments(prompts(sampler=sampler), theory.Estimator("sequence", "outcome"), variance=False)
    assert (m.lost_mass > 0.01) == (sampler.top_p < 1.0)
    assert (m.relative_bias > 1e-3) == (sampler.top_p < 1.0)
    each = [network_moments(prompt, ESTIMATORS[1], variance=False).lost_mass for prompt in prompts(sampler=sampler)]
    assert m.lost_mass == pytest.approx(np.mean(each), rel=1e-12)
    # Negative control: the prompts lose different amounts.
    assert sampler.top_p == 1.0 or abs(each[0] - each[1]) > 1e-3


@pytest.mark.parametrize(
    "sampler", [Sampler(weights="bf16"), Sampler(logits="bf16"), Sampler(temperature=0.7, top_p=0.8)]
)
def test_what_is_sampled_from_is_what_the_exact_engines_take(sampler):
    """Recorded along answers with a cache, and on the tree of all answers, twice."""
    drawn = sample_answers(
        CONFIG, BEHAVIOUR, PROMPTS[[5]], 3, per_prompt=200, sampler=sampler, generator=torch.Generator().manual_seed(0)
    )
    states, recorded = prefix_states(drawn.answers), drawn.behaviour_log_probs[drawn.mask]

    def along(table):
        return torch.tensor(table)[states, drawn.answers][drawn.mask]

    pair, plain = (
        network_prompt(CONFIG, THETA, TASK, PROMPTS[5], behaviour_theta=BEHAVIOUR, sampler=s) for s in (sampler, None)
    )
    found = along(pair.behaviour.log_probabilities[: pair.tree.prefixes])
    torch.testing.assert_close(found, recorded, rtol=0, atol=1e-12)
    on_tree = tree_log_probs(CONFIG, BEHAVIOUR, TASK, PROMPTS[[5]], sampler)[0]
    torch.testing.assert_close(along(on_tree.numpy()), recorded, rtol=0, atol=1e-12)
    # Negative control: what the sampler does matters.
    assert (along(plain.behaviour.log_probabilities[: pair.tree.prefixes]) - recorded).abs().max() > 1e-2


def test_the_behaviour_policy_is_computed_in_the_dtype_of_its_parameters():
    single = BEHAVIOUR.float()
    pair = network_prompt(CONFIG, THETA, TASK, PROMPTS[5], behaviour_theta=single)
    found = pair.behaviour.log_probabilities[: pair.tree.prefixes]
    np.testing.assert_allclose(found, tree_log_probs(CONFIG, single, TASK, PROMPTS[5])[0].numpy(), rtol=0, atol=1e-14)
    other = tree_log_probs(CONFIG, single.double(), TASK, PROMPTS[5])[0].numpy()
    assert 1e-9 < np.abs(found - other).max() < 1e-4


def test_three_policies_may_be_told_apart():
    middle, estimator = 0.5 * (THETA + BEHAVIOUR), theory.Estimator("decoupled", "outcome")
    m = network_moments(prompts(old_theta=middle), estimator, variance=False)
    plain = network_moments(prompts(), theory.Estimator("ppo_clip", "outcome"), variance=False)
    assert np.abs(m.mean - plain.mean).max() > 1e-4
    parts = network_decomposition(prompts(old_theta=middle), estimator)
    np.testing.assert_allclose(sum(parts.values()), m.bias, rtol=0, atol=1e-11)
    # Negative control: the terms of another policy in the middle sum to something else.
    other = network_decomposition(prompts(old_theta=THETA), estimator)
    assert np.abs(sum(other.values()) - m.bias).max() > 1e-4


def test_a_lag_is_passed_on():
    estimator = theory.Estimator(theory.weight("decoupled", anchor="lag"), "outcome")
    three, one = (network_moments(prompts(), estimator, variance=False, lag=lag) for lag in (3, 1))
    assert np.abs(three.mean - one.mean).max() > 1e-4
    parts = network_decomposition(prompts(), estimator, lag=3)
    np.testing.assert_allclose(sum(parts.values()), three.bias, rtol=0, atol=1e-11)
    assert np.abs(sum(parts.values()) - one.bias).max() > 1e-4


def test_one_prompt_is_a_list_of_one():
    pair, estimator = prompts()[0], ESTIMATORS[1]
    np.testing.assert_array_equal(network_moments(pair, estimator).mean, network_moments([pair], estimator).mean)
    for one, other in zip(*(network_decomposition(p, estimator).values() for p in (pair, (pair,))), strict=True):
        np.testing.assert_array_equal(one, other)


def test_prompts_and_estimators_that_do_not_go_together_are_refused():
    pair, small = prompts()[0], model_for(TASK, layers=1, width=4)
    elsewhere = network_prompt(CONFIG, 2.0 * THETA, TASK, PROMPTS[38])
    smaller = network_prompt(small, initial_parameters(small, 0), TASK, PROMPTS[38])
    batch = theory.Estimator("token", "outcome", reduction=theory.reduction("token_mean", batch=4))
    for of in (network_moments, network_decomposition):
        for given, sentence in (
            ([], "prompts is empty; expected at least one"),
            ([pair, elsewhere], r"prompts\[1\] is of another theta than prompts\[0\]"),
            ([pair, smaller], r"prompts\[1\] is of another theta"),
            ([PROMPTS[5]], r"prompts\[0\] is a Tensor; expected what network_prompt gives"),
        ):
            with pytest.raises(ValueError, match=sentence):
                of(given, ESTIMATORS[1])
        with pytest.raises(ValueError, match=r"token_mean\(batch=4\) mixes answers to several prompts"):
            of([pair], batch)
        with pytest.raises(ValueError, match=r"estimator is 'token'; expected theory\.Estimator"):
            of([pair], "token")


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="depend on all 8 trajectories of a draw"):
        network_moments(prompts(), theory.Estimator("m2po", theory.group(8)), variance=False)
    with pytest.raises(ValueError, match="have 111111 prefixes; expected at most 20000"):
        answer_tree(ArithmeticTask(digits=3, slack=1), all_prompts(ArithmeticTask(digits=3))[0])
