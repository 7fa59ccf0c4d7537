"""TRL's GRPOTrainer and RLOOTrainer."""

from __future__ import annotations

from theory.groups import group
from theory.presets.record import Preset

_RELEASE = "TRL 1.16.0"
_GROUP = group(8, epsilon=1e-4)
_ADVANTAGE = "num_generations=8, scale_rewards='group' (sample standard deviation plus 1e-4)"
_CLIP = "epsilon=0.2, epsilon_high=epsilon"
_ON_POLICY = (
    "With num_iterations=1 and one optimiser step per generation TRL takes old_logp = logp: every ratio is 1 and "
    "nothing is clipped. With vLLM a second factor, old over rollout, is on by default (vllm_importance_sampling_mode="
    "'sequence_mask', cap 3.0), which this recipe leaves out; `decoupled` is that product."
)

PRESETS = (
    Preset(
        "trl:grpo/dapo",
        "PPO's clip per token, one mean over the tokens of the batch: the default.",
        "ppo_clip",
        signal=_GROUP,
        settings=f"GRPOConfig(loss_type='dapo'), the default; {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
        caution="Not DAPO's clip-higher: that is epsilon_high=0.28, clip=(0.8, 1.28). " + _ON_POLICY,
    ),
    Preset(
        "trl:grpo/grpo",
        "PPO's clip per token, mean over each sequence, then over sequences.",
        "ppo_clip",
        signal=_GROUP,
        reduction="length_mean",
        settings=f"GRPOConfig(loss_type='grpo'); {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
        caution=_ON_POLICY,
    ),
    Preset(
        "trl:grpo/dr_grpo",
        "PPO's clip per token, the batch's sum over a constant.",
        "ppo_clip",
        signal=_GROUP,
        reduction="constant",
        settings=f"GRPOConfig(loss_type='dr_grpo'): divided by B x max_completion_length; {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
        caution="loss_type changes the normaliser alone: the advantage is still divided by the group's standard "
        "deviation unless scale_rewards='none'. Dr.GRPO has neither (paper:dr_grpo). The constant is the configured "
        "maximum, not the batch's width: pass width=. " + _ON_POLICY,
    ),
    Preset(
        "trl:grpo/bnpo",
        "PPO's clip per token, mean over the tokens of a micro-batch.",
        "ppo_clip",
        signal=_GROUP,
        settings=f"GRPOConfig(loss_type='bnpo'); {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
        caution="The mean is over the local micro-batch: with gradient accumulation it is another estimator than "
        "trl:grpo/dapo, whose token count spans the step. " + _ON_POLICY,
    ),
    Preset(
        "trl:grpo/cispo",
        "The ratio up to a cap, as a constant in front of the score; one mean over the tokens of the batch.",
        "cispo",
        {"clip": (0.0, 0.2)},
        signal=_GROUP,
        settings=f"GRPOConfig(loss_type='cispo'); epsilon_high left unset = epsilon = 0.2; {_ADVANTAGE}",
        source=_RELEASE,
        caution="epsilon_high is the cap itself, not an offset from 1: left unset it caps every weight at 0.2, and the "
        "estimator is close to 0.2 times no correction. Pass clip=(0.0, 5.0) for the cap of 5 that the library's "
        "documentation suggests. " + _ON_POLICY,
    ),
    Preset(
        "trl:grpo/gspo",
        "PPO's clip of the sequence's geometric mean ratio, mean over each sequence, then over sequences.",
        "gspo",
        {"clip": (0.8, 1.2)},
        signal=_GROUP,
        reduction="length_mean",
        settings=f"GRPOConfig(importance_sampling_level='sequence', loss_type='grpo'); {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
        caution="The default bounds are PPO's, hundreds of times wider than GSPO's own (1 - 3e-4, 1 + 4e-4). With the "
        "default loss_type='dapo' tokens of long sequences weigh more, which is another estimator. " + _ON_POLICY,
    ),
    Preset(
        "trl:grpo/luspo",
        "PPO's clip of the sequence's geometric mean ratio, sum over each sequence, mean over sequences.",
        "gspo",
        {"clip": (0.8, 1.2)},
        signal=_GROUP,
        reduction="sum",
        settings=f"GRPOConfig(importance_sampling_level='sequence', loss_type='luspo'); {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
        caution="Each sequence's loss is multiplied by its length, so that the 1/L of GSPO's gradient is undone. "
        + _ON_POLICY,
    ),
    Preset(
        "trl:grpo/sapo",
        "A soft gate of the ratio, steeper for negative advantages; mean over each sequence, then over sequences.",
        "sapo",
        signal=_GROUP,
        reduction="length_mean",
        settings=f"GRPOConfig(loss_type='sapo'); temperatures 1.0 and 1.05; {_ADVANTAGE}",
        source=_RELEASE,
        caution=_ON_POLICY,
    ),
    Preset(
        "trl:grpo/vespo",
        "A detached gamma-shaped weight of the whole sequence's ratio; one mean over the tokens of the batch.",
        "vespo",
        signal=_GROUP,
        settings=f"GRPOConfig(loss_type='vespo'); k 2.0 and 3.0, lambda 3.0 and 2.0; {_ADVANTAGE}",
        source=_RELEASE,
        caution=_ON_POLICY,
    ),
    Preset(
        "trl:rloo",
        "PPO's clip of the ratio of the whole sequence, with the mean of the others as the baseline; mean over "
        "sequences.",
        "ppo_clip",
        {"level": "sequence"},
        signal=group(2, "leave_one_out", "none"),
        reduction="sum",
        settings="RLOOConfig: epsilon=0.2, num_generations=2, normalize_advantages=False",
        source=_RELEASE,
        caution="RLOO is stated without a clip (paper:rloo); here it is clipped, and by the product of all ratios, "
        "which leaves (0.8, 1.2) after a few tokens of drift. The trainer also subtracts beta=0.05 times a divergence "
        "from the reward, which is left out here.",
    ),
)
