"""verl's policy losses (core_algos), and its rollout correction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from theory.groups import group
from theory.presets.record import Preset

_RELEASE = "verl 0.9.1"
_GROUP = group(8)
_ADVANTAGE = "adv_estimator=grpo (sample standard deviation plus 1e-6); rollout.n is the user's, 8 stands for any"
_CLIP = "clip_ratio_low=0.2, clip_ratio_high=0.2, clip_ratio_c=3.0"
_SAME_CLIP = "DPPO's thresholds are passed as clip_ratio; left at PPO's 0.2 they are wider than the paper's"
_MODES = {
    "token-mean": ("token_mean", "one mean over the tokens of the batch"),
    "seq-mean-token-sum": ("sum", "sum over each sequence, mean over sequences"),
    "seq-mean-token-mean": ("length_mean", "mean over each sequence, then over sequences"),
    "seq-mean-token-sum-norm": ("constant", "sum over each sequence divided by the batch's width, mean over sequences"),
}
_EMPTY = "Sequences without a token that counts are left out of the mean over sequences."


def _by_mode(
    recipe: str, summary: str, weight: str, options: dict[str, Any], settings: str, caution: str
) -> list[Preset]:
    """The recipe with each loss_agg_mode."""
    presets = []
    for mode, (reduction, words) in _MODES.items():
        presets.append(
            Preset(
                f"verl:{recipe}/{mode}",
                f"{summary}; {words}.",
                weight,
                options,
                signal=_GROUP,
                reduction=reduction,
                settings=f"loss_agg_mode={mode!r}; {settings}; {_ADVANTAGE}",
                source=_RELEASE,
                caution=f"{caution} {_EMPTY}".strip() if reduction != "token_mean" else caution,
                anchor="none" if weight == "none" else "old",
                empty_count=False,
            )
        )
    return presets


_VANILLA: dict[str, Any] = {"clip": (0.8, 1.2), "dual": 3.0}
_VANILLA_CAUTION = "The dual clip at 3 is on by default, and log-ratios are bounded to [-20, 20]."


def _corrected(level: str, options: dict[str, Any]) -> list[Preset]:
    """PPO's term times a truncated ratio of the training over the rollout engine."""
    recipe = f"vanilla+rollout_is={level}"
    presets = _by_mode(
        recipe,
        f"PPO's clip with dual clip, times the {level}'s ratio between engines up to a cap",
        "decoupled",
        {"update": ("ppo_clip", _VANILLA), "behaviour": ("truncated", {**options, "cap": 2.0})},
        f"policy_loss vanilla with rollout_is={level!r}, rollout_is_threshold=2.0",
        "'sequence' is the product of the ratios here. The weights of old over rollout are constants."
        + " "
        + _VANILLA_CAUTION,
    )
    return [replace(p, anchor="old and rollout") for p in presets]


def _bypassed(level: str, options: dict[str, Any]) -> list[Preset]:
    """REINFORCE with a truncated ratio of the trained over the rollout policy."""
    presets = _by_mode(
        f"reinforce+rollout_is={level}",
        f"REINFORCE weighted with the {level}'s ratio to the rollout policy up to a cap",
        "truncated",
        {**options, "cap": 2.0},
        f"bypass_mode with loss_type='reinforce', rollout_is={level!r}, rollout_is_threshold=2.0",
        "No clip of PPO's; 'sequence' is the product of the ratios here.",
    )
    return [replace(p, anchor="rollout") for p in presets]


PRESETS = (
    *_by_mode(
        "vanilla",
        "PPO's clip per token with dual clip",
        "ppo_clip",
        _VANILLA,
        f"policy_loss vanilla, the default; {_CLIP}",
        _VANILLA_CAUTION,
    ),
    *_by_mode(
        "gspo",
        "PPO's clip of the sequence's geometric mean ratio",
        "gspo",
        {"clip": (0.8, 1.2)},
        "policy_loss gspo; clip_ratio_low=0.2, clip_ratio_high=0.2",
        "The default bounds are PPO's, hundreds of times wider than GSPO's own; the default mean over tokens is "
        "another estimator than the paper's mean over each sequence.",
    ),
    *_by_mode(
        "cispo",
        "The ratio between two bounds as a constant in front of the score",
        "cispo",
        {"clip": (0.8, 1.2)},
        "policy_loss cispo; clip_ratio_low=0.2, clip_ratio_high=0.2, offsets from 1",
        "Both bounds bind by default, where the paper has no lower one.",
    ),
    Preset(
        "verl:sapo",
        "A soft gate of the ratio; mean over each sequence, then over sequences, whatever loss_agg_mode says.",
        "sapo",
        signal=_GROUP,
        reduction="length_mean",
        settings=f"policy_loss sapo, temperatures 1.0 and 1.05; {_ADVANTAGE}",
        source=_RELEASE,
        caution=f"loss_agg_mode is not looked at. {_EMPTY}",
        empty_count=False,
    ),
    Preset(
        "verl:geo_mean",
        "The geometric mean of the sequence's ratios, each clipped on one side; mean over sequences.",
        "gmpo",
        signal=_GROUP,
        reduction="length_mean",
        settings=f"policy_loss geo_mean with clip_ratio_low=0.4, clip_ratio_high=0.4, in logs; {_ADVANTAGE}",
        source=_RELEASE,
        caution="clip_ratio bounds the log-ratio here: left at 0.2 the interval is (e^-0.2, e^0.2). loss_agg_mode is "
        "not looked at.",
    ),
    *_by_mode(
        "dppo_tv",
        "The ratio up to a cap, masked where the sampled token's probability has moved too far",
        "dppo",
        {"divergence": "binary_tv", "delta": 0.15, "cap": 3.0},
        "policy_loss dppo_tv with clip_ratio=0.15; clip_ratio_c=3.0",
        f"{_SAME_CLIP}. The cap is clip_ratio_c, 3 by the actor's default where the method asks for a large one.",
    ),
    *_by_mode(
        "dppo_kl",
        "The ratio up to a cap, masked where the sampled token's binary divergence is too large",
        "dppo",
        {"divergence": "binary_kl", "delta": 0.05, "cap": 3.0},
        "policy_loss dppo_kl with clip_ratio=0.05; clip_ratio_c=3.0",
        f"{_SAME_CLIP}. The cap is clip_ratio_c, 3 by the actor's default where the method asks for a large one.",
    ),
    *_by_mode(
        "gpg",
        "REINFORCE without a ratio",
        "none",
        {},
        "policy_loss gpg",
        "Reused data are treated as the policy's own.",
    ),
    *_corrected("token", {}),
    *_corrected("sequence", {"level": "sequence"}),
    *_bypassed("token", {}),
    *_bypassed("sequence", {"level": "sequence"}),
)
