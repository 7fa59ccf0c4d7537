"""torchrl's losses for language models."""

from __future__ import annotations

from theory.groups import group
from theory.presets.record import Preset

_RELEASE = "torchrl 0.14.1"
_GROUP = group(8)
_ADVANTAGE = "MCAdvantage's group z-score; the size is the user's, 8 stands for any"
_CLIP = "clip_epsilon=0.2, aggregation='token_mean', the defaults"

PRESETS = (
    Preset(
        "torchrl:grpo/token_mean",
        "PPO's clip per token, one mean over the tokens of the batch.",
        "ppo_clip",
        signal=_GROUP,
        settings=f"GRPOLoss; {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
    ),
    Preset(
        "torchrl:dapo/token_mean",
        "The same with asymmetric bounds.",
        "ppo_clip",
        {"clip": (0.8, 1.28)},
        signal=_GROUP,
        settings=f"DAPO with clip_epsilon=(0.20, 0.28), which its documentation recommends; {_ADVANTAGE}",
        source=_RELEASE,
    ),
    Preset(
        "torchrl:grpo/prompt_mean",
        "PPO's clip per token, mean over each sequence, then over sequences.",
        "ppo_clip",
        signal=_GROUP,
        reduction="length_mean",
        settings=f"GRPOLoss(aggregation='prompt_mean'), clip_epsilon=0.2; {_ADVANTAGE}",
        source=_RELEASE,
    ),
    Preset(
        "torchrl:cispo/token_mean",
        "The token's ratio inside its bounds and nothing outside.",
        "masked",
        {"interval": (0.8, 1.2)},
        signal=_GROUP,
        settings=f"CISPOLoss; {_CLIP}; {_ADVANTAGE}",
        source=_RELEASE,
        caution="Not what its name says: without a stop-gradient on the clipped ratio, a clipped token has no gradient "
        "at all, whatever its advantage. CISPO keeps those tokens, with the bound as their weight.",
    ),
)
