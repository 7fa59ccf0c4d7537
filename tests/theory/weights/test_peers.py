"""What the gradients of released libraries (tests/peers/README.md) say of names that mean several things.

That every call on record is reproduced by its preset is tested in tests/theory/presets.

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
