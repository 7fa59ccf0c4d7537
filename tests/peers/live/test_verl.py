"""verl's own policy losses against the presets that bear its name."""

import pytest

pytest.importorskip("verl", reason="verl is not installed (make test-peers)")

import theory
from tests.peers.live.comparing import batch_of, distance, live_gradient

MODES = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
RECIPES = [
    *((f"verl:vanilla/{mode}", "vanilla", mode, {}, {}) for mode in MODES),
    *((f"verl:gspo/{mode}", "gspo", mode, {}, {}) for mode in MODES),
    *((f"verl:cispo/{mode}", "cispo", mode, {}, {}) for mode in MODES),
    *((f"verl:gpg/{mode}", "gpg", mode, {}, {}) for mode in MODES),
    ("verl:sapo", "sapo", "token-mean", {}, {}),
    ("verl:geo_mean", "geo_mean", "token-mean", {}, {"clip_ratio_low": 0.4, "clip_ratio_high": 0.4}),
    *(
        (f"verl:dppo_{kind}/{mode}", f"dppo_{kind}", mode, {}, {"clip_ratio_low": delta, "clip_ratio_high": delta})
        for mode in MODES
        for kind, delta in (("tv", 0.15), ("kl", 0.05))
    ),
    *((f"verl:vanilla+rollout_is={level}/token-mean", "vanilla", "token-mean", {"is": level}, {})
      for level in ("token", "sequence")),
    *((f"verl:reinforce+rollout_is={level}/seq-mean-token-sum", "reinforce", "seq-mean-token-sum", {"is": level}, {})
      for level in ("token", "sequence")),
]  # fmt: skip


def verl_loss(batch, name, mode, correction, settings):
    """logp -> the registered policy loss, with the actor's default settings."""
    import torch
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask
    from verl.workers.config import ActorConfig

    config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_mini_batch_size=1, ppo_micro_batch_size_per_gpu=1,
                         use_dynamic_bsz=True, **settings)  # fmt: skip

    def engine_weights(logp):
        found, _, _ = compute_rollout_correction_and_rejection_mask(
            old_log_prob=logp, rollout_log_prob=batch.rollout_logp, response_mask=batch.mask,
            rollout_is=correction["is"], rollout_is_threshold=2.0,
        )  # fmt: skip
        return found.batch["rollout_is_weights"]

    def loss(logp):
        shared = {"advantages": batch.advantages, "response_mask": batch.mask, "loss_agg_mode": mode, "config": config}
        if name == "reinforce":
            with torch.no_grad():
                weights = engine_weights(logp)
            return core_algos.compute_policy_loss_reinforce(
                rollout_log_prob=batch.rollout_logp, log_prob=logp, rollout_is_weights=weights, **shared
            )[0]
        weights = engine_weights(batch.old_logp) if correction else None
        function = core_algos.get_policy_loss_fn(name)
        return function(old_log_prob=batch.old_logp, log_prob=logp, rollout_is_weights=weights, **shared)[0]

    return loss


@pytest.mark.parametrize(("name", "loss", "mode", "correction", "settings"), RECIPES, ids=[r[0] for r in RECIPES])
def test_a_preset_is_what_verl_computes(name, loss, mode, correction, settings):
    for seed in range(3):
        batch = batch_of(seed)
        theirs = live_gradient(verl_loss(batch, loss, mode, correction, settings), batch)
        assert distance(theory.preset(name), batch, theirs) < 1e-5


def test_the_comparison_can_fail():
    """Negative control: the same loss with another aggregation, and without its dual clip."""
    batch = batch_of(0)
    theirs = live_gradient(verl_loss(batch, "vanilla", "token-mean", {}, {}), batch)
    assert distance(theory.preset("verl:vanilla/seq-mean-token-mean"), batch, theirs) > 1e-2
    assert distance(theory.preset("verl:vanilla/token-mean", dual=None), batch, theirs) > 1e-2
