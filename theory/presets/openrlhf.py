"""OpenRLHF's PolicyLoss."""

from __future__ import annotations

from theory.groups import group
from theory.presets.record import Preset

_RELEASE = "OpenRLHF 0.11.2"
_GROUP = group(8)
_ADVANTAGE = "the advantage estimator is another setting, the group z-score of 8 stands here"
_CORRECTION = (
    "The correction is of old over rollout, a constant factor on PPO's term; masked tokens and sequences stay in the "
    "denominator."
)

PRESETS = (
    Preset(
        "openrlhf:ppo/token_mean",
        "PPO's clip per token, one mean over the tokens of the batch.",
        "ppo_clip",
        signal=_GROUP,
        settings=f"PolicyLoss(clip_eps_low=0.2, clip_eps_high=0.2, dual_clip=None), the defaults; {_ADVANTAGE}",
        source=_RELEASE,
    ),
    Preset(
        "openrlhf:gspo",
        "PPO's clip of the sequence's geometric mean ratio, mean over each sequence, then over sequences.",
        "gspo",
        {"clip": (0.8, 1.2)},
        signal=_GROUP,
        reduction="length_mean",
        settings=f"PolicyLoss(policy_loss_type='gspo'), which switches to means over sequences; {_ADVANTAGE}",
        source=_RELEASE,
        caution="The default bounds are PPO's, hundreds of times wider than GSPO's own. With a correction switched on "
        "the ratio is taken against the rollout policy instead.",
    ),
    Preset(
        "openrlhf:ppo+token_mask/token_mean",
        "PPO's clip times the ratio between engines where it lies in an interval (IcePop).",
        "decoupled",
        {"update": ("ppo_clip", {}), "behaviour": ("masked", {"interval": (0.5, 5.0)})},
        signal=_GROUP,
        anchor="old and rollout",
        settings="PolicyLoss(is_correction_level='token', is_correction_mode='mask', is_correction_threshold="
        f"(0.5, 5.0)); {_ADVANTAGE}",
        source=_RELEASE,
        caution=_CORRECTION,
    ),
    Preset(
        "openrlhf:ppo+token_clip/token_mean",
        "PPO's clip times the ratio between engines, clipped to an interval.",
        "decoupled",
        {"update": ("ppo_clip", {}), "behaviour": ("cispo", {"clip": (0.5, 5.0)})},
        signal=_GROUP,
        anchor="old and rollout",
        settings="PolicyLoss(is_correction_level='token', is_correction_mode='clip', is_correction_threshold="
        f"(0.5, 5.0)); {_ADVANTAGE}",
        source=_RELEASE,
        caution=_CORRECTION,
    ),
    Preset(
        "openrlhf:ppo+seq_mask/token_mean",
        "PPO's clip times the token ratio between engines, in sequences whose geometric mean lies in an interval.",
        "decoupled",
        {
            "update": ("ppo_clip", {}),
            "behaviour": ("sequence_mask", {"statistic": "geometric", "interval": (0.5, 5.0), "tokens": "token"}),
        },
        signal=_GROUP,
        anchor="old and rollout",
        settings="PolicyLoss(is_correction_level='seq', is_correction_mode='mask', is_correction_threshold="
        f"(0.5, 5.0)); {_ADVANTAGE}",
        source=_RELEASE,
        caution="Level 'seq' gates by the geometric mean, not by the product, and the tokens kept carry their own "
        "ratio. " + _CORRECTION,
    ),
)
