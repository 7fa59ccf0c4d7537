"""Methods as their papers state them."""

from __future__ import annotations

from theory.groups import group
from theory.presets.record import Preset
from theory.signals import Signal

_Z = group(8)
_CENTRED = group(8, scale="none")
_SIZE = "The group's size is not the paper's: 8 stands for any"

PRESETS = (
    Preset(
        "paper:reinforce",
        "The on-policy score function estimator, used on data of another policy as if it were its own.",
        "none",
        signal=Signal("outcome"),
        reduction="sum",
        anchor="none",
        source="Williams 1992",
    ),
    Preset(
        "paper:rloo",
        "REINFORCE with the mean of the other samples as the baseline; no ratio.",
        "none",
        signal=group(8, "leave_one_out", "none"),
        reduction="sum",
        anchor="none",
        settings=_SIZE,
        source="RLOO, Ahmadian et al. 2024, arXiv 2402.14740",
        caution="Unbiased on policy alone: without a ratio it is biased as soon as the data are another policy's.",
    ),
    Preset(
        "paper:grpo",
        "PPO's clip per token, group z-score, mean over each sequence.",
        "ppo_clip",
        signal=_Z,
        reduction="length_mean",
        settings=_SIZE,
        source="GRPO, Shao et al. 2024, arXiv 2402.03300; without its penalty",
        caution="1/L favours short sequences where the advantage is positive and long ones where it is negative; the "
        "standard deviation bends the objective across prompts.",
    ),
    Preset(
        "paper:dr_grpo",
        "GRPO without the division by the standard deviation and without 1/L.",
        "ppo_clip",
        signal=_CENTRED,
        reduction="constant",
        settings=f"{_SIZE}. The constant is the maximum length",
        source="Dr.GRPO, Liu et al. 2025, arXiv 2503.20783",
        caution="The group's mean includes the sample itself: the expected gradient is short by exactly (G - 1) / G.",
    ),
    Preset(
        "paper:dapo",
        "Clip-higher, one mean over the group's tokens.",
        "ppo_clip",
        {"clip": (0.8, 1.28)},
        signal=_Z,
        settings="epsilon 0.2 below and 0.28 above",
        source="DAPO, Yu et al. 2025, arXiv 2503.14476",
        caution="Dynamic sampling, which drops groups of equal rewards and draws anew, changes the distribution of "
        "prompts; it is left out, as is the penalty on length.",
    ),
    Preset(
        "paper:gspo",
        "PPO's clip of the geometric mean of the sequence's ratios.",
        "gspo",
        signal=_Z,
        reduction="length_mean",
        settings="clip (1 - 3e-4, 1 + 4e-4)",
        source="GSPO, Zheng et al. 2025, arXiv 2507.18071",
    ),
    Preset(
        "paper:cispo",
        "The clipped ratio as a constant in front of the score; one mean over the group's tokens.",
        "cispo",
        signal=_Z,
        settings="The paper tunes the upper bound and prints no value",
        source="CISPO, MiniMax-M1 2025, arXiv 2506.13585",
    ),
    Preset(
        "paper:minpro",
        "The smallest earlier ratio times the token's own, clipped on both sides; one mean over the group's tokens.",
        "minpro",
        {"clip": (0.8, 1.28)},
        signal=_Z,
        settings="The paper's bounds are not public: (0.8, 1.28) is what a third party's script sets",
        source="MinPRO, Lei, Cheng & Tao 2026, arXiv 2601.22718",
        caution="The theorem behind it needs the advantage of the policy being trained; the group's advantage is that "
        "of the policy that generated the data.",
    ),
    Preset(
        "paper:m2po",
        "PPO's clip with bounds that the batch sets; one mean over the group's tokens.",
        "m2po",
        signal=_Z,
        settings="budget 0.04",
        source="M2PO, Zheng et al. 2025, arXiv 2510.01161",
    ),
)
