"""The registry's weights against the gradients that released libraries compute (tests/peers/README.md).

A loss is minimised: its gradient in the token log-probabilities is -(coefficient x advantage) x the factor of its
aggregation.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import theory

REFERENCE = json.loads((Path(__file__).parents[2] / "peers" / "reference.json").read_text())
BATCHES = [{name: np.array(values) for name, values in batch.items()} for batch in REFERENCE["batches"]]
CASES = {(case["library"], case["call"], case["settings"]["aggregation"]): case for case in REFERENCE["cases"]}

PPO = theory.weight("ppo_clip", clip=(0.8, 1.28))
DUAL = theory.weight("ppo_clip", clip=(0.8, 1.28), dual=3.0)
GSPO = theory.weight("gspo")
VANILLA = "vanilla (PPO clip + dual clip)"
TORCHRL_CISPO = "CISPOLoss (differs from the CISPO paper: no stop-gradient)"


def token_mean(mask):
    """One count for the tokens of the batch."""
    return np.full((len(mask), 1), 1.0 / mask.sum())


def sequence_mean_token_mean(mask):
    return 1.0 / (len(mask) * mask.sum(axis=1, keepdims=True))


def sequence_mean_token_sum(mask):
    return np.full((len(mask), 1), 1.0 / len(mask))


def sequence_mean_token_sum_over_max_length(mask):
    return np.full((len(mask), 1), 1.0 / mask.size)


AGGREGATIONS = {
    "token_mean": token_mean,
    "sequence_mean_token_mean": sequence_mean_token_mean,
    "seq_mean_token_mean": sequence_mean_token_mean,
    "sequence_mean": sequence_mean_token_mean,
    "sequence_mean_token_sum": sequence_mean_token_sum,
    "seq_mean_token_sum": sequence_mean_token_sum,
    "sequence_mean_token_sum_over_max_length": sequence_mean_token_sum_over_max_length,
}

SINGLE = [
    ("trl", "GRPOTrainer loss_type=dapo (token mean over the batch), PPO clip", "token_mean", PPO),
    ("trl", "GRPOTrainer loss_type=grpo (mean of per-sequence token means), PPO clip", "sequence_mean_token_mean", PPO),
    (
        "trl",
        "GRPOTrainer loss_type=dr_grpo (sum over tokens / (B * max length))",
        "sequence_mean_token_sum_over_max_length",
        PPO,
    ),
    # TRL's CISPO has no lower bound, and its epsilon_high is the cap itself. The cap never binds in this data.
    ("trl", "GRPOTrainer loss_type=cispo", "token_mean", theory.weight("cispo", clip=(0.0, 5.0))),
    (
        "trl",
        "GRPOTrainer importance_sampling_level=sequence, loss_type=grpo (GSPO)",
        "sequence_mean_token_mean",
        GSPO,
    ),
    ("verl", VANILLA, "token_mean", DUAL),
    ("verl", VANILLA, "seq_mean_token_sum", DUAL),
    ("verl", VANILLA, "seq_mean_token_mean", DUAL),
    ("verl", "gspo", "sequence_mean_token_mean", GSPO),
    # verl's bounds of CISPO are offsets from 1, and both bind.
    ("verl", "cispo", "token_mean", theory.weight("cispo", clip=(0.8, 1.28))),
    (
        "verl",
        "reinforce x truncated importance weight theta/rollout, rollout_is=token, threshold 2.0",
        "sequence_mean_token_sum",
        theory.weight("truncated", cap=2.0),
    ),
    # verl's 'sequence' is the product of the ratios.
    (
        "verl",
        "reinforce x truncated importance weight theta/rollout, rollout_is=sequence, threshold 2.0",
        "sequence_mean_token_sum",
        theory.weight("truncated", level="sequence", cap=2.0),
    ),
    ("torchrl", "GRPOLoss", "token_mean", PPO),
    # torchrl's CISPO is not CISPO: without a stop-gradient the clipped tokens lose theirs, on both sides.
    (
        "torchrl",
        TORCHRL_CISPO,
        "token_mean",
        theory.weight("masked", interval=(0.8, 1.28)),
    ),
    ("openrlhf", "PolicyLoss ppo", "token_mean", PPO),
    ("openrlhf", "PolicyLoss gspo", "sequence_mean_token_mean", GSPO),
    ("areal", "ppo_actor_loss_fn token level, no rejection", "token_mean", PPO),
    ("trl", "GRPOTrainer loss_type=sapo", "sequence_mean_token_mean", theory.weight("sapo")),
    ("verl", "sapo", "sequence_mean_token_mean", theory.weight("sapo")),
    # AReaL's SAPO is the same weight with one count for the tokens of the batch.
    ("areal", "sapo_loss_fn", "token_mean", theory.weight("sapo")),
    ("trl", "GRPOTrainer loss_type=vespo", "token_mean", theory.weight("vespo")),
    # A mean over sequences of geometric means: each token's share of a sequence's gradient is 1/L.
    ("verl", "geo_mean (GMPO)", "sequence_mean", theory.weight("gmpo")),
    ("verl", "dppo_tv", "token_mean", theory.weight("dppo", cap=3.0)),
    ("verl", "dppo_kl", "token_mean", theory.weight("dppo", divergence="binary_kl", cap=3.0)),
]

# A second, constant factor from old / roll multiplies the PPO term of theta / old.
PRODUCTS = [
    (
        "verl",
        "vanilla x truncated importance weight old/rollout, rollout_is=token, threshold 2.0",
        DUAL,
        theory.weight("truncated", cap=2.0),
    ),
    (
        "verl",
        "vanilla x truncated importance weight old/rollout, rollout_is=sequence, threshold 2.0",
        DUAL,
        theory.weight("truncated", level="sequence", cap=2.0),
    ),
    (
        "openrlhf",
        "PolicyLoss ppo x behaviour correction level=token mode=mask (0.5,5.0) (IcePop)",
        PPO,
        theory.weight("masked"),
    ),
    (
        "areal",
        "ppo_actor_loss_fn, rejection level=token action=mask upper=1.5 lower=0.5",
        PPO,
        theory.weight("masked", interval=(0.5, 1.5)),
    ),
    (
        "areal",
        "ppo_actor_loss_fn, rejection level=token action=clamp upper=1.5",
        PPO,
        theory.weight("truncated", cap=1.5),
    ),
]


def advantages(batch):
    return batch["adv"][:, None] * np.ones_like(batch["mask"])


def distance(coefficients, aggregation, batch, result):
    """Largest difference of our gradient to the library's, relative to the library's largest entry."""
    ours = -coefficients * advantages(batch) * batch["mask"] * AGGREGATIONS[aggregation](batch["mask"])
    theirs = np.array(result["gradient"])
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def distances(case, weight):
    for batch, result in zip(BATCHES, case["results"], strict=True):
        log_ratio = batch["logp"] - batch[case["anchor"]]
        given = {"log_probability": batch["logp"]} if weight.needs else {}
        c = weight.coefficients(log_ratio, batch["mask"], advantages(batch), **given)
        yield distance(c, case["settings"]["aggregation"], batch, result)


@pytest.mark.parametrize(
    ("library", "call", "aggregation", "weight"), SINGLE, ids=[f"{case[0]} {case[1]} {case[2]}" for case in SINGLE]
)
def test_a_library_computes_the_weight_of_its_alias(library, call, aggregation, weight):
    assert max(distances(CASES[library, call, aggregation], weight)) < 1e-5


@pytest.mark.parametrize(
    ("library", "call", "weight", "second"), PRODUCTS, ids=[f"{case[0]} {case[1]}" for case in PRODUCTS]
)
def test_a_library_multiplies_two_weights(library, call, weight, second):
    case = CASES[library, call, "token_mean"]
    for batch, result in zip(BATCHES, case["results"], strict=True):
        mask, adv = batch["mask"], advantages(batch)
        engines = second.coefficients(batch["old"] - batch["roll"], mask, adv)
        c = weight.coefficients(batch["logp"] - batch["old"], mask, adv) * engines
        assert distance(c, "token_mean", batch, result) < 1e-5


def test_the_sequence_mask_of_openrlhf_is_by_the_geometric_mean_and_keeps_token_ratios():
    """Not `masked` with level='sequence': the first batch has a product of 0.34, whose root lies inside."""
    case = CASES["openrlhf", "PolicyLoss ppo x behaviour correction level=seq mode=mask (0.5,5.0)", "token_mean"]
    ours = []
    for batch, result in zip(BATCHES, case["results"], strict=True):
        mask, engines = batch["mask"], batch["old"] - batch["roll"]
        ppo = PPO.coefficients(batch["logp"] - batch["old"], mask, advantages(batch))
        mean = theory.weight("geometric").coefficients(engines, mask)
        kept = np.where((mean >= 0.5) & (mean <= 5.0), np.exp(engines), 0.0)
        assert distance(ppo * kept, "token_mean", batch, result) < 1e-5
        mask_of_ours = theory.weight("sequence_mask", interval=(0.5, 5.0), tokens="token")
        assert distance(ppo * mask_of_ours.coefficients(engines, mask), "token_mean", batch, result) < 1e-5
        product = theory.weight("masked", level="sequence").coefficients(engines, mask)
        ours.append(distance(ppo * product, "token_mean", batch, result))
    assert min(ours) > 0.1


@pytest.mark.parametrize(
    ("library", "call", "weight"),
    [
        ("torchrl", TORCHRL_CISPO, theory.weight("cispo", clip=(0.8, 1.28))),
        ("verl", "cispo", theory.weight("masked", interval=(0.8, 1.28))),
        ("verl", "cispo", theory.weight("cispo", clip=(0.0, 1.28))),
        ("trl", "GRPOTrainer loss_type=cispo", theory.weight("cispo", clip=(0.8, 1.28))),
        ("torchrl", "GRPOLoss", theory.weight("ppo_clip", clip=(0.8, 1.2))),
        ("torchrl", "GRPOLoss", theory.weight("token")),
        ("trl", "GRPOTrainer loss_type=vespo", theory.weight("vespo", k_positive=1.5)),
        ("verl", "dppo_tv", theory.weight("dppo", divergence="binary_kl", cap=3.0)),
        ("verl", "dppo_kl", theory.weight("dppo", cap=3.0)),
        ("areal", "sapo_loss_fn", theory.weight("sapo", tau_positive=1.05, tau_negative=1.0)),
    ],
)  # fmt: skip
def test_the_comparison_tells_weights_apart(library, call, weight):
    """Negative control: same name, different thing, and the right name with another bound."""
    assert min(distances(CASES[library, call, "token_mean"], weight)) > 1e-2


def test_verls_binary_kl_is_of_mu_from_pi_and_not_of_pi_from_mu():
    """The second batch tells: one more token is dropped by the other direction."""
    case = CASES["verl", "dppo_kl", "token_mean"]
    missed = []
    for batch, result in zip(BATCHES, case["results"], strict=True):
        pi, mu, adv = np.exp(batch["logp"]), np.exp(batch["old"]), advantages(batch)
        outward = np.sign(adv) * (pi - mu) > 0
        for first, second in ((mu, pi), (pi, mu)):
            kl = first * np.log(first / second) + (1 - first) * np.log((1 - first) / (1 - second))
            c = np.where(outward & (kl > 0.05), 0.0, np.minimum(pi / mu, 3.0))
            missed.append(distance(c, "token_mean", batch, result))
    forward, reverse = missed[::2], missed[1::2]
    assert max(forward) < 1e-5
    assert max(reverse) > 0.1


def test_the_comparison_tells_aggregations_apart():
    case = CASES["verl", VANILLA, "seq_mean_token_mean"]
    for batch, result in zip(BATCHES, case["results"], strict=True):
        c = DUAL.coefficients(batch["logp"] - batch["old"], batch["mask"], advantages(batch))
        assert distance(c, "token_mean", batch, result) > 1e-2
