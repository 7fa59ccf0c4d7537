"""torchrl's own losses against the presets that bear its name."""

import pytest

pytest.importorskip("torchrl", reason="torchrl is not installed (make test-peers)")

import theory
from tests.peers.live.comparing import batch_of, distance, live_gradient

RECIPES = [
    ("torchrl:grpo/token_mean", "GRPOLoss", {}),
    ("torchrl:grpo/prompt_mean", "GRPOLoss", {"aggregation": "prompt_mean"}),
    ("torchrl:dapo/token_mean", "DAPO", {"clip_epsilon": (0.20, 0.28)}),
    ("torchrl:cispo/token_mean", "CISPOLoss", {}),
]


def torchrl_loss(batch, name, settings):
    """logp -> the loss module's objective, aggregated by its own code."""
    import torch
    import torchrl.objectives.llm as llm

    module = getattr(llm, name)(actor_network=torch.nn.Identity(), **settings)

    def loss(logp):
        log_weight = (logp - batch.old_logp).unsqueeze(-1)
        objective, _ = module._compute_policy_objective(log_weight, batch.advantages.unsqueeze(-1))
        return module._aggregate_loss_value(objective, batch.mask.bool()).sum()

    return loss


@pytest.mark.parametrize(("name", "module", "settings"), RECIPES)
def test_a_preset_is_what_torchrl_computes(name, module, settings):
    for seed in range(3):
        batch = batch_of(seed)
        theirs = live_gradient(torchrl_loss(batch, module, settings), batch)
        assert distance(theory.preset(name), batch, theirs) < 1e-5


def test_the_comparison_can_fail():
    """Negative control: torchrl's CISPO is not what the paper of that name says."""
    batch = batch_of(0)
    theirs = live_gradient(torchrl_loss(batch, "CISPOLoss", {}), batch)
    assert distance(theory.preset("paper:cispo", clip=(0.8, 1.2)), batch, theirs) > 1e-2
    assert distance(theory.preset("torchrl:grpo/token_mean"), batch, theirs) > 1e-2
