"""Exact moments on networks: a linear network is a softmax policy of the theory; a transformer against differences."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import theory
from testbed.arithmetic import exact
from testbed.arithmetic.exact import NetworkPrompt, evaluate, network_decomposition, network_moments, network_prompt
from testbed.arithmetic.model import initial_parameters, model_for
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask, all_prompts
from testbed.arithmetic.tree import answer_tree
from testbed.arithmetic.warmup import accuracy

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


def test_three_policies_may_be_told_apart():
    middle = 0.5 * (THETA + BEHAVIOUR)
    m = network_moments(prompts(old_theta=middle), theory.Estimator("decoupled", "outcome"), variance=False)
    plain = network_moments(prompts(), theory.Estimator("ppo_clip", "outcome"), variance=False)
    assert np.abs(m.mean - plain.mean).max() > 1e-4


def test_an_evaluation_is_that_of_every_answer():
    found = evaluate(CONFIG, THETA, TASK, PROMPTS[[5, 38]])
    p = []
    for i in (5, 38):
        pair = network_prompt(CONFIG, THETA, TASK, PROMPTS[i])
        v = theory.values(pair.tree.process, pair.target)
        p.append(v.expected_return)
    assert found.accuracy == pytest.approx(np.mean(p), rel=1e-12)
    for k in (1, 8, 128):
        assert found.pass_at[k] == pytest.approx(np.mean([1 - (1 - x) ** k for x in p]), rel=1e-9)
    assert found.pass_at[128] > found.pass_at[1]
    assert 0.0 < found.entropy < np.log(11)
    assert 1.0 <= found.length <= TASK.maximum_length
    assert evaluate(CONFIG, THETA, TASK, PROMPTS[[5]], Sampler(temperature=0.0)).accuracy in (0.0, 1.0)


def test_an_evaluation_agrees_with_the_right_answers_alone(monkeypatch):
    task = ArithmeticTask(reversed_answers=True)
    config = model_for(task, layers=1, width=8, heads=2)
    theta, some = 2.0 * initial_parameters(config, 3, torch.float64), all_prompts(task)[::400]
    found = evaluate(config, theta, task, some)
    alone = accuracy(task, config, theta, some)
    assert found.accuracy == pytest.approx(alone.sampled, rel=1e-10)
    assert found.expected_reward == pytest.approx(alone.sampled, rel=1e-10)
    assert found.greedy_accuracy == alone.greedy
    monkeypatch.setattr(exact, "_PREFIXES", 3000)
    chunked = evaluate(config, theta, task, some)
    assert chunked.entropy == pytest.approx(found.entropy, rel=1e-12)
    assert chunked.pass_at == pytest.approx(found.pass_at, rel=1e-9)
    single = evaluate(config, theta.float(), task, some)
    assert single.accuracy == pytest.approx(found.accuracy, rel=1e-3)
    # Negative control: another network.
    assert evaluate(config, -theta, task, some).accuracy != pytest.approx(found.accuracy, rel=1e-2)


@pytest.mark.parametrize(
    "sampler", [None, Sampler(temperature=0.8), Sampler(top_k=5)], ids=["plain", "tempered", "few"]
)
def test_an_evaluation_is_that_of_the_process(sampler):
    task = replace(TASK, per_digit_credit=True)
    found = evaluate(CONFIG, THETA, task, PROMPTS[7:20], sampler)
    rows = []
    for prompt in PROMPTS[7:20]:
        pair = network_prompt(CONFIG, THETA, task, prompt, sampler=sampler)
        process, p = pair.tree.process, pair.behaviour.probabilities
        v, S = theory.values(process, pair.behaviour), pair.tree.prefixes
        right = v.occupancy[-1][S:] @ (process.terminal_reward[S:] == 1.0)
        visits = v.occupancy[:-1, :S].sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(p > 0.0, p * np.log(p), 0.0)[:S].sum(axis=1)
        likeliest = theory.SoftmaxPolicy(np.where(p == p.max(axis=1, keepdims=True), 0.0, -np.inf))
        greedy = theory.values(process, likeliest).occupancy[-1][S:] @ (process.terminal_reward[S:] == 1.0)
        rows.append((v.expected_return, right, greedy, visits @ entropy, visits.sum()))
    reward, right, greedy, entropy, tokens = np.array(rows).T
    assert found.expected_reward == pytest.approx(reward.mean(), rel=1e-11)
    assert found.accuracy == pytest.approx(right.mean(), rel=1e-11)
    assert found.greedy_accuracy == greedy.mean()
    assert found.entropy == pytest.approx(entropy.sum() / tokens.sum(), rel=1e-11)
    assert found.length == pytest.approx(tokens.mean(), rel=1e-11)
    # Negative control: partial credit is not accuracy.
    assert found.expected_reward > 1.05 * found.accuracy


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="prompts is empty; expected at least one"):
        network_moments([], ESTIMATORS[0])
    batch = theory.Estimator("token", "outcome", reduction=theory.reduction("token_mean", batch=4))
    with pytest.raises(ValueError, match=r"token_mean\(batch=4\) mixes answers to several prompts"):
        network_moments(prompts(), batch)
    with pytest.raises(ValueError, match="depend on all 8 trajectories of a draw"):
        network_moments(prompts(), theory.Estimator("m2po", theory.group(8)), variance=False)
    with pytest.raises(ValueError, match="prompts is empty; expected at least one"):
        evaluate(CONFIG, THETA, TASK, PROMPTS[:0])
    with pytest.raises(ValueError, match="have 111111 prefixes; expected at most 20000"):
        answer_tree(ArithmeticTask(digits=3, slack=1), all_prompts(ArithmeticTask(digits=3))[0])
