"""A run: which policy its answers come from, what a kill costs, when it counts as collapsed, what is logged."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import theory
from testbed.arithmetic import ArithmeticTask, Sampler, WarmUp, base_model, evaluate, network_prompt, split
from testbed.arithmetic.training import Training, read_run, running, train
from testbed.arithmetic.training import gradient as gradients
from testbed.arithmetic.training.measuring import Monitor, columns, of_update
from testbed.arithmetic.training.state import start

TASK = ArithmeticTask("modular_addition", digits=1, modulus=7)
WARM_UP = WarmUp(accuracy=0.3, measured_on="training", steps=400)
SMALL = Training(
    task=TASK, warm_up=WARM_UP, width=16, layers=1, prompts=2, answers=4, signal="group(size=4)", steps=12,
    staleness=3, evaluate_every=4, evaluation_prompts=8, tree_prompts=3, exact_prompts=2, learning_rate=3e-3,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    before = os.environ.get("OFFPOLICY_TESTBED_CACHE")
    os.environ["OFFPOLICY_TESTBED_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["OFFPOLICY_TESTBED_CACHE"]
    else:
        os.environ["OFFPOLICY_TESTBED_CACHE"] = before


def same(a, b):
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in a) and list(a) == list(b)


def test_answers_come_from_the_policy_of_k_updates_ago(monkeypatch):
    seen, made = [], running.batch_gradient

    def watched(config, theta, task, estimator, prompts, rollout, behaviour):
        seen.append((theta.detach().clone(), behaviour.theta.clone(), behaviour.lag, rollout))
        return made(config, theta, task, estimator, prompts, rollout, behaviour)

    monkeypatch.setattr(running, "batch_gradient", watched)
    run = train(SMALL)
    policies = [theta for theta, *_ in seen]
    assert len(policies) == SMALL.steps
    for n, (_, behaviour, lag, rollout) in enumerate(seen):
        ago = min(n, SMALL.staleness)
        assert lag == ago
        assert torch.equal(behaviour, policies[n - ago])
        # And they were really sampled from it: the log-probabilities on record are its own.
        prompts = _prompts(SMALL, n)
        own = gradients.answer_logits(SMALL.config, behaviour, prompts, rollout.answers).double().log_softmax(-1)
        own = own.gather(2, rollout.answers[..., None])[..., 0]
        torch.testing.assert_close(rollout.behaviour_log_probs, torch.where(rollout.mask, own, 0.0), rtol=0, atol=1e-5)
    assert not torch.equal(policies[-1], policies[-1 - SMALL.staleness])  # negative control: they differ
    assert np.all(run.log["kl_behaviour_policy"][[0]] < 1e-12)
    assert run.log["kl_behaviour_policy"][8] > 1e-6


def _prompts(settings, update):
    generator = start(settings, torch.zeros(1)).prompt_generator
    training = split(settings.task).training
    for _ in range(update + 1):
        rows = torch.randint(len(training), (settings.prompts,), generator=generator)
    return training[rows]


def test_equal_settings_give_equal_runs_and_another_seed_another():
    one, two = train(SMALL), train(SMALL)
    assert same(one.log, two.log)
    assert torch.equal(one.theta, two.theta)
    other = train(replace(SMALL, seed=1))
    assert not same(one.log, other.log)


def test_runs_of_one_seed_see_the_same_prompts_whatever_is_trained(monkeypatch):
    seen, made = [], running.batch_gradient

    def watched(config, theta, task, estimator, prompts, rollout, behaviour):
        seen.append(prompts)
        return made(config, theta, task, estimator, prompts, rollout, behaviour)

    monkeypatch.setattr(running, "batch_gradient", watched)
    train(replace(SMALL, weight="minpro"))
    train(replace(SMALL, weight="none", learning_rate=1e-2, staleness=0))
    train(replace(SMALL, seed=5))
    n = SMALL.steps
    assert all(torch.equal(a, b) for a, b in zip(seen[:n], seen[n : 2 * n], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[:n], seen[2 * n :], strict=True))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 5, 9])
def test_a_run_that_is_cut_comes_out_the_same(at, tmp_path):
    whole = train(SMALL)

    updates, made = [], running.batch_gradient

    def failing(*arguments):
        updates.append(1)
        if len(updates) > at:
            raise KilledError
        return made(*arguments)

    running.batch_gradient = failing
    try:
        with pytest.raises(KilledError):
            train(SMALL, folder=tmp_path, checkpoint_every=2)
    finally:
        running.batch_gradient = made
    assert not (tmp_path / "run.json").exists()
    resumed = train(SMALL, folder=tmp_path, checkpoint_every=2)
    assert same(whole.log, resumed.log)
    assert torch.equal(whole.theta, resumed.theta)
    read = read_run(tmp_path)
    assert same(whole.log, read.log)
    assert read.settings == SMALL
    assert torch.equal(read.theta, whole.theta)


def test_a_killed_process_goes_on(tmp_path):
    """A real kill -9, in the middle of a run of its own process."""
    settings = replace(SMALL, steps=60)
    (tmp_path / "settings.json").write_text(json.dumps(settings.plain))
    code = (
        "import json, sys, pathlib, time, torch\n"
        "torch.set_num_threads(1)\n"
        "from testbed.arithmetic.training import Training, train\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "settings = Training.from_plain(json.loads((folder / 'settings.json').read_text()))\n"
        "train(settings, folder=folder, checkpoint_every=10, progress=lambda done, total: time.sleep(0.3))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "checkpoint.npz").exists():
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "run.json").exists()
    resumed, whole = train(settings, folder=tmp_path), train(settings)
    assert same(resumed.log, whole.log)
    assert torch.equal(resumed.theta, whole.theta)


def test_a_folder_of_other_settings_is_refused(tmp_path):
    train(SMALL, folder=tmp_path)
    with pytest.raises(ValueError, match=r"holds a run with staleness=3; got staleness=0"):
        train(replace(SMALL, staleness=0), folder=tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(SMALL, folder=tmp_path)
    (tmp_path / "checkpoint.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no checkpoint of this run"):
        train(SMALL, folder=tmp_path)


def test_a_run_without_an_end_is_not_read(tmp_path):
    with pytest.raises(ValueError, match=r"has no settings.json"):
        read_run(tmp_path)


def test_a_collapse_is_recorded_and_the_run_goes_on():
    run = train(replace(SMALL, learning_rate=1.0, learning_rate_warmup=0, max_gradient_norm=None, steps=20))
    rewards = run.log["expected_reward"]
    seen = [n for n in range(len(rewards)) if rewards[n] < 0.5 * rewards[0]]
    assert run.collapsed_at == seen[0]
    assert "expected reward" in run.collapse
    assert len(rewards) == 21
    # Negative control: a run that learns gently has not.
    assert train(replace(SMALL, learning_rate=1e-4)).collapsed_at is None


def test_a_policy_without_entropy_has_collapsed_unless_it_is_right():
    settings = replace(SMALL, steps=1, collapse_entropy=100.0, collapse_reward=0.0)
    run = train(settings)
    assert run.collapsed_at == 0
    assert "entropy" in run.collapse


def test_an_update_that_is_no_number_ends_the_run(monkeypatch, tmp_path):
    made = running.batch_gradient

    def broken(*arguments):
        found = made(*arguments)
        calls.append(1)
        return found._replace(gradient=found.gradient * float("nan")) if len(calls) == 4 else found

    calls = []
    monkeypatch.setattr(running, "batch_gradient", broken)
    run = train(SMALL, folder=tmp_path)
    assert run.collapsed_at == 3
    assert "not finite" in run.collapse
    assert torch.isfinite(run.theta).all()
    assert len(run.log["step"]) == 4
    assert read_run(tmp_path).collapsed_at == 3


def test_the_exact_columns_are_those_of_the_exact_functions():
    run = train(replace(SMALL, exact_every=6, exact_variance=True))
    assert list(run.log) == list(columns(SMALL))
    monitor = Monitor(SMALL, torch.device("cpu"))
    found = evaluate(SMALL.config, run.theta, TASK, monitor.held_out)
    last = {name: values[-1] for name, values in run.log.items()}
    assert last["expected_reward"] == pytest.approx(found.expected_reward, rel=1e-5)
    assert last["pass_at_8"] == pytest.approx(found.pass_at[8], rel=1e-5)
    assert last["greedy_accuracy"] == found.greedy_accuracy
    trees = evaluate(SMALL.config, run.theta, TASK, monitor.trees)
    assert last["entropy"] == pytest.approx(trees.entropy, rel=1e-4)
    measured = np.flatnonzero(~np.isnan(run.log["cosine"])).tolist()
    assert measured == [0, 6, 12]
    assert run.log["relative_standard_deviation"][0] > 0.0
    # On-policy, the token ratio with a group's mean and deviation points nearly along the gradient.
    assert run.log["cosine"][0] > 0.9


def test_divergences_on_the_log_are_those_of_theory():
    settings = replace(SMALL, sampler=Sampler(temperature=1.5))
    monitor = Monitor(settings, torch.device("cpu"))
    base = base_model(TASK, settings.config, WARM_UP).theta
    other = base + 0.05 * torch.randn(base.shape, generator=torch.Generator().manual_seed(0))
    row = monitor.policy(other, gradients.Behaviour(base, settings.sampler))
    found = []
    for prompt in monitor.trees:
        p = network_prompt(settings.config, other, TASK, prompt, behaviour_theta=base, sampler=settings.sampler)
        found.append(theory.divergences(p.tree.process, p.target, p.behaviour))
    sequences = [d.sequence for d in found]
    kl = sum(d.kl_behaviour_target for d in sequences) / sum(d.expected_length for d in found)
    assert row["kl_behaviour_policy"] == pytest.approx(kl, rel=1e-4)
    assert row["ess"] == pytest.approx(np.mean([d.effective_sample_size for d in sequences]), rel=1e-4)
    # Negative control: the other direction is another number.
    assert row["kl_policy_behaviour"] != pytest.approx(kl, rel=1e-2)


def test_clips_and_floors_are_counted():
    """By hand on one row: ratios 0.5, 1, 2 under MinPRO's clip, whose product before the clip is 0.5, 0.5, 1."""
    estimator = replace(SMALL, weight="minpro(clip=(0.8, 1.28))").estimator
    log_ratio = torch.tensor([[0.5, 1.0, 2.0], [1.0, 3.0, 1.0]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    psi = torch.ones_like(log_ratio)
    c = estimator.weight.coefficients(log_ratio, mask, psi)
    made = gradients.BatchGradient(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]), log_ratio, c, psi)
    row = of_update(estimator, made, mask)
    assert row["floor_fraction"] == pytest.approx(2 / 5)
    assert row["ceiling_fraction"] == pytest.approx(1 / 5)
    assert row["clip_fraction"] == pytest.approx(3 / 5)
    assert (row["floor_1"], row["floor_2"], row["floor_3"]) == (0.5, 0.5, 0.0)
    assert row["zero_fraction"] == 0.0
    assert (row["gradient_norm"], row["reward"], row["length"]) == (5.0, 0.5, 2.5)
    assert (row["ratio_min"], row["ratio_q50"], row["ratio_max"]) == pytest.approx((0.5, 1.0, 3.0))


