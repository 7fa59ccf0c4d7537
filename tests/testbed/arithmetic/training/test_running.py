"""A run: which policy its answers come from, what a kill costs, when it counts as collapsed, what is logged."""

import itertools
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
from testbed.arithmetic.training.measuring import CLIPPED_PRODUCTS, Monitor, columns, of_update
from testbed.arithmetic.training.state import start
from testbed.arithmetic.verifier import rewards
from testbed.sweep.journal import locked
from theory.weights.products import product
from theory.weights.tokens import tokens_of

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

    def watched(config, theta, task, estimator, prompts, rollout, behaviour, **options):
        seen.append((theta.detach().clone(), behaviour.theta.clone(), behaviour.lag, rollout))
        return made(config, theta, task, estimator, prompts, rollout, behaviour, **options)

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

    def watched(config, theta, task, estimator, prompts, rollout, behaviour, **options):
        seen.append(prompts)
        return made(config, theta, task, estimator, prompts, rollout, behaviour, **options)

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

    def failing(*arguments, **options):
        updates.append(1)
        if len(updates) > at:
            raise KilledError
        return made(*arguments, **options)

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
    (tmp_path / "plain.json").write_text(json.dumps(settings.plain))
    code = (
        "import json, sys, pathlib, time, torch\n"
        "torch.set_num_threads(1)\n"
        "from testbed.arithmetic.training import Training, train\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "settings = Training.from_plain(json.loads((folder / 'plain.json').read_text()))\n"
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
    with pytest.raises(ValueError, match=r"holds a run with staleness=3; got staleness=0, expected another folder"):
        train(replace(SMALL, staleness=0), folder=tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(SMALL, folder=tmp_path)
    (tmp_path / "checkpoint.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no checkpoint of this run"):
        train(SMALL, folder=tmp_path)


def test_a_run_without_an_end_is_not_read(tmp_path):
    with pytest.raises(ValueError, match=r"has no run.json"):
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
    state = start(SMALL, torch.zeros(1))
    for reward, collapsed in ((0.94, 0), (0.96, None)):
        state.collapsed_at = None
        row = {"accuracy": reward, "expected_reward": reward, "entropy": 0.0}
        state.rows = [row]
        running._look(SMALL, state, row)
        assert state.collapsed_at == collapsed


@pytest.mark.parametrize("rate", [1e4, 1e6, 1e30])
@pytest.mark.parametrize("changed", [{}, {"exact_every": 2}, {"steps": 1}, {"staleness": 0}, {"evaluate_every": 50}])
def test_a_network_that_runs_away_is_recorded_whatever_becomes_of_it(rate, changed, tmp_path):
    settings = replace(SMALL, learning_rate=rate, learning_rate_warmup=0, evaluate_every=1, staleness=1, steps=12)
    settings = replace(settings, **changed)
    run = train(settings, folder=tmp_path)
    # After a single update the policy may be a number, and no worse than the base model of so small a task.
    tame = settings.steps == 1 and np.isfinite([run.log["accuracy"][-1], run.log["entropy"][-1]]).all()
    assert run.collapsed_at is not None or tame
    assert run.updates == len(run.log["step"]) - 1
    last = {name: values[-1] for name, values in run.log.items()}
    if run.stopped is not None:
        assert run.updates <= settings.steps
        assert "not finite" in run.stopped or "not a number" in run.stopped
    else:
        assert run.updates == settings.steps
        assert np.isfinite(last["accuracy"])
    assert read_run(tmp_path).stopped == run.stopped


def test_an_update_that_is_no_number_ends_the_run(monkeypatch, tmp_path):
    made = running.batch_gradient

    def broken(*arguments, **options):
        found = made(*arguments, **options)
        calls.append(1)
        return found._replace(gradient=found.gradient * float("nan")) if len(calls) == 4 else found

    calls = []
    monkeypatch.setattr(running, "batch_gradient", broken)
    run = train(SMALL, folder=tmp_path)
    assert run.collapsed_at == 3
    assert "not finite" in run.collapse
    assert torch.isfinite(run.theta).all()
    assert (len(run.log["step"]), run.updates) == (4, 3)
    assert np.isfinite(run.log["accuracy"][-1])  # the last row is of the final policy
    assert "no further update" in run.stopped
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


def test_two_runs_do_not_share_a_folder(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="another run is writing to"):
        train(SMALL, folder=tmp_path)
    train(SMALL, folder=tmp_path)  # negative control: once it is free


def test_a_run_of_other_code_or_another_device_is_refused(tmp_path):
    train(SMALL, folder=tmp_path)
    path = tmp_path / "settings.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "code": "other"}))
    with pytest.raises(ValueError, match="that other code, or another PyTorch, has begun"):
        train(SMALL, folder=tmp_path)
    path.write_text(json.dumps({**found, "device": "cuda"}))
    with pytest.raises(ValueError, match="holds a run on device 'cuda'; got 'cpu'"):
        train(SMALL, folder=tmp_path)
    for garbage in ("[1]", "{", '{"device": 1}'):
        path.write_text(garbage)
        with pytest.raises(ValueError, match=r"settings.json' is damaged"):
            train(SMALL, folder=tmp_path)


OFF_POLICY = replace(
    SMALL, weight="minpro(clip=(0.8, 1.28))", signal="outcome(baseline=0.3)", reduction="length_mean",
    sampler=Sampler(temperature=1.3), exact_every=6, exact_variance=True,
)  # fmt: skip


def test_bias_and_variance_on_the_log_are_those_of_every_answer_by_autograd():
    """The estimator of one answer at a time, weighed by its chance: no engine of theory, no tree."""
    seen, made = [], Monitor.estimator

    def watched(self, theta, behaviour):
        seen.append((theta.clone(), behaviour._replace(theta=behaviour.theta.clone())))
        return made(self, theta, behaviour)

    Monitor.estimator = watched
    try:
        run = train(OFF_POLICY)
    finally:
        Monitor.estimator = made
    theta, behaviour = seen[1]
    assert behaviour.lag == 3
    expected = by_hand(OFF_POLICY, theta, behaviour)
    for name, value in expected.items():
        assert run.log[name][6] == pytest.approx(value, rel=1e-4), name
    # Negative control: another policy behind the answers is another number.
    other = by_hand(OFF_POLICY, theta, behaviour._replace(theta=theta))
    assert other["relative_bias"] != pytest.approx(expected["relative_bias"], rel=1e-2)


def by_hand(settings, theta, behaviour):
    T = TASK.maximum_length
    answers = torch.tensor(
        [a for a in itertools.product(range(11), repeat=T) if 10 not in a or set(a[a.index(10) :]) == {10}]
    )
    mask = (answers == 10).long().cumsum(1) - (answers == 10).long() == 0
    means, seconds, truths = [], [], []
    for prompt in Monitor(settings, torch.device("cpu")).training:
        leaf = theta.double().requires_grad_()
        log_pi = gradients.answer_logits(settings.config, leaf, prompt[None], answers).log_softmax(-1)
        log_pi = log_pi.gather(2, answers[..., None])[..., 0]
        raw = gradients.answer_logits(settings.config, behaviour.theta.double(), prompt[None], answers).detach()
        log_mu = (raw / settings.sampler.temperature).log_softmax(-1).gather(2, answers[..., None])[..., 0]
        ratio = (log_pi.detach() - log_mu).exp()
        earned = rewards(TASK, prompt.expand(len(answers), -1), answers)
        values = []
        for i in range(len(answers)):
            smallest, total, length = 1.0, 0.0, int(mask[i].sum())
            for t in range(length):
                c = min(max(smallest * float(ratio[i, t]), 0.8), 1.28)
                total = total + c * (float(earned[i]) - 0.3) * log_pi[i, t] / length
                smallest = float(ratio[i, t]) if t == 0 else min(smallest, float(ratio[i, t]))
            values.append(torch.autograd.grad(total, leaf, retain_graph=True)[0])
        chance = torch.where(mask, log_mu, 0.0).sum(1).exp()
        g = torch.stack(values)
        means.append(chance @ g)
        seconds.append(chance @ (g * g).sum(1))
        expected = (torch.where(mask, log_pi, 0.0).sum(1).exp() * earned).sum()
        truths.append(torch.autograd.grad(expected, leaf)[0])
    mean, truth = sum(means) / len(means), sum(truths) / len(truths)
    norm, variance = truth.norm(), sum(seconds) / len(seconds) - mean @ mean
    return {
        "relative_bias": float((mean - truth).norm() / norm),
        "cosine": float(mean @ truth / mean.norm() / norm),
        "effective_step": float(mean.norm() / norm),
        "relative_standard_deviation": float(variance.sqrt() / norm),
    }


def test_bounds_are_counted_of_weights_whose_clip_bounds_their_product():
    """For each of them, by its own coefficients: inside the bounds the product, outside another number."""
    generator = torch.Generator().manual_seed(0)
    log_ratio = torch.randn((400, 3), generator=generator, dtype=torch.float64)
    psi = torch.randn((400, 1), generator=generator, dtype=torch.float64).expand(-1, 3)
    cards = theory.weight_cards().items()
    # Of a weight that couples a batch the bounds move with the batch.
    names = [name for name, card in cards if "clip" in theory.weight(name).options and not card.couples_batch]

    def bounds_its_product(name):
        weight = theory.weight(name, clip=(0.8, 1.28))
        before = product(tokens_of(log_ratio, None, None, {}, None, needs_advantage=False, name=name), weight.parts)
        c = weight.coefficients(log_ratio, None, psi)
        inside, beyond = (before >= 0.8) & (before <= 1.28), (before < 0.8) & (psi < 0) | (before > 1.28) & (psi > 0)
        same = torch.isclose(c, before, rtol=1e-9, atol=0.0)
        return bool(same[inside].all()) and not bool(same[beyond].any())

    assert set(CLIPPED_PRODUCTS) <= set(names)
    assert [name for name in names if bounds_its_product(name)] == sorted(CLIPPED_PRODUCTS)


def test_lost_mass_is_on_the_log():
    settings = replace(SMALL, sampler=Sampler(top_k=2), signal="outcome", steps=4, staleness=0)
    run = train(settings)
    monitor, base = Monitor(settings, torch.device("cpu")), base_model(TASK, settings.config, WARM_UP).theta
    lost = []
    for prompt in monitor.trees:
        p = network_prompt(settings.config, base, TASK, prompt, behaviour_theta=base, sampler=settings.sampler)
        found = theory.divergences(p.tree.process, p.target, p.behaviour)
        lost.append(found.sequence.lost_mass)
    assert run.log["lost_mass"][0] == pytest.approx(np.mean(lost), rel=1e-5)
    assert run.log["lost_mass"][0] > 0.01
    assert train(SMALL).log["lost_mass"][0] < 1e-12
