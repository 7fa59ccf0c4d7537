"""Settings of experiments: plain data, fair by construction."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from testbed.arithmetic.experiment import Experiment, LengthStudy, Method, packaged_experiment
from testbed.arithmetic.experiment.settings import PACKAGED
from testbed.arithmetic.experiment.tasks import final_tasks, length_tasks, task_count, tuning_tasks
from testbed.arithmetic.training import Training
from tests.testbed.arithmetic.experiment.fake import RUNS, SMALL


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_experiments_are_fair_and_can_be_trained(name):
    experiment = packaged_experiment(name)
    for one in (experiment, experiment.quick()):
        # As many tuning runs for each.
        runs = Counter((task.name, task.training["staleness"]) for task in tuning_tasks(one))
        assert len(runs) == len(one.methods) * len(one.staleness)
        assert len({*runs.values()}) == 1
        assert not {*one.tuning_seeds} & {*one.final_seeds}
        some = {(m.name, k): m.configurations[0] for m in one.methods for k in one.staleness}
        for task in [*tuning_tasks(one), *final_tasks(one, some), *length_tasks(one)]:
            Training.from_plain(task.training)
    assert len(experiment.final_seeds) >= 8
    # Every method has the same learning rates, and its results are on prompts that nothing was chosen by.
    assert len({m.learning_rates for m in experiment.methods}) == 1
    tuned, final = (Training.from_plain({**experiment.training, **more}) for more in ({}, experiment.final_training))
    assert final.evaluation_skip >= tuned.evaluation_prompts
    assert len(experiment.quick().methods) == len(experiment.quick().staleness) == 2
    assert task_count(experiment.quick()) < 25


def test_tuning_runs_are_dealt_evenly():
    few = Method("few", ("none",), (1e-4, 3e-4))
    dealt = replace(SMALL, methods=(*SMALL.methods, few))
    assert dealt.tuning_seeds_of(few) == (100, 101)
    assert dealt.tuning_seeds_of(SMALL.methods[0]) == (100,)
    runs = Counter(task.name for task in tuning_tasks(dealt))
    assert {*runs.values()} == {2 * 4}  # staleness x runs
    uneven = Method("uneven", ("none",), (1e-4, 2e-4, 3e-4))
    with pytest.raises(ValueError, match="method 'MinPRO' has 4 configurations for 6 tuning runs; expected a number"):
        replace(SMALL, methods=(*SMALL.methods, uneven))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_seeds": (101, 102)}, "seed 101 is in tuning_seeds and in final_seeds"),
        ({"references": ("grpo",)}, r"unknown method 'grpo' of references .*known: GRPO, MinPRO"),
        ({"methods": (SMALL.methods[0], SMALL.methods[0])}, "methods has 'MinPRO' twice"),
        ({"methods": ()}, "methods is an empty list"),
        ({"methods": ({"name": "x", "weight": ["none"]},)}, "unknown key 'weight' of methods; .* 'weights'"),
        ({"staleness": (4, 4)}, "staleness has 4 twice"),
        ({"staleness": (-1,)}, "staleness has -1; expected whole numbers >= 0"),
        ({"training": {"seed": 3}}, "training has the key 'seed'"),
        ({"final_training": {"steps": 3}}, "unknown measure 'steps' of final_training"),
        ({"name": ".."}, "name is '..'; expected letters"),
        ({"length": {"tasks": {}}}, "tasks of length is {}"),
    ],
)
def test_mistakes_are_named_as_in_the_file(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": ("minpr",)}, "weights of method 'm': unknown weight 'minpr'"),
        ({"weights": "none"}, "weights of method 'm' is 'none'; expected a list"),
        ({"weights": ("ppo_clip", "ppo_clip(clip=(0.8, 1.2))")}, "weights of method 'm' has .* twice"),
        ({"learning_rates": (0.0,)}, "learning_rates of method 'm' has 0.0; expected numbers above 0"),
        ({"learning_rates": ("1",)}, "learning_rates of method 'm' is '1'; expected a finite number"),
        ({"level": "tokens"}, "unknown level 'tokens' of method 'm'; the nearest known name is 'token'"),
        ({"name": ""}, "name of a method is ''"),
    ],
)
def test_mistakes_in_a_method_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Method(**{"name": "m", "weights": ("none",), "learning_rates": (1e-4,), **changes})


def test_a_file_is_read_as_it_stands(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nstaleness = [0]\ntuning_seeds = [1]\nfinal_seeds = [2]\n[training]\nsteps = 5\n[[methods]]\n'
        'name = "a"\nweights = ["none"]\nlearning_rates = [1e-4]\n[length.tasks]\nshort = {digits = 1}\n'
    )
    expected = Experiment(
        methods=(Method("a", ("none",), (1e-4,)),), staleness=(0,), tuning_seeds=(1,), final_seeds=(2,),
        training={"steps": 5}, length=LengthStudy({"short": {"digits": 1}}), name="mine",
    )  # fmt: skip
    assert Experiment.from_toml(path) == expected
    assert Experiment(**Experiment.from_toml(path).plain) == expected
    path.write_text('nam = "mine"')
    with pytest.raises(ValueError, match="unknown key 'nam' of experiment; the nearest known name is 'name'"):
        Experiment.from_toml(path)
    with pytest.raises(ValueError, match="cannot read the experiment"):
        Experiment.from_toml(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="unknown experiment 'stalenes'; the nearest known name is 'staleness'"):
        packaged_experiment("stalenes")


def test_tasks_are_the_grid():
    tuning = tuning_tasks(SMALL)
    assert len(tuning) == 2 * 3 * 4 * 2
    chosen = {(m.name, k): m.configurations[-1] for m in SMALL.methods for k in SMALL.staleness}
    final = final_tasks(SMALL, chosen)
    everything = [*tuning, *final, *length_tasks(SMALL)]
    assert len(everything) == task_count(SMALL) == RUNS
    assert len({task.key for task in everything}) == RUNS
    assert {task.training["learning_rate"] for task in final} == {3e-4, 1e-3}
    assert {task.training["seed"] for task in final} == {*SMALL.final_seeds}
    # What is measured of final runs costs time, and nothing is chosen by it.
    assert all("exact_every" not in task.training for task in tuning)
    assert all(task.training["exact_every"] == 10 for task in final)


def test_keys_tell_runs_apart_and_nothing_else():
    task = tuning_tasks(SMALL)[0]
    assert replace(task, training={**task.training, "steps": 21}).key != task.key
    assert replace(task, name="another name").key == task.key
    assert tuning_tasks(replace(SMALL, name="other", final_seeds=(7,)))[0].key == task.key
    listed = replace(SMALL, training={**SMALL.training, "betas": [0.9, 0.99]})
    tupled = replace(SMALL, training={**SMALL.training, "betas": (0.9, 0.99)})
    assert tuning_tasks(listed)[0].key == tuning_tasks(tupled)[0].key != task.key
