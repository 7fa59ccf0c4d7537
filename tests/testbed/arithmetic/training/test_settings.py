"""Settings are plain data, and what has no meaning is refused in the user's notation."""

import json
import re
from dataclasses import replace

import pytest

import theory
from testbed.arithmetic import ArithmeticTask, Sampler, WarmUp
from testbed.arithmetic.training import Training
from testbed.arithmetic.training.command import settings_of


def test_settings_survive_json():
    settings = Training(
        task=ArithmeticTask("modular_addition", modulus=97), weight="minpro(clip=(0.8, 1.28))",
        signal="outcome(baseline=0.5)", score="cumulative", reduction="token_mean(batch=4)", staleness=4,
        sampler=Sampler(temperature=0.9, top_p=0.95), warm_up=WarmUp(accuracy=0.3), betas=(0.8, 0.9),
    )  # fmt: skip
    assert Training.from_plain(json.loads(json.dumps(settings.plain))) == settings


def test_names_become_the_estimator():
    settings = Training(weight="minpro(clip=(0.8, 1.28))", signal="group(size=4, scale=none)", reduction="length_mean")
    assert settings.estimator.weight == theory.weight("minpro", clip=(0.8, 1.28))
    assert settings.estimator.signal == theory.group(4, scale="none")
    assert settings.estimator.reduction == theory.reduction("length_mean")
    assert Training(weight="trl:grpo/dapo").estimator == theory.preset("trl:grpo/dapo").estimator


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"weight": "minpo"}, "unknown weight 'minpo'; the nearest known name is 'minpro'"),
        ({"signal": "group(size=3)"}, "answers is 8 and the signal a group of 3; expected a multiple of the group"),
        ({"signal": "outcome", "reduction": "sum(batch=48)"}, "64 answers and the reduction a batch of 48"),
        ({"signal": "outcome(baseline=optimal)"}, "baseline 'optimal' is not known while training"),
        (
            {"weight": "trl:grpo/dapo", "signal": "outcome"},
            "brings its own signal; got signal='outcome', expected none",
        ),
        ({"weight": "paper:rloo", "score": "own"}, "brings its own score; got score='own', expected none"),
        ({"weight": 3}, "weight is 3; expected a name as text"),
        ({"signal": 3}, "signal is 3; expected a name as text"),
        ({"task": 3}, "task is 3; expected a table of ArithmeticTask's settings"),
        ({"betas": 0.9}, "betas is 0.9; expected two numbers"),
        ({"exact_variance": "maybe"}, "exact_variance is 'maybe'; expected True or False"),
        (
            {"signal": "outcome", "reduction": "token_mean(batch=4)", "exact_every": 1},
            "reduction token_mean(batch=4) mixes answers to several prompts, of which there are no exact moments",
        ),
        (
            {"task": ArithmeticTask(slack=4), "tree_prompts": 0, "signal": "target_advantage"},
            "more than the 20000 of a tree; expected shorter ones, or a signal without exact values",
        ),
        ({"staleness": -1}, "staleness is -1"),
        ({"old_staleness": 2}, "old_staleness is 2 and staleness 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"betas": (0.9, 1.0)}, "betas is"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm is 0.0; expected a positive number, or None"),
        ({"score": "own_"}, "unknown score 'own_'; the nearest known name is 'own'"),
        ({"reduction": "sum(bacth=8)"}, "unknown option 'bacth' of reduction 'sum'; the nearest known name is 'batch'"),
    ],
)
def test_what_has_no_meaning_is_refused(changed, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        replace(Training(), **changed)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="unknown setting 'stalenes'; the nearest known name is 'staleness'"):
        Training.from_plain({"stalenes": 3})
    with pytest.raises(ValueError, match="unknown setting 'digit' of task; the nearest known name is 'digits'"):
        Training.from_plain({"task": {"digit": 1}})


def test_a_file_is_changed_by_options(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('weight = "minpro"\nsteps = 40\n[task]\ndigits = 1\n')
    chosen = {"steps": 20, "weight": None}
    settings = settings_of(path, chosen, ["task.slack=1", "sampler.top_k=5", "prompts=4"], exact=False)
    assert settings == Training(
        weight="minpro", steps=20, task=ArithmeticTask(digits=1, slack=1), sampler=Sampler(top_k=5), prompts=4
    )
    exact = settings_of(path, chosen, [], exact=True)
    assert (exact.exact_every, exact.exact_variance) == (5, True)
    assert settings_of(path, chosen, ["exact_every=7"], exact=True).exact_every == 7
    path.write_text("steps = = 3")
    with pytest.raises(ValueError, match="is no TOML"):
        settings_of(path, {}, [], exact=False)
    with pytest.raises(ValueError, match="--set is 'prompts'; expected name=value"):
        settings_of(None, {}, ["prompts"], exact=False)
    path.write_text("task = 3")
    with pytest.raises(ValueError, match="task is 3; expected a table, of which digits is a setting"):
        settings_of(path, {}, ["task.digits=1"], exact=False)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is no TOML"):
        settings_of(path, {}, [], exact=False)


def test_names_with_options_are_set_as_they_are_spelled():
    others = ["weight=minpro(clip=(0.8, 1.28))", "signal=outcome(baseline=0.5)", "reduction=token_mean(batch=4)"]
    settings = settings_of(None, {}, others, exact=False)
    assert settings.weight == "minpro(clip=(0.8, 1.28))"
    assert settings.estimator.reduction == theory.reduction("token_mean", batch=4)
