"""TRL's own GRPOTrainer loss against the presets that bear its name."""

import tempfile
from collections import defaultdict
from types import SimpleNamespace

import pytest

pytest.importorskip("trl", reason="TRL is not installed (make test-peers)")

import theory
from tests.peers.live.comparing import batch_of, distance, live_gradient

RECIPES = [
    ("trl:grpo/dapo", {}, {"loss_type": "dapo"}),
    ("trl:grpo/grpo", {}, {"loss_type": "grpo"}),
    ("trl:grpo/dr_grpo", {}, {"loss_type": "dr_grpo"}),
    ("trl:grpo/bnpo", {}, {"loss_type": "bnpo"}),
    ("trl:grpo/cispo", {}, {"loss_type": "cispo"}),
    ("trl:grpo/cispo", {"clip": (0.0, 1.5)}, {"loss_type": "cispo", "epsilon_high": 1.5}),
    ("trl:grpo/gspo", {}, {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    ("trl:grpo/luspo", {}, {"loss_type": "luspo", "importance_sampling_level": "sequence"}),
    ("trl:grpo/sapo", {}, {"loss_type": "sapo"}),
    ("trl:grpo/vespo", {}, {"loss_type": "vespo"}),
    ("trl:grpo/dapo", {"clip": (0.8, 1.28)}, {"loss_type": "dapo", "epsilon_high": 0.28}),
]


def trl_loss(batch, **settings):
    """logp -> GRPOTrainer's loss on the batch; the trainer is made without a model, with the config's defaults."""
    import torch
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(output_dir=tempfile.gettempdir(), use_cpu=True, bf16=False, report_to=[], **settings)
    trainer = object.__new__(GRPOTrainer)
    same = lambda x, *_, **__: x  # noqa: E731 - of one process, every collective gives back what it is given
    accelerator = SimpleNamespace(num_processes=1, gather=same, reduce=same, gather_for_metrics=same, device="cpu")
    state = {
        "args": args, "loss_type": args.loss_type, "importance_sampling_level": args.importance_sampling_level,
        "epsilon_low": args.epsilon, "epsilon_high": args.epsilon if args.epsilon_high is None else args.epsilon_high,
        "beta": args.beta, "top_entropy_quantile": args.top_entropy_quantile, "off_policy_mask_threshold": None,
        "aux_loss_enabled": False, "use_vllm": False, "vllm_importance_sampling_correction": False,
        "max_completion_length": batch.mask.shape[1], "accelerator": accelerator,
        "current_gradient_accumulation_steps": 1, "_entropy_bonus_enabled": False, "use_adaptive_entropy": False,
        "model": SimpleNamespace(training=True), "num_generations": 8,
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)}, "entropy_coef": 0.0,
    }  # fmt: skip
    trainer.__dict__.update(state)
    args.steps_per_generation = 1
    inputs = {
        "prompt_ids": torch.zeros(len(batch.mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(batch.mask), 1, dtype=torch.long),
        "completion_ids": torch.zeros(batch.mask.shape, dtype=torch.long),
        "completion_mask": batch.mask,
        "advantages": batch.advantages[:, 0],
        "old_per_token_logps": batch.old_logp,
        "num_items_in_batch": batch.mask.sum(),
    }

    def loss(logp):
        entropies = torch.zeros_like(logp)
        trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logp, entropies, None)
        return trainer._compute_loss(SimpleNamespace(training=True), inputs)

    return loss


@pytest.mark.parametrize(("name", "options", "settings"), RECIPES)
def test_a_preset_is_what_trl_computes(name, options, settings):
    for seed in range(3):
        batch = batch_of(seed)
        theirs = live_gradient(trl_loss(batch, **settings), batch)
        assert distance(theory.preset(name, **options), batch, theirs) < 1e-5


def rloo_loss(batch, **settings):
    """logp -> RLOOTrainer's loss on the batch."""
    import torch
    from trl import RLOOConfig, RLOOTrainer

    args = RLOOConfig(output_dir=tempfile.gettempdir(), use_cpu=True, bf16=False, report_to=[], **settings)
    trainer = object.__new__(RLOOTrainer)
    same = lambda x, *_, **__: x  # noqa: E731
    trainer.__dict__.update({
        "args": args, "epsilon_low": args.epsilon, "aux_loss_enabled": False, "model": SimpleNamespace(training=True),
        "epsilon_high": args.epsilon if args.epsilon_high is None else args.epsilon_high,
        "accelerator": SimpleNamespace(num_processes=1, gather=same, reduce=same, gather_for_metrics=same),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
    })  # fmt: skip
    prompts = torch.zeros(len(batch.mask), 1, dtype=torch.long)
    inputs = {
        "prompt_ids": prompts, "prompt_mask": prompts, "completion_ids": batch.mask.long(),
        "completion_mask": batch.mask, "advantages": batch.advantages[:, 0],
        "old_logps": (batch.old_logp * batch.mask).sum(1),
    }  # fmt: skip

    def loss(logp):
        trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logp, torch.zeros_like(logp), None)
        return trainer._compute_loss(SimpleNamespace(training=True), inputs)

    return loss


def test_the_preset_of_rloo_is_what_trl_computes():
    for seed in range(3):
        batch = batch_of(seed, spread=0.1)
        theirs = live_gradient(rloo_loss(batch), batch)
        assert distance(theory.preset("trl:rloo"), batch, theirs) < 1e-5
        # Negative control: the clip of each token's ratio.
        assert distance(theory.preset("trl:rloo", level="token"), batch, theirs) > 1e-2


def test_the_comparison_can_fail():
    """Negative control: another recipe of the same trainer."""
    batch = batch_of(0)
    theirs = live_gradient(trl_loss(batch, loss_type="grpo"), batch)
    for other in ("trl:grpo/dapo", "trl:grpo/sapo", "trl:grpo/gspo"):
        assert distance(theory.preset(other), batch, theirs) > 1e-2
