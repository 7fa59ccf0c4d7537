"""A run of training by plain loops: what samples, what is old, how a step is made of a gradient."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import theory
from testbed.arithmetic import ArithmeticTask, Sampler, WarmUp, network_moments, network_prompt
from testbed.arithmetic.model import initial_parameters, logits
from testbed.arithmetic.training import Training, running, train
from testbed.arithmetic.training.gradient import BatchGradient, Behaviour, batch_gradient
from testbed.arithmetic.training.measuring import Monitor, of_update
from testbed.arithmetic.training.state import start

TASK = ArithmeticTask("modular_addition", digits=1, modulus=7)
SMALL = Training(
    task=TASK, warm_up=WarmUp(accuracy=0.3, measured_on="training", steps=400), width=16, layers=1, prompts=2,
    answers=4, signal="group(size=4)", steps=9, staleness=3, evaluate_every=100, evaluation_prompts=8, tree_prompts=1,
    exact_prompts=2, learning_rate=3e-3, learning_rate_warmup=4, betas=(0.8, 0.95), weight_decay=0.1,
    max_gradient_norm=0.3,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFPOLICY_TESTBED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield os.environ


class Update(NamedTuple):
    theta: Tensor
    prompts: Tensor
    rollout: object
    behaviour: Behaviour
    made: BatchGradient


def watched(settings, monkeypatch):
    """A run, and every update of it with all that went into it, copied."""
    updates, made = [], running.batch_gradient

    def watch(config, theta, task, estimator, prompts, rollout, behaviour, **options):
        found = made(config, theta, task, estimator, prompts, rollout, behaviour, **options)
        old = behaviour.old_theta
        copied = behaviour._replace(theta=behaviour.theta.clone(), old_theta=None if old is None else old.clone())
        updates.append(Update(theta.detach().clone(), prompts, rollout, copied, found))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(running, "batch_gradient", watch)
        run = train(settings)
    policies = [u.theta for u in updates] + [run.theta]
    assert len(updates) == settings.steps
    return updates, policies, run


def ascended(settings, policies, gradients, *, sign=1.0, limit=True, warm=True, betas=None, decay=None):
    """AdamW by its formulas, one number after the other in float64: the policies that the gradients lead to."""
    first, second = settings.betas if betas is None else betas
    decay = settings.weight_decay if decay is None else decay
    theta = policies[0].double()
    m, v, found = torch.zeros_like(theta), torch.zeros_like(theta), [theta]
    for n, gradient in enumerate(gradients, start=1):
        g = sign * gradient.double()
        norm = math.sqrt(float((g * g).sum()))
        if limit and norm > settings.max_gradient_norm:
            g = g * settings.max_gradient_norm / norm
        rate = settings.learning_rate * (min(1.0, n / settings.learning_rate_warmup) if warm else 1.0)
        m, v = first * m + (1 - first) * g, second * v + (1 - second) * g * g
        step = (m / (1 - first**n)) / ((v / (1 - second**n)).sqrt() + 1e-8)
        theta = theta - rate * decay * theta + rate * step
        found.append(theta)
    return found


def apart(first, second):
    return max(float((a.double() - b).abs().max()) for a, b in zip(first, second, strict=True))


def test_a_step_is_adamw_of_the_shortened_gradient_uphill(monkeypatch):
    updates, policies, _ = watched(SMALL, monkeypatch)
    gradients = [u.made.gradient for u in updates]
    norms = [float(g.norm()) for g in gradients]
    assert min(norms) < SMALL.max_gradient_norm < max(norms)  # so that both ways are taken
    assert apart(policies, ascended(SMALL, policies, gradients)) < 2e-6
    # The controls: each part of the formula, left out or turned round, is another policy.
    for other in (
        {"sign": -1.0}, {"limit": False}, {"warm": False}, {"betas": (0.9, 0.99)}, {"decay": 0.0},
    ):  # fmt: skip
        assert apart(policies, ascended(SMALL, policies, gradients, **other)) > 1e-4, other


@pytest.mark.parametrize(
    "sampler",
    [Sampler(), Sampler(temperature=1.3, top_k=3), Sampler(weights="bf16"), Sampler(logits="bf16")],
    ids=["plain", "tempered top-k", "rounded weights", "rounded logits"],
)
def test_answers_are_recorded_as_the_sampler_of_an_older_policy_gives_them(sampler, monkeypatch):
    updates, policies, _ = watched(replace(SMALL, sampler=sampler, signal="outcome"), monkeypatch)
    for n, update in enumerate(updates):
        assert update.behaviour.lag == min(n, 3)
        assert torch.equal(update.behaviour.theta, policies[n - min(n, 3)])
        recorded, mask = update.rollout.behaviour_log_probs, update.rollout.mask
        assert float((by_hand(sampler, update) - recorded)[mask].abs().max()) < 2e-5
    if sampler != Sampler():
        # The control: without the sampler these are other numbers.
        assert float((by_hand(Sampler(), updates[-1]) - recorded)[mask].abs().max()) > 1e-4


def by_hand(sampler, update):
    """Log-probabilities of the answers by the whole network on whole sequences, rounded, tempered and cut in turn."""
    theta = update.behaviour.theta
    if sampler.weights == "bf16":
        theta = theta.to(torch.bfloat16).to(theta.dtype)
    answers = update.rollout.answers
    sequences = torch.cat([update.prompts.repeat_interleave(SMALL.answers, 0), answers[:, :-1]], 1)
    raw = logits(SMALL.config, theta, sequences)[:, update.prompts.shape[1] - 1 :].detach()
    if sampler.logits == "bf16":
        raw = raw.to(torch.bfloat16)
    raw = raw.double() / sampler.temperature
    if sampler.top_k is not None:
        least = raw.sort(dim=-1, descending=True).values[..., sampler.top_k - 1 : sampler.top_k]
        raw = torch.where(raw >= least, raw, -torch.inf)
    return raw.log_softmax(-1).gather(2, answers[..., None])[..., 0]


def test_the_old_policy_is_that_of_its_own_staleness(monkeypatch):
    settings = replace(SMALL, weight="decoupled", old_staleness=1, max_gradient_norm=None)
    updates, policies, _ = watched(settings, monkeypatch)
    for n, update in enumerate(updates):
        assert torch.equal(update.behaviour.old_theta, policies[max(n - 1, 0)])
    last = updates[-1]
    assert not torch.equal(last.behaviour.old_theta, last.theta)
    assert not torch.equal(last.behaviour.old_theta, last.behaviour.theta)


def test_prompts_and_answers_depend_on_the_seed_each():
    theta = torch.zeros(3)
    states = [start(replace(SMALL, seed=seed), theta) for seed in (0, 0, 1)]
    for name in ("prompt_generator", "answer_generator"):
        first, again, other = (getattr(state, name).initial_seed() for state in states)
        assert first == again != other
    assert states[0].prompt_generator.initial_seed() != states[0].answer_generator.initial_seed()


@pytest.mark.parametrize("anchor", ["old", "lag"])
def test_exact_moments_along_the_run_know_the_old_policy_and_the_lag(anchor):
    settings = replace(SMALL, weight=f"decoupled(anchor={anchor})", signal="outcome", exact_variance=True)
    base, generator = initial_parameters(settings.config, 0), torch.Generator().manual_seed(0)
    # Far enough from each other for the update's clip to have work.
    theta, mu, old = (base + 0.2 * torch.randn(base.shape, generator=generator) for _ in range(3))
    monitor = Monitor(settings, torch.device("cpu"))
    found = monitor.estimator(theta, Behaviour(mu, settings.sampler, 3, old))

    def expected(old, lag):
        prompts = [
            network_prompt(settings.config, theta, TASK, prompt, behaviour_theta=mu, old_theta=old)
            for prompt in monitor.training
        ]
        return network_moments(prompts, settings.estimator, lag=lag).relative_bias

    assert found["relative_bias"] == pytest.approx(expected(old, 3), rel=1e-9)
    wrong = expected(theta, 3) if anchor == "old" else expected(old, 1)
    assert found["relative_bias"] != pytest.approx(wrong, rel=1e-3)


def test_a_coupling_weight_looks_at_the_whole_update_where_it_is_told_to(monkeypatch):
    settings = replace(SMALL, weight="m2po(budget=0.2)", coupled="update", prompts=4, learning_rate=1e-2, steps=20)
    updates, _, run = watched(settings, monkeypatch)
    weight, differ = theory.weight("m2po", budget=0.2), 0
    for u in updates:
        made, mask = u.made, u.rollout.mask
        whole = weight.coefficients(made.log_ratio, mask, made.signal, batch=len(mask))
        assert torch.equal(made.coefficients, whole)
        differ += not torch.equal(whole, weight.coefficients(made.log_ratio, mask, made.signal, batch=4))
        drawn = batch_gradient(settings.config, u.theta, TASK, settings.estimator, u.prompts, u.rollout, u.behaviour)
        assert torch.equal(drawn.coefficients, weight.coefficients(made.log_ratio, mask, made.signal, batch=4))
    assert differ > 0
    exact = train(replace(settings, exact_every=3))
    assert "coupled='update'" in exact.refused
    assert np.isnan(exact.log["cosine"]).all()
    # The run itself is the same: a refusal to measure changes nothing.
    np.testing.assert_array_equal(exact.log["gradient_norm"], run.log["gradient_norm"])


def test_evaluation_prompts_are_others_after_those_passed_over():
    cpu = torch.device("cpu")
    held_out = [Monitor(replace(SMALL, evaluation_skip=skip, evaluation_prompts=4), cpu).held_out for skip in (0, 4)]
    rows = [{tuple(row) for row in prompts.tolist()} for prompts in held_out]
    assert len(rows[0]) == len(rows[1]) == 4
    assert not rows[0] & rows[1]
    together = Monitor(replace(SMALL, evaluation_prompts=8), cpu).held_out
    assert torch.equal(torch.cat(held_out), together)
    with pytest.raises(ValueError, match=r"evaluation_skip is 10000 and there are \d+ held-out prompts"):
        replace(SMALL, evaluation_skip=10_000)


def test_entropy_beyond_the_threshold_is_a_collapse():
    run = train(replace(SMALL, explosion_entropy=0.01, steps=2))
    assert run.collapsed_at == 0
    assert "above 0.01" in run.collapse
    assert run.updates == 2
    assert train(replace(SMALL, steps=2)).collapsed_at is None  # the control


def test_the_sampled_divergence_is_the_mean_of_k3(monkeypatch):
    updates, _, run = watched(SMALL, monkeypatch)
    for n, u in enumerate(updates):
        logs = u.made.log_ratio[u.rollout.mask].tolist()
        assert run.log["kl_sampled"][n] == pytest.approx(np.mean([math.exp(x) - 1 - x for x in logs]), rel=1e-9)
    assert run.log["kl_sampled"][0] == pytest.approx(0.0, abs=1e-9)  # the rollouts of the first update are its own
    assert run.log["kl_sampled"][-2] > 1e-6
    assert set(of_update(SMALL.estimator, updates[0].made, updates[0].rollout.mask)) < set(run.log)


def test_rollouts_older_than_the_run_are_those_of_the_base_model(monkeypatch):
    updates, policies, run = watched(replace(SMALL, staleness=10**12), monkeypatch)
    assert all(torch.equal(u.behaviour.theta, policies[0]) for u in updates)
    assert [u.behaviour.lag for u in updates] == list(range(SMALL.steps))
    np.testing.assert_array_equal(run.log["reward"], train(replace(SMALL, staleness=SMALL.steps)).log["reward"])


def test_betas_may_be_whole_numbers():
    assert train(replace(SMALL, betas=(0, 0), steps=2)).updates == 2


def test_nothing_is_known_of_a_policy_that_is_not_a_number():
    monitor = Monitor(SMALL, torch.device("cpu"))
    theta = initial_parameters(SMALL.config, 0)
    row = monitor.policy(torch.full_like(theta, torch.nan), Behaviour(theta))
    assert all(math.isnan(row[name]) for name in ("accuracy", "greedy_accuracy", "pass_at_8", "entropy", "ess"))
    assert all(math.isfinite(value) for value in monitor.policy(theta, Behaviour(theta)).values())  # the control


def test_the_warm_up_is_by_default_that_of_the_task():
    assert Training().warm_up == WarmUp()
    assert Training(task=TASK).warm_up.measured_on == "training"
    given = Training.from_plain({"task": {"digits": 1}, "warm_up": {"accuracy": 0.3}})
    assert given.warm_up == WarmUp(accuracy=0.3)
    assert Training.from_plain(Training(task=TASK).plain) == Training(task=TASK)
