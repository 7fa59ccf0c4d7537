"""What a policy earns and how far it is from another one, on many prompts: against the process and every answer."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import theory
from testbed.arithmetic import evaluating
from testbed.arithmetic.evaluating import evaluate, network_divergences, network_values
from testbed.arithmetic.exact import network_prompt
from testbed.arithmetic.model import initial_parameters, model_for
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask, all_prompts
from testbed.arithmetic.trees import first_states, tree_divergences, tree_log_probs, tree_rewards, tree_values
from testbed.arithmetic.vocabulary import END
from testbed.arithmetic.warmup import accuracy
from tests.testbed.arithmetic.test_exact import BEHAVIOUR, CONFIG, PROMPTS, TASK, THETA


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
    monkeypatch.setattr(evaluating, "_PREFIXES", 3000)
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


def test_each_prompt_by_itself_is_said_too(monkeypatch):
    """As an evaluation of it alone, whichever prompts are evaluated together."""
    some = PROMPTS[7:20]
    monkeypatch.setattr(evaluating, "_PREFIXES", 300)
    found = evaluate(CONFIG, THETA, TASK, some).per_prompt
    for i in range(len(some)):
        alone = evaluate(CONFIG, THETA, TASK, some[i])
        for name in ("expected_reward", "accuracy", "greedy_accuracy", "length"):
            assert getattr(found, name)[i] == pytest.approx(getattr(alone, name), rel=1e-12)
        assert found.pass_at(8)[i] == pytest.approx(alone.pass_at[8], rel=1e-12)
        assert found.answer_entropy[i] == pytest.approx(alone.entropy * alone.length, rel=1e-12)
    assert found.accuracy[0] != pytest.approx(found.accuracy[1], rel=1e-3)


def table(likeliest):
    """(1, S_p, A) log-probabilities of a policy that takes these tokens with probability 0.9; elsewhere the end."""
    p = torch.full((1, first_states(TASK)[-1], 11), 0.01, dtype=torch.float64)
    p[:, :, END] = 0.9
    for state, token in likeliest.items():
        p[:, state] = 0.01
        p[:, state, token] = 0.9
    return p.log()


def test_a_greedy_answer_stops_at_its_end_token(monkeypatch):
    """Every end token pays but that of the empty answer and of one digit: whoever ends early has earned nothing."""
    paid = torch.zeros((1, 111, 11), dtype=torch.float64)
    paid[:, 11:, END] = 1.0
    monkeypatch.setattr(evaluating, "tree_rewards", lambda *_: paid)

    def greedy(likeliest):
        monkeypatch.setattr(evaluating, "tree_log_probs", lambda *_: table(likeliest))
        return evaluate(CONFIG, THETA, TASK, PROMPTS[[58]]).greedy_accuracy

    assert greedy({0: END}) == 0.0
    assert greedy({0: 1, 1 + 1: END}) == 0.0
    # The control: whoever writes on has.
    assert greedy({0: 1, 1 + 1: 3}) == 1.0


def test_who_is_always_right_is_right_at_every_k(monkeypatch):
    """Without a logarithm of zero, and also where the sum of probabilities is one and a rounding."""
    certain = table({0: 1, 1 + 1: 3, 11 + 13: END}).exp().round().log()
    monkeypatch.setattr(evaluating, "tree_log_probs", lambda *_: certain)
    found = evaluate(CONFIG, THETA, TASK, PROMPTS[[58]])
    assert found.accuracy == 1.0
    assert [*found.pass_at.values()] == pytest.approx([1.0] * 128, abs=1e-15)
    above = replace(found.per_prompt, accuracy=np.array([1.0 + 2e-16, 0.5]))
    np.testing.assert_allclose(above.pass_at(3), [1.0, 0.875], rtol=1e-15)


@pytest.mark.parametrize("sampler", [None, Sampler(temperature=0.7, top_p=0.9)], ids=["plain", "truncated"])
def test_divergences_and_values_of_many_prompts_are_those_of_the_trees(sampler, monkeypatch):
    some = PROMPTS[7:20]
    monkeypatch.setattr(evaluating, "_PREFIXES", 300)
    pi, mu = tree_log_probs(CONFIG, THETA, TASK, some), tree_log_probs(CONFIG, BEHAVIOUR, TASK, some, sampler)
    apart = network_divergences(CONFIG, THETA, TASK, some, behaviour_theta=BEHAVIOUR, sampler=sampler)
    values = network_values(CONFIG, BEHAVIOUR, TASK, some, sampler=sampler)
    for found, whole in (
        (apart, tree_divergences(TASK, pi, mu)), (values, tree_values(TASK, tree_rewards(TASK, some), mu))
    ):  # fmt: skip
        for field in fields(found):
            torch.testing.assert_close(getattr(found, field.name), getattr(whole, field.name), rtol=1e-9, atol=1e-14)
    # Negative control: the policies exchanged.
    back = network_divergences(CONFIG, BEHAVIOUR, TASK, some, behaviour_theta=THETA)
    assert ((back.kl_policy_behaviour - apart.kl_policy_behaviour).abs() > 1e-4).all()
    itself = network_divergences(CONFIG, THETA, TASK, some)
    assert itself.kl_policy_behaviour.abs().max() == 0.0
    # No gradient is kept, although theta may want one.
    assert not network_values(CONFIG, THETA.clone().requires_grad_(), TASK, some).action.requires_grad
