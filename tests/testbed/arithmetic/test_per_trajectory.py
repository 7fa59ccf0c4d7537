"""Products of the scores of an answer's tokens: against gradients that are formed, one by one and all at once."""

import numpy as np
import pytest
import torch
from torch.func import grad, vmap

import theory
from testbed.arithmetic import per_trajectory
from testbed.arithmetic.model import initial_parameters, logits, model_for, unpack
from testbed.arithmetic.network_policy import NetworkPolicy, products_along_paths
from testbed.arithmetic.per_trajectory import score_products
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.tree import answer_tree
from testbed.arithmetic.trees import first_states, prefix_states, tree_logits
from testbed.arithmetic.vocabulary import END, encode

SMALL = ArithmeticTask("modular_addition", digits=1, modulus=3)
ONE = ArithmeticTask(digits=1)
TWO = ArithmeticTask()
PROMPTS = {SMALL: encode("2+1="), ONE: encode("7+7="), TWO: encode("77+07=")}
SIZES = [(1, 4, 1), (2, 8, 2), (3, 8, 4)]


def network(task, layers=2, width=8, heads=2):
    config = model_for(task, layers=layers, width=width, heads=heads)
    noise = torch.randn(
        len(initial_parameters(config, 0)), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    # Scales that are not one, so that they matter.
    return config, 1.3 * initial_parameters(config, 0, torch.float64) + 0.1 * noise


def per_sample_gradients(config, theta, prompt, answers, weights):
    """(N, P) gradient of sum over t of w_t log pi(a_t|s_t) of each answer, each differentiated by itself."""

    def weighed(theta, answer, w):
        fed = torch.cat([prompt, answer[:-1]])[None]
        log_probs = logits(config, theta, fed)[0, len(prompt) - 1 :].log_softmax(-1)
        return (w * log_probs.gather(1, answer[:, None])[:, 0]).sum()

    return vmap(grad(weighed), in_dims=(None, 0, 0))(theta, answers, weights)


def random_answers(task, count=40):
    """Answers that end early, late and never, with random weights of their tokens."""
    generator, T = torch.Generator().manual_seed(2), task.maximum_length
    answers = torch.randint(0, 10, (count, T), generator=generator)
    length = torch.arange(count) % (T + 1) + 1
    answers = torch.where(torch.arange(T) < length[:, None] - 1, answers, END)
    weights = torch.randn((count, T), generator=generator, dtype=torch.float64)
    return answers, torch.where(torch.arange(T) < length[:, None], weights, 0.0), length.clamp(max=T)


def norms(products, answers, left, right, length):
    state, last = prefix_states(answers), (length - 1)[:, None]
    chosen = products[state.gather(1, last)[:, 0], answers.gather(1, last)[:, 0]]
    return torch.einsum("ni,nij,nj->n", left, chosen, right)


@pytest.mark.parametrize("task", [SMALL, ONE, TWO], ids=["two tokens", "three tokens", "four tokens"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_norms_are_those_of_gradients_one_by_one(task, size):
    config, theta = network(task, *size)
    answers, weights, length = random_answers(task)
    products = score_products(config, theta, task, PROMPTS[task])
    gradients = per_sample_gradients(config, theta, PROMPTS[task], answers, weights)
    found = norms(products, answers, weights, weights, length)
    torch.testing.assert_close(found, (gradients**2).sum(1), rtol=1e-11, atol=0)
    # Two ways to weigh the same tokens.
    other = weights.flip(0) * (weights != 0.0)
    both = (gradients * per_sample_gradients(config, theta, PROMPTS[task], answers, other)).sum(1)
    torch.testing.assert_close(norms(products, answers, weights, other, length), both, rtol=1e-9, atol=1e-9)
    # Negative control: without the products of different tokens.
    alone = torch.diagonal(products, dim1=2, dim2=3).diag_embed()
    assert (norms(alone, answers, weights, weights, length) / found - 1.0).abs().max() > 0.05


def jacobian_products(config, theta, task, prompt, keep=slice(None)):
    """From the whole Jacobian of the tree's logits, over the parameters of `keep`."""
    jacobian = torch.func.jacrev(lambda t: tree_logits(config, t, task, prompt[None])[0].reshape(-1))(theta)[:, keep]
    pi = tree_logits(config, theta, task, prompt[None])[0].softmax(-1).numpy()
    return products_along_paths((jacobian @ jacobian.T).numpy(), pi, task.maximum_length)


@pytest.mark.parametrize("task", [SMALL, ONE], ids=["two tokens", "three tokens"])
def test_products_are_those_of_the_whole_jacobian(task):
    config, theta = network(task)
    found = score_products(config, theta, task, PROMPTS[task]).numpy()
    exact = jacobian_products(config, theta, task, PROMPTS[task])
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-11 * np.abs(exact).max())
    first, T = first_states(task), task.maximum_length
    for k in range(T):
        level = found[first[k] : first[k + 1]]
        assert (level[:, :, k + 1 :] == 0.0).all()
        assert (level[:, :, k, k] > 0.0).all()


def test_every_parameter_counts():
    """Negative control of the two tests above: they would see any tensor that is left out."""
    config, theta = network(SMALL)
    exact = jacobian_products(config, theta, SMALL, PROMPTS[SMALL])
    where = unpack(config, torch.arange(len(theta)))
    tensors = [
        where.token,
        where.position,
        *(part for layer in where.layers for part in layer),
        where.scale,
        where.head,
    ]
    assert sum(part.numel() for part in tensors) == len(theta)
    for part in tensors:
        keep = torch.ones(len(theta), dtype=torch.bool)
        keep[part.reshape(-1)] = False
        without = jacobian_products(config, theta, SMALL, PROMPTS[SMALL], keep)
        assert np.abs(without - exact).max() > 1e-4 * np.abs(exact).max()


def test_chunks_change_nothing(monkeypatch):
    config, theta = network(ONE)
    whole = score_products(config, theta, ONE, PROMPTS[ONE])
    monkeypatch.setattr(per_trajectory, "_CHUNK_NUMBERS", 20_000)
    torch.testing.assert_close(score_products(config, theta, ONE, PROMPTS[ONE]), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 10.0, 14.0, 18.0])  # up to 1e-17 are left to the others
def test_scores_of_a_confident_policy_keep_their_digits(scale):
    """|z|^2 of the likeliest action, whose log-probability is -log(1 + what the others are to it)."""
    config, theta = network(SMALL)
    unpack(config, theta).head.mul_(scale)
    policy = tree_logits(config, theta, SMALL, PROMPTS[SMALL][None])[0]
    left = policy.softmax(-1).sort(-1).values[:, :-1].sum(-1)
    state = int(left.argmin())
    likeliest = int(policy[state].argmax())

    def log_prob(theta):
        row = tree_logits(config, theta, SMALL, PROMPTS[SMALL][None])[0, state]
        others = torch.cat([row[:likeliest], row[likeliest + 1 :]])
        return -torch.log1p((others - row[likeliest]).exp().sum())

    truth = float((grad(log_prob)(theta) ** 2).sum())
    depth = int(state > 0)
    found = float(score_products(config, theta, SMALL, PROMPTS[SMALL])[state, likeliest, depth, depth])
    assert found == pytest.approx(truth, rel=1e-9, abs=0.0)
    jacobian = torch.func.jacrev(lambda t: tree_logits(config, t, SMALL, PROMPTS[SMALL][None])[0].reshape(-1))(theta)
    slow = products_along_paths((jacobian @ jacobian.T).numpy(), policy.softmax(-1).numpy(), SMALL.maximum_length)
    assert slow[state, likeliest, depth, depth] == pytest.approx(truth, rel=1e-9, abs=0.0)
    # The control: 1 - p has lost those digits.
    one_hot = torch.eye(11, dtype=torch.float64)[likeliest]
    naive = jacobian.reshape(-1, 11, len(theta))[state].T @ (one_hot - policy[state].softmax(-1))
    lost = abs(float(naive @ naive) / truth - 1.0)
    assert (lost > 1e-7) == (scale > 1.0)


def linear_policies(seed=0, size=5):
    """A network whose logits are linear in theta, as the theory's policy and as one of a network."""
    tree, rng = answer_tree(SMALL, PROMPTS[SMALL]), np.random.default_rng(seed)
    features = 0.5 * rng.normal(size=(tree.process.states, tree.process.actions, size))
    features[tree.prefixes :] = 0.0
    exact = theory.SoftmaxPolicy.from_features(features, rng.normal(size=size))
    jacobian = features.reshape(-1, size)
    inner = jacobian[: tree.prefixes * 11]
    products = products_along_paths(inner @ inner.T, exact.probabilities[: tree.prefixes], SMALL.maximum_length)
    return tree, exact, NetworkPolicy(exact.logits, exact.parameters, lambda v: v @ jacobian, products)


def test_a_linear_network_scores_as_the_theory_says():
    tree, exact, found = linear_policies()
    rng = np.random.default_rng(1)
    S, A, P = exact.score.shape
    left, right = rng.normal(size=(3, S, A)), rng.normal(size=(3, S, A))
    vectors = rng.normal(size=(2, S, P))
    assert found.parameter_count == P
    np.testing.assert_allclose(found.combine_scores(left), exact.combine_scores(left), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.combine_scores(left[0]), exact.combine_scores(left[0]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.squared_score, exact.squared_score, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(
        found.project_on_scores(vectors), exact.project_on_scores(vectors), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        found.squared_norm_of_combination(left, right), exact.squared_norm_of_combination(left, right), rtol=1e-9
    )
    weights = np.abs(left[0])
    assert (found.combine_absolute_scores(weights) >= exact.combine_absolute_scores(weights)).all()
    # Of answers: first a digit, then anything, or an end at once.
    state = np.array([[0, 1 + 4], [0, 1 + 9], [0, 0], [0, 3]])
    action = np.array([[4, END], [9, 2], [END, 0], [2, 7]])
    left, right = rng.normal(size=(2, 4, 2))
    left[2:, 1] = right[2:, 1] = 0.0
    tokens = [p.squared_norm_of_tokens(state, action, left, right) for p in (found, exact)]
    np.testing.assert_allclose(tokens[0], tokens[1], rtol=1e-9)
    # Negative control: the tabular policy of the same probabilities has other norms.
    tabular = theory.SoftmaxPolicy(exact.logits).squared_norm_of_tokens(state, action, left, right)
    assert np.abs(tabular / tokens[0] - 1.0).max() > 0.05
    assert tree.prefixes == 11
