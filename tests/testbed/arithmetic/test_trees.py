"""Trees of several prompts at once: against rows of whole answers, the exact theory, and every answer by itself."""

import itertools
import re

import numpy as np
import pytest
import torch
from torch.func import vjp, vmap

import theory
from testbed.arithmetic.doors import behaviour_log_probs
from testbed.arithmetic.model import answer_logits, initial_parameters, logits, model_for
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask, all_prompts
from testbed.arithmetic.tree import answer_tree
from testbed.arithmetic.trees import (
    first_states,
    prefix_states,
    tree_divergences,
    tree_entropy,
    tree_log_probs,
    tree_logits,
    tree_rewards,
    tree_values,
    tree_visits,
)
from testbed.arithmetic.verifier import rewards
from testbed.arithmetic.vocabulary import END, encode

SMALL = ArithmeticTask("modular_addition", digits=1, modulus=3)
ONE = ArithmeticTask(digits=1, per_digit_credit=True)
TWO = ArithmeticTask(reversed_answers=True)
TASKS = [SMALL, ONE, TWO]
IDS = ["two tokens", "three tokens", "four tokens"]


def network(task, seed=0, layers=2):
    config = model_for(task, layers=layers, width=8, heads=2)
    return config, 1.5 * initial_parameters(config, seed, torch.float64)


def some(task, count=3):
    return all_prompts(task)[torch.arange(count) * 2 + 1]


def row_by_row(config, theta, task, prompts):
    """Every answer that never ends as a row of its own: where each prefix is first read."""
    T = task.maximum_length
    rows = torch.tensor(list(itertools.product(range(10), repeat=T - 1)))
    rows = torch.cat([rows, torch.full((len(rows), 1), END)], 1)
    every = answer_logits(config, theta, prompts, rows.repeat(len(prompts), 1)).unflatten(0, (len(prompts), -1))
    return torch.cat([every[:, :: 10 ** (T - 1 - k), k] for k in range(T)], 1)


