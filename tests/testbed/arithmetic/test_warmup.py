"""The base model: right as often as it says, the same from the same seed, kept by content."""

import dataclasses

import numpy as np
import pytest
import torch

from testbed.arithmetic import caching, warmup
from testbed.arithmetic.caching import base_model, content_key
from testbed.arithmetic.doors import sample_answers
from testbed.arithmetic.model import ModelConfig, initial_parameters, model_for
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.splitting import split
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.verifier import rewards
from testbed.arithmetic.warmup import WarmUp, accuracy, warm_up, warm_up_for

TASK = ArithmeticTask()
TINY = ArithmeticTask(digits=1, reversed_answers=True)
TINY_MODEL = ModelConfig(context=6, layers=1, width=16)
TINY_WARM_UP = WarmUp(accuracy=0.2, measured_on="training", batch=32, check_every=2)


# One of every kind that base models are made of by default; those of three digits take minutes.
KINDS = [
    TASK, ArithmeticTask(reversed_answers=True), ArithmeticTask("modular_addition", modulus=97),
    ArithmeticTask("modular_addition", modulus=20), ArithmeticTask("multiplication"), ArithmeticTask(digits=1),
    ArithmeticTask("multiplication", digits=1), TINY, ArithmeticTask("modular_addition", digits=1, modulus=7),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def base(folder):
    return base_model(TASK, folder=folder)


@pytest.mark.parametrize("task", KINDS, ids=lambda t: f"{t.operation} {t.digits} {t.modulus} {t.reversed_answers}")
def test_the_base_model_is_right_in_20_to_60_per_cent_of_answers(task, folder):
    """To the prompts that its warm-up looks at: the held-out ones, but for tasks that are learnt by heart."""
    settings = warm_up_for(task)
    found = base_model(task, folder=folder)
    reached = getattr(found, settings.measured_on)
    assert 0.2 < reached.sampled < 0.6
    assert reached.sampled < reached.greedy
    assert found.config == model_for(task)
    assert settings.measured_on == ("held_out" if task in KINDS[:3] else "training")
    # The control: before it, it is right by chance alone.
    untrained = initial_parameters(found.config, settings.seed)
    assert accuracy(task, found.config, untrained, getattr(split(task), settings.measured_on)).sampled < 0.05


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("task", KINDS[5:], ids=lambda t: f"{t.operation} {t.digits} {t.modulus} {t.reversed_answers}")
def test_so_it_is_from_other_seeds(task, seed):
    """What is learnt within a few dozen updates is looked at after each."""
    found = warm_up(task, model_for(task), dataclasses.replace(warm_up_for(task), seed=seed))
    assert 0.35 < found.training.sampled < 0.55


def test_the_default_of_two_digit_addition_is_the_plain_warm_up():
    """Recorded results began with it."""
    for task in (TASK, ArithmeticTask(digits=3), ArithmeticTask("modular_addition", modulus=97)):
        assert warm_up_for(task) == WarmUp()
    assert warm_up_for(ArithmeticTask("multiplication", digits=3)) == WarmUp(accuracy=0.005)


def test_of_many_prompts_some_are_measured(monkeypatch):
    monkeypatch.setattr(warmup, "MOST_MEASURED", 30)
    found = warm_up(TINY, TINY_MODEL, TINY_WARM_UP)
    prompts = split(TINY).training
    assert (found.training.prompts, found.held_out.prompts) == (30, 20)
    some = warmup._some(prompts)
    assert len(some.unique(dim=0)) == 30
    assert not torch.equal(some.unique(dim=0), prompts[:30])  # they are sorted, and the first ones are alike
    assert accuracy(TINY, TINY_MODEL, found.theta, some) == found.training
    assert accuracy(TINY, TINY_MODEL, found.theta, prompts).sampled != found.training.sampled
    monkeypatch.setattr(warmup, "MOST_MEASURED", 80)
    assert torch.equal(warmup._some(prompts), prompts)


def test_accuracies_are_those_of_sampled_and_greedy_answers(base):
    prompts = split(TASK).held_out
    generator = torch.Generator().manual_seed(0)
    answers = sample_answers(base.config, base.theta, prompts, 4, per_prompt=5, generator=generator).answers
    paid = rewards(TASK, prompts.repeat_interleave(5, 0), answers)
    by_prompt = paid.view(-1, 5).mean(1)
    # The prompts are all there are, so that only the answers vary.
    within = float(paid.view(-1, 5).var(1).mean() / 5 / len(prompts)) ** 0.5
    # Two false alarms in a million.
    assert abs(float(by_prompt.mean()) - base.held_out.sampled) < 4.8 * within
    assert abs(float(by_prompt.mean()) - base.held_out.greedy) > 4.8 * within
    greedy = sample_answers(base.config, base.theta, prompts, 4, sampler=Sampler(temperature=0.0)).answers
    assert float(rewards(TASK, prompts, greedy).mean()) == pytest.approx(base.held_out.greedy, abs=1e-3)


def test_accuracy_does_not_depend_on_the_chunks(base):
    some = split(TASK).held_out[:100]
    whole, parts = (accuracy(TASK, base.config, base.theta, some, chunk=n) for n in (100, 7))
    np.testing.assert_allclose(whole, parts, rtol=1e-5)


def test_the_same_seed_gives_the_same_model():
    first, second = (warm_up(TINY, TINY_MODEL, TINY_WARM_UP) for _ in range(2))
    assert torch.equal(first.theta, second.theta)
    assert (first.steps, first.held_out) == (second.steps, second.held_out)
    other = warm_up(TINY, TINY_MODEL, dataclasses.replace(TINY_WARM_UP, seed=1))
    assert not torch.equal(first.theta, other.theta)
    assert first.training.sampled > 0.15
    untrained = accuracy(TINY, TINY_MODEL, initial_parameters(TINY_MODEL, 0), split(TINY).training)
    assert untrained.sampled < 0.05


def test_what_was_warmed_up_is_found_again(tmp_path, monkeypatch):
    made = base_model(TINY, TINY_MODEL, TINY_WARM_UP, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(caching, "warm_up", None)
    found = base_model(TINY, TINY_MODEL, TINY_WARM_UP, folder=tmp_path)
    assert torch.equal(found.theta, made.theta)
    assert (found.config, found.held_out, found.training, found.steps) == (
        made.config, made.held_out, made.training, made.steps,
    )  # fmt: skip
    assert type(found.training.prompts) is int
    with pytest.raises(TypeError):  # the control: anything else would have to be made
        base_model(TINY, TINY_MODEL, dataclasses.replace(TINY_WARM_UP, seed=1), folder=tmp_path)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(TypeError):
        base_model(TINY, TINY_MODEL, TINY_WARM_UP, folder=tmp_path)


def test_a_damaged_file_is_made_again_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / f"{content_key(TINY, TINY_MODEL, TINY_WARM_UP)}.npz"
    path.write_bytes(b"not an archive")
    made = base_model(TINY, TINY_MODEL, TINY_WARM_UP, folder=tmp_path)
    assert torch.equal(base_model(TINY, TINY_MODEL, TINY_WARM_UP, folder=tmp_path).theta, made.theta)

    def torn(source, destination):
        raise OSError("no space")

    monkeypatch.setattr(caching.os, "replace", torn)
    empty = tmp_path / "empty"
    with pytest.raises(OSError, match="no space"):
        base_model(TINY, TINY_MODEL, TINY_WARM_UP, folder=empty)
    assert list(empty.iterdir()) == []


def test_the_key_is_of_everything_that_decides_and_of_nothing_else(monkeypatch):
    config, settings = model_for(TASK), WarmUp()
    key = content_key(TASK, config, settings)
    assert content_key(ArithmeticTask(per_digit_credit=True), config, settings) == key
    others = [
        content_key(dataclasses.replace(TASK, **{n: v}), config, settings) for n, v in [("slack", 1), ("digits", 1)]
    ]
    others += [content_key(TASK, dataclasses.replace(config, heads=4), settings)]
    others += [content_key(TASK, config, dataclasses.replace(settings, seed=1))]
    with monkeypatch.context() as changed:
        changed.setattr(caching, "_code", lambda: "other code")
        others += [content_key(TASK, config, settings)]
    with monkeypatch.context() as changed:
        changed.setattr(torch, "__version__", "0.1")
        others += [content_key(TASK, config, settings)]
    assert len({key, *others}) == 7
    assert content_key(TASK, config, settings) == key


def test_the_code_is_all_that_a_warm_up_runs(monkeypatch):
    whole = caching._code()
    caching._code.cache_clear()
    for module in caching._DECIDING:
        monkeypatch.setattr(caching, "_DECIDING", tuple(m for m in caching._DECIDING if m is not module))
        assert caching._code() != whole
        caching._code.cache_clear()
        monkeypatch.undo()
    assert {module.__name__.rpartition(".")[2] for module in caching._DECIDING} == {
        "model", "splitting", "task", "vocabulary", "warmup"
    }  # fmt: skip
    assert caching._code() == whole


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("OFFPOLICY_TESTBED_CACHE", str(tmp_path))
    assert caching.cache_folder() == tmp_path
    monkeypatch.delenv("OFFPOLICY_TESTBED_CACHE")
    assert caching.cache_folder().name == "offpolicy-testbed"


def test_an_accuracy_out_of_reach_is_an_error():
    with pytest.raises(ValueError, match=r"expected to reach 0\.9"):
        warm_up(TINY, TINY_MODEL, WarmUp(accuracy=0.9, steps=10))
    with pytest.raises(ValueError, match=r"accuracy is 1\.5"):
        WarmUp(accuracy=1.5)
    with pytest.raises(ValueError, match="nearest known name is 'held_out'"):
        WarmUp(measured_on="heldout")