def test_with_credit_per_digit_wrong_answers_earn_something_too():
    task = replace(TASK, per_digit_credit=True, slack=1)
    settings = replace(SMALL, task=task, steps=2, evaluate_every=1, tree_prompts=8)
    run = train(settings)
    trees = evaluate(settings.config, run.theta, task, Monitor(settings, torch.device("cpu")).trees)
    assert run.log["expected_reward"][-1] == pytest.approx(trees.expected_reward, rel=1e-5)
    assert run.log["expected_reward"][-1] > run.log["accuracy"][-1]


def test_answers_too_long_for_trees_are_trained_on_all_the_same():
    settings = replace(SMALL, task=replace(TASK, per_digit_credit=True, slack=6), tree_prompts=0, steps=4)
    run = train(settings)
    assert np.isnan(run.log["entropy"]).all()
    assert np.isnan(run.log["expected_reward"]).all()
    assert not np.isnan(run.log["accuracy"][[0, 4]]).any()
    # Negative control: with trees it is refused, in a sentence.
    with pytest.raises(ValueError, match="answers of up to 8 tokens have 11111111 prefixes, more than the 20000"):
        replace(settings, tree_prompts=1)


def test_an_estimator_that_no_exact_engine_takes_is_trained_all_the_same(tmp_path):
    settings = replace(SMALL, weight="m2po", exact_every=4, signal="group(size=4)", steps=4)
    run = train(settings, folder=tmp_path)
    assert "m2po" in run.refused
    assert np.isnan(run.log["cosine"]).all()
    assert read_run(tmp_path).refused == run.refused
    assert train(replace(SMALL, exact_every=4, steps=4)).refused is None  # negative control