@pytest.mark.parametrize("task", TASKS, ids=IDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_logits_are_those_of_whole_answers(task, layers):
    config, theta = network(task, layers=layers)
    prompts = some(task)
    found = tree_logits(config, theta, task, prompts)
    assert found.shape == (3, first_states(task)[-1], 11)
    torch.testing.assert_close(found, row_by_row(config, theta, task, prompts), rtol=1e-12, atol=1e-12)
    # Negative control: another prompt, and the digits of another order.
    assert (found[0] - found[1]).abs().max() > 1e-2
    swapped = found[0, 1:].unflatten(0, (-1, 10)).flip(1).flatten(0, 1)
    assert (found[0, 1:] - swapped).abs().max() > 1e-2


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_gradients_are_those_of_whole_answers(task):
    config, theta = network(task)
    prompts = some(task)
    seed = torch.randn((3, first_states(task)[-1], 11), generator=torch.Generator().manual_seed(0)).double()

    def gradient(of):
        leaf = theta.clone().requires_grad_()
        return torch.autograd.grad(of(config, leaf, task, prompts), leaf, seed)[0]

    mine = gradient(tree_logits)
    torch.testing.assert_close(mine, gradient(row_by_row), rtol=1e-10, atol=1e-10)
    _, back = vjp(lambda t: tree_logits(config, t, task, prompts), theta)
    (both,) = vmap(back)(torch.stack([seed, 2.0 * seed]))
    torch.testing.assert_close(both, torch.stack([mine, 2.0 * mine]), rtol=1e-10, atol=1e-10)


def test_in_single_precision_they_are_near():
    config, theta = network(TWO)
    single, double = (tree_logits(config, theta.to(t), TWO, some(TWO)) for t in (torch.float32, torch.float64))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


def test_states_of_prefixes_by_hand():
    answers = torch.stack([encode("42$$"), encode("042$"), encode("$$$$")])
    found = prefix_states(answers)
    # No digit is state 0, "4" is 1 + 4, "42" is 11 + 42; "04" is 11 + 4, "042" is 111 + 42.
    assert found[0, :3].tolist() == [0, 5, 53]
    assert found[1].tolist() == [0, 1, 15, 153]
    assert found[2, 0] == 0
    assert (found < first_states(TWO)[-1]).all()
    assert (found >= 0).all()
    assert first_states(TWO) == [0, 1, 11, 111, 1111]


@pytest.mark.parametrize("task", [SMALL, ONE], ids=IDS[:2])
def test_rewards_are_those_of_every_answer(task):
    prompts = some(task)
    table = tree_rewards(task, prompts)
    seen = torch.zeros_like(table)
    for k in range(task.maximum_length + 1):
        for digits in itertools.product(range(10), repeat=k):
            answer = torch.tensor([*digits, *[END] * (task.maximum_length - k)])[None]
            state, last = prefix_states(answer)[0], min(k, task.maximum_length - 1)
            cell = (state[last], answer[0, last])
            seen[:, *cell] = rewards(task, prompts, answer)
    torch.testing.assert_close(table, seen, rtol=0, atol=0)
    assert table.max() == 1.0


def test_a_right_answer_is_paid_in_one_place():
    table = tree_rewards(ArithmeticTask(), torch.stack([encode("07+35="), encode("90+90=")]))
    assert table.nonzero().tolist() == [[0, 11 + 42, END], [1, 111 + 180, END]]
    assert table.sum() == 2.0
    backwards = tree_rewards(ArithmeticTask(reversed_answers=True), encode("07+35=")[None])
    assert backwards.nonzero().tolist() == [[0, 11 + 24, END]]


@pytest.mark.parametrize("task", [SMALL, ONE, TWO], ids=IDS)
def test_values_and_visits_are_those_of_the_theory(task):
    config, theta = network(task)
    prompts = some(task)
    log_probs = tree_log_probs(config, theta, task, prompts)
    found, visits = tree_values(task, tree_rewards(task, prompts), log_probs), tree_visits(task, log_probs)
    entropy, tokens = tree_entropy(task, log_probs)
    first = first_states(task)
    for m, prompt in enumerate(prompts):
        tree = answer_tree(task, prompt)
        policy = tree.policy(log_probs[m])
        v = theory.values(tree.process, policy)
        assert float(found.expected_reward[m]) == pytest.approx(v.expected_return, rel=1e-12)
        for k in range(task.maximum_length):
            s = slice(first[k], first[k + 1])
            for name, exact in (("state", v.state_value), ("action", v.action_value), ("advantage", v.advantage)):
                np.testing.assert_allclose(getattr(found, name)[m, s], exact[k, s], rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(visits[m, s], v.occupancy[k, s], rtol=1e-12)
        p = policy.probabilities[: first[-1]]
        by_state = -(p * policy.log_probabilities[: first[-1]]).sum(1)
        assert float(entropy[m]) == pytest.approx(float(visits[m].numpy() @ by_state), rel=1e-12)
        assert float(tokens[m]) == pytest.approx(float(v.occupancy[:-1, : first[-1]].sum()), rel=1e-12)
    # Negative control: another policy.
    other = tree_values(task, tree_rewards(task, prompts), tree_log_probs(config, -theta, task, prompts))
    assert (other.expected_reward / found.expected_reward - 1.0).abs().max() > 1e-2


@pytest.mark.parametrize(
    "sampler",
    [None, Sampler(temperature=0.7), Sampler(top_p=0.9), Sampler(top_k=3), Sampler(temperature=0.0)],
    ids=["plain", "tempered", "nucleus", "few", "greedy"],
)
@pytest.mark.parametrize("task", [SMALL, ONE, TWO], ids=IDS)
def test_divergences_are_those_of_the_theory(task, sampler):
    config, theta = network(task)
    noise = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prompts = some(task)
    pi = tree_log_probs(config, theta, task, prompts)
    mu = tree_log_probs(config, theta + 0.05 * noise, task, prompts, sampler)
    found, swapped = tree_divergences(task, pi, mu), tree_divergences(task, mu, pi)
    lost = sampler is not None and sampler.temperature != 0.7
    for m, prompt in enumerate(prompts):
        tree = answer_tree(task, prompt)
        exact = theory.divergences(tree.process, tree.policy(pi[m]), tree.policy(mu[m]), moves=0)
        assert float(found.kl_behaviour_policy[m]) == pytest.approx(exact.sequence.kl_behaviour_target, rel=1e-10)
        assert float(found.kl_policy_behaviour[m]) == pytest.approx(exact.sequence.kl_target_behaviour, rel=1e-10)
        assert float(found.ess[m]) == pytest.approx(exact.sequence.effective_sample_size, rel=1e-10)
        assert float(found.tokens_behaviour[m]) == pytest.approx(exact.expected_length, rel=1e-12)
        assert (found.kl_policy_behaviour[m] == torch.inf) == lost
        assert (found.ess[m] == 0.0) == lost
        back = theory.divergences(tree.process, tree.policy(mu[m]), tree.policy(pi[m]), moves=0)
        assert float(swapped.ess[m]) == pytest.approx(back.sequence.effective_sample_size, rel=1e-10)
        # Negative control: the policies exchanged.
        assert float(swapped.kl_behaviour_policy[m]) != pytest.approx(exact.sequence.kl_behaviour_target, rel=1e-3)
    torch.testing.assert_close(swapped.tokens_policy, found.tokens_behaviour)
    torch.testing.assert_close(swapped.kl_behaviour_policy, found.kl_policy_behaviour)


def test_every_answer_by_itself():
    """The slow way, which shares nothing: each answer through the network, its probabilities multiplied up."""
    task, sampler = ONE, Sampler(temperature=1.4)
    config, theta = network(task)
    other = network(task, seed=3)[1]
    prompt = some(task, 1)
    sums = dict.fromkeys(("mass", "reward", "entropy", "tokens", "kl", "back", "second"), 0.0)
    for k in range(task.maximum_length + 1):
        ends = [END] if k < task.maximum_length else []
        answers = torch.tensor([[*digits, *ends] for digits in itertools.product(range(10), repeat=k)])
        fed = torch.cat([prompt.expand(len(answers), -1), answers[:, :-1]], 1)
        own, raw = (logits(config, t, fed)[:, prompt.shape[1] - 1 :] for t in (theta, other))
        log_pi, log_mu = (
            x.gather(2, answers[..., None])[..., 0].sum(1)
            for x in (own.log_softmax(-1), behaviour_log_probs(sampler, raw))
        )
        pi, mu = log_pi.exp(), log_mu.exp()
        filled = torch.nn.functional.pad(answers, (0, task.maximum_length - answers.shape[1]), value=END)
        for name, value in (
            ("mass", pi), ("reward", pi * rewards(task, prompt, filled)), ("entropy", -pi * log_pi),
            ("tokens", pi * answers.shape[1]), ("kl", mu * (log_mu - log_pi)), ("back", pi * (log_pi - log_mu)),
            ("second", pi * (log_pi - log_mu).exp()),
        ):  # fmt: skip
            sums[name] += float(value.sum())
    pi = tree_log_probs(config, theta, task, prompt)
    apart = tree_divergences(task, pi, tree_log_probs(config, other, task, prompt, sampler))
    entropy, tokens = tree_entropy(task, pi)
    assert sums["mass"] == pytest.approx(1.0, rel=1e-12)
    earned = tree_values(task, tree_rewards(task, prompt), pi).expected_reward
    for name, found in (
        ("reward", earned), ("entropy", entropy), ("tokens", tokens), ("kl", apart.kl_behaviour_policy),
        ("back", apart.kl_policy_behaviour), ("second", 1.0 / apart.ess),
    ):  # fmt: skip
        assert float(found[0]) == pytest.approx(sums[name], rel=1e-11), name


def test_a_policy_is_at_no_distance_from_itself():
    config, theta = network(TWO)
    pi = tree_log_probs(config, theta, TWO, some(TWO))
    found = tree_divergences(TWO, pi, pi)
    assert found.kl_behaviour_policy.abs().max() == found.kl_policy_behaviour.abs().max() == 0.0
    torch.testing.assert_close(found.ess, torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0)


def test_derivatives_pass_where_a_sampler_draws_nothing():
    config, theta = network(ONE)
    leaf = theta.clone().requires_grad_()
    entropy, tokens = tree_entropy(ONE, tree_log_probs(config, leaf, ONE, some(ONE), Sampler(top_k=3)))
    (gradient,) = torch.autograd.grad((entropy + tokens).sum(), leaf)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-6


def test_tables_that_do_not_fit_are_refused():
    config, theta = network(SMALL)
    pi, paid = tree_log_probs(config, theta, SMALL, some(SMALL)), tree_rewards(SMALL, some(SMALL))
    for call, sentence in (
        (lambda: tree_divergences(SMALL, pi, pi[:1]), "policy_log_probs are of 3 prompts and behaviour_log_probs of 1"),
        (lambda: tree_divergences(SMALL, pi, paid), "behaviour_log_probs has probabilities that sum to 11"),
        (lambda: tree_values(SMALL, pi, paid), "log_probs has probabilities that sum to 11 at [0, 0]; expected 1"),
        (lambda: tree_values(SMALL, paid[:1], pi), "rewards are of 1 prompts and log_probs of 3; expected as many"),
        (lambda: tree_values(SMALL, paid[:, :7], pi), "rewards has shape (3, 7, 11); expected (M, 11, 11)"),
        (lambda: tree_visits(SMALL, pi[0]), "log_probs has shape (11, 11); expected (M, 11, 11)"),
        (lambda: tree_visits(ONE, pi), "log_probs has shape (3, 11, 11); expected (M, 111, 11)"),
        (lambda: tree_entropy(SMALL, pi.exp()), "log_probs has probabilities that sum to"),
        (lambda: tree_entropy(SMALL, pi + 1e-7), "log_probs has probabilities that sum to 1.0000001 at [0, 0]"),
        (lambda: tree_entropy(SMALL, pi.numpy()), "log_probs is a ndarray; expected a torch.Tensor"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            call()
    # The control: the same in single precision is let in.
    torch.testing.assert_close(tree_visits(SMALL, pi.float()), tree_visits(SMALL, pi), rtol=1e-5, atol=1e-7)


def test_of_a_policy_that_is_not_a_number_nothing_is_known():
    """It passes, because to a training run it is a finding, and never as a number."""
    config, theta = network(SMALL)
    pi = tree_log_probs(config, theta, SMALL, some(SMALL))
    for sampler in (None, Sampler(), Sampler(temperature=0.0), Sampler(top_p=0.9)):
        nothing = tree_log_probs(config, torch.nan * theta, SMALL, some(SMALL), sampler)
        assert nothing.isnan().all()
        values = tree_values(SMALL, tree_rewards(SMALL, some(SMALL)), nothing)
        assert values.expected_reward.isnan().all()
        assert tree_entropy(SMALL, nothing)[0].isnan().all()
        for apart in (tree_divergences(SMALL, pi, nothing), tree_divergences(SMALL, nothing, pi)):
            both = (apart.kl_behaviour_policy, apart.kl_policy_behaviour, apart.ess, apart.lost_mass)
            assert torch.stack(both).isnan().all()


def test_what_does_not_fit_is_refused():
    task = ArithmeticTask(digits=3, slack=1)
    with pytest.raises(ValueError, match="have 111111 prefixes; expected at most 20000"):
        tree_rewards(task, all_prompts(task)[:1])
    config, theta = network(ONE)
    with pytest.raises(ValueError, match="tokens are fed; expected at most the context"):
        tree_logits(config, theta, TWO, some(TWO))
