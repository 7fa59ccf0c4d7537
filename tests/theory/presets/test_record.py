"""What a preset is, beside the gradients of the libraries."""

import pickle

import numpy as np
import pytest
import torch

import theory
from tests.instances import random_instance
from theory.presets.record import token_shares

MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("reduction", "options", "expected"),
    [
        ("sum", {}, [1 / 3, 1 / 3, 1 / 3]),
        ("sum", {"empty_count": False}, [1 / 2, 1 / 2, 1 / 2]),
        ("length_mean", {}, [1 / 9, 1 / 3, 1 / 3]),
        ("length_mean", {"empty_count": False}, [1 / 6, 1 / 2, 1 / 2]),
        ("constant", {}, [1 / 12, 1 / 12, 1 / 12]),
        ("constant", {"width": 10}, [1 / 30, 1 / 30, 1 / 30]),
        ("token_mean", {}, [1 / 4, 1 / 4, 1 / 4]),
    ],
)
def test_what_a_reduction_gives_each_token_by_hand(reduction, options, expected):
    shares = token_shares(reduction, MASK, like=np.ones((3, 4)), **options)
    np.testing.assert_allclose(shares[:, 0], expected, rtol=1e-15)
    in_torch = token_shares(reduction, torch.tensor(MASK), like=torch.ones((3, 4), dtype=torch.float64), **options)
    np.testing.assert_allclose(in_torch[:, 0].numpy(), expected, rtol=1e-15)


@pytest.mark.parametrize("name", theory.preset_cards())
def test_every_preset_is_an_estimator_with_a_card(name):
    preset = theory.preset(name)
    assert preset.name == name
    assert preset.source
    assert preset.summary.endswith(".")
    assert preset.estimator.weight == preset.weight
    assert pickle.loads(pickle.dumps(preset)) == preset
    assert hash(pickle.loads(pickle.dumps(preset))) == hash(preset)


def test_presets_of_one_recipe_differ():
    cards = theory.preset_cards()
    assert len({hash(p) for p in cards.values()}) > 20
    assert cards["trl:grpo/dapo"] != cards["trl:grpo/grpo"]


def test_a_preset_is_an_estimator_of_the_exact_engines():
    process, target, behaviour = random_instance(S=3, A=2, T=3, step_rewards=False)
    old = theory.SoftmaxPolicy(0.5 * (target.logits + behaviour.logits))
    m = theory.moments(process, target, behaviour, theory.preset("paper:dr_grpo", group_size=3).estimator)
    by_hand = theory.Estimator("ppo_clip", theory.group(3, scale="none"), reduction="constant")
    np.testing.assert_allclose(m.mean, theory.moments(process, target, behaviour, by_hand).mean, rtol=1e-12)
    three = theory.preset("areal:ppo+clamp/token_mean", group_size=2).estimator
    assert theory.moments(process, target, behaviour, three, old=old).variance > 0.0
    with pytest.raises(ValueError, match="tells three policies apart; expected old="):
        theory.moments(process, target, behaviour, three)


def test_options_cannot_be_changed_in_place():
    preset = theory.preset("verl:vanilla/token-mean")
    with pytest.raises(TypeError):
        preset.weight_options["dual"] = 99.0
    assert theory.preset("verl:vanilla/token-mean", dual=5.0).weight.options["dual"] == 5.0
    assert theory.preset("verl:vanilla/token-mean").weight.options["dual"] == 3.0


LOGP = np.full((2, 3), -1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.preset("trl:grpo/dappo"), "unknown preset 'trl:grpo/dappo'; the nearest known name is 'trl:g"),
        (lambda: theory.preset("trl:grpo/dapo", clp=1), "unknown option 'clp' of preset 'trl:grpo/dapo'"),
        (lambda: theory.preset("trl:grpo/dapo", clip=(2, 1)), r"clip is \(2, 1\); expected \(low, high\)"),
        (lambda: theory.preset("paper:reinforce", group_size=4), "group_size is 4 and preset 'paper:reinforce' has no"),
        (lambda: theory.preset("trl:grpo/dapo").loss_gradient(LOGP, LOGP, LOGP), "against old; expected old_logp="),
        (
            lambda: theory.preset("trl:grpo/dapo").loss_gradient(LOGP, LOGP, LOGP, old_logp=LOGP[:1]),
            r"old_logp has shape \(1, 3\); expected \(2, 3\)",
        ),
        (
            lambda: theory.preset("trl:grpo/dapo").loss_gradient(LOGP, LOGP, None, old_logp=LOGP),
            "mask is of type NoneType; expected an array",
        ),
        (
            lambda: theory.preset("verl:gpg/token-mean").loss_gradient(LOGP, None, LOGP),
            "advantages is of type NoneType; expected an array",
        ),
        (
            lambda: theory.preset("trl:grpo/dapo").loss_gradient(torch.tensor(LOGP), LOGP, LOGP, old_logp=LOGP),
            "mask is of type numpy.ndarray",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_stands_at_masked_tokens_is_ignored():
    rng = np.random.default_rng(0)
    logp, old, advantages = -rng.random((3, 4)), -rng.random((3, 4)), rng.normal(size=(3, 4))
    preset = theory.preset("trl:grpo/grpo")
    clean = preset.loss_gradient(logp, advantages, MASK, old_logp=old)
    for bad in (np.nan, -np.inf, np.inf):
        dirty = [np.where(MASK != 0, x, bad) for x in (logp, advantages, old)]
        np.testing.assert_array_equal(preset.loss_gradient(*dirty[:2], MASK, old_logp=dirty[2]), clean)


def test_tensors_give_constants_of_their_own_type():
    logp = torch.full((2, 3), -1.0, requires_grad=True)
    advantages = torch.ones((2, 3), requires_grad=True)
    mask = torch.ones((2, 3), dtype=torch.int64)
    gradient = theory.preset("trl:grpo/dapo").loss_gradient(logp, advantages, mask, old_logp=logp)
    assert not gradient.requires_grad
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, torch.full((2, 3), -1.0 / 6))


def test_without_a_ratio_no_other_policy_is_needed():
    g = theory.preset("verl:gpg/token-mean").loss_gradient(LOGP, np.ones((2, 3)), np.ones((2, 3)))
    np.testing.assert_allclose(g, -np.ones((2, 3)) / 6)
