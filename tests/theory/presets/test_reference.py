"""Every call of a released library on record against the preset that bears its name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import theory

REFERENCE = json.loads((Path(__file__).parents[2] / "peers" / "reference.json").read_text())
BATCHES = [{name: np.array(values) for name, values in batch.items()} for batch in REFERENCE["batches"]]

HIGHER = {"clip": (0.8, 1.28)}
PPO = ("ppo_clip", HIGHER)
DUAL = ("ppo_clip", {"clip": (0.8, 1.28), "dual": 3.0})
OWN_GSPO = {"clip": (1.0 - 3e-4, 1.0 + 4e-4)}
VANILLA = "vanilla (PPO clip + dual clip)"

# (library, start of the call, aggregation) -> preset and the options in which the call leaves the library's defaults.
COVERED = {
    ("trl", "GRPOTrainer loss_type=dapo", "token_mean"): ("trl:grpo/dapo", HIGHER),
    ("trl", "GRPOTrainer loss_type=grpo", "sequence_mean_token_mean"): ("trl:grpo/grpo", HIGHER),
    ("trl", "GRPOTrainer loss_type=dr_grpo", "sequence_mean_token_sum_over_max_length"): ("trl:grpo/dr_grpo", HIGHER),
    ("trl", "GRPOTrainer loss_type=cispo", "token_mean"): ("trl:grpo/cispo", {"clip": (0.0, 5.0)}),
    ("trl", "GRPOTrainer importance_sampling_level=sequence", "sequence_mean_token_mean"): ("trl:grpo/gspo", OWN_GSPO),
    ("trl", "GRPOTrainer loss_type=sapo", "sequence_mean_token_mean"): ("trl:grpo/sapo", {}),
    ("trl", "GRPOTrainer loss_type=vespo", "token_mean"): ("trl:grpo/vespo", {}),
    ("verl", VANILLA, "token_mean"): ("verl:vanilla/token-mean", HIGHER),
    ("verl", VANILLA, "seq_mean_token_sum"): ("verl:vanilla/seq-mean-token-sum", HIGHER),
    ("verl", VANILLA, "seq_mean_token_mean"): ("verl:vanilla/seq-mean-token-mean", HIGHER),
    ("verl", "gspo", "sequence_mean_token_mean"): ("verl:gspo/seq-mean-token-mean", OWN_GSPO),
    ("verl", "cispo", "token_mean"): ("verl:cispo/token-mean", HIGHER),
    ("verl", "sapo", "sequence_mean_token_mean"): ("verl:sapo", {}),
    ("verl", "geo_mean", "sequence_mean"): ("verl:geo_mean", {}),
    ("verl", "dppo_tv", "token_mean"): ("verl:dppo_tv/token-mean", {}),
    ("verl", "dppo_kl", "token_mean"): ("verl:dppo_kl/token-mean", {}),
    ("verl", "vanilla x truncated importance weight old/rollout, rollout_is=token", "token_mean"): (
        "verl:vanilla+rollout_is=token/token-mean",
        {"update": DUAL},
    ),
    ("verl", "vanilla x truncated importance weight old/rollout, rollout_is=sequence", "token_mean"): (
        "verl:vanilla+rollout_is=sequence/token-mean",
        {"update": DUAL},
    ),
    ("verl", "reinforce x truncated importance weight theta/rollout, rollout_is=token", "sequence_mean_token_sum"): (
        "verl:reinforce+rollout_is=token/seq-mean-token-sum",
        {},
    ),
    ("verl", "reinforce x truncated importance weight theta/rollout, rollout_is=seq", "sequence_mean_token_sum"): (
        "verl:reinforce+rollout_is=sequence/seq-mean-token-sum",
        {},
    ),
    ("torchrl", "GRPOLoss", "token_mean"): ("torchrl:grpo/token_mean", HIGHER),
    ("torchrl", "CISPOLoss", "token_mean"): ("torchrl:cispo/token_mean", {"interval": (0.8, 1.28)}),
    ("openrlhf", "PolicyLoss ppo", "token_mean"): ("openrlhf:ppo/token_mean", HIGHER),
    ("openrlhf", "PolicyLoss gspo", "sequence_mean_token_mean"): ("openrlhf:gspo", OWN_GSPO),
    ("openrlhf", "PolicyLoss ppo x behaviour correction level=token mode=mask", "token_mean"): (
        "openrlhf:ppo+token_mask/token_mean",
        {"update": PPO},
    ),
    ("openrlhf", "PolicyLoss ppo x behaviour correction level=seq mode=mask", "token_mean"): (
        "openrlhf:ppo+seq_mask/token_mean",
        {"update": PPO},
    ),
    ("areal", "ppo_actor_loss_fn token level, no rejection", "token_mean"): ("areal:ppo/token_mean", HIGHER),
    ("areal", "ppo_actor_loss_fn, rejection level=token action=mask", "token_mean"): (
        "areal:ppo+mask/token_mean",
        {"update": PPO},
    ),
    ("areal", "ppo_actor_loss_fn, rejection level=token action=clamp", "token_mean"): (
        "areal:ppo+clamp/token_mean",
        {"update": PPO},
    ),
    ("areal", "sapo_loss_fn", "token_mean"): ("areal:sapo/token_mean", {}),
}


def case_of(key):
    """The one case that a key means: the exact call, or the one that begins so."""
    library, call, aggregation = key
    found = [c for c in REFERENCE["cases"] if c["library"] == library and c["settings"]["aggregation"] == aggregation]
    exact = [c for c in found if c["call"] == call]
    [case] = exact or [c for c in found if c["call"].startswith(call)]
    return case


def distance(preset, case, as_tensors=False):
    """Largest difference of the preset's gradient to the library's, relative to the library's largest entry."""
    worst = 0.0
    for batch, result in zip(BATCHES, case["results"], strict=True):
        arrays = {k: torch.tensor(v) if as_tensors else v for k, v in batch.items()}
        wide = torch.ones_like(arrays["mask"]) if as_tensors else np.ones_like(arrays["mask"])
        ours = preset.loss_gradient(
            arrays["logp"], arrays["adv"][:, None] * wide, arrays["mask"], old_logp=arrays["old"],
            rollout_logp=arrays["roll"],
        )  # fmt: skip
        theirs = np.array(result["gradient"])
        worst = max(worst, np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())
    return worst


def test_every_call_on_record_has_its_preset():
    covered = [id(case_of(key)) for key in COVERED]
    assert len(covered) == len(set(covered)) == len(REFERENCE["cases"]) == 30


@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize("key", COVERED, ids=lambda key: " ".join(key))
def test_a_preset_reproduces_the_gradient_of_its_library(key, as_tensors):
    name, options = COVERED[key]
    assert distance(theory.preset(name, **options), case_of(key), as_tensors) < 1e-5


@pytest.mark.parametrize("key", COVERED, ids=lambda key: " ".join(key))
def test_the_anchor_of_a_preset_is_that_of_the_call(key):
    anchor = {"old": "old", "roll": "rollout", "old+roll": "old and rollout"}[case_of(key)["anchor"]]
    assert theory.preset(COVERED[key][0]).anchor == anchor


@pytest.mark.parametrize(
    ("key", "name", "options"),
    [
        # The two calls that are not what their name says, as what their name says.
        (("torchrl", "CISPOLoss", "token_mean"), "paper:cispo", HIGHER),
        (("trl", "GRPOTrainer loss_type=cispo", "token_mean"), "trl:grpo/cispo", {}),
        # Another aggregation, another level, another library's recipe.
        (("verl", "gspo", "sequence_mean_token_mean"), "verl:gspo/token-mean", OWN_GSPO),
        (
            ("openrlhf", "PolicyLoss ppo x behaviour correction level=seq mode=mask", "token_mean"),
            "openrlhf:ppo+token_mask/token_mean",
            {"update": PPO},
        ),
        (("areal", "sapo_loss_fn", "token_mean"), "verl:sapo", {}),
        # The dual clip does not bind on record, but PPO's default bounds do.
        (("verl", VANILLA, "token_mean"), "verl:vanilla/token-mean", {}),
    ],
)
def test_the_comparison_tells_recipes_apart(key, name, options):
    """Negative control."""
    assert distance(theory.preset(name, **options), case_of(key)) > 1e-2
