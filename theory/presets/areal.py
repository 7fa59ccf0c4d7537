"""AReaL's actor losses."""

from __future__ import annotations

from theory.groups import group
from theory.presets.record import Preset

_RELEASE = "AReaL 1.0.4"
_GROUP = group(8)
_ADVANTAGE = "the advantage is another setting, the group z-score of 8 stands here"
_CORRECTION = "The correction is of the proximal policy over the one that generated the data: decoupled PPO. "

PRESETS = (
    Preset(
        "areal:ppo/token_mean",
        "PPO's clip per token, one mean over the tokens of the batch.",
        "ppo_clip",
        signal=_GROUP,
        settings=f"ppo_actor_loss_fn(eps_clip=0.2, importance_sampling_level='token'); {_ADVANTAGE}",
        source=_RELEASE,
    ),
    Preset(
        "areal:ppo+mask/token_mean",
        "Decoupled PPO: PPO's clip against the proximal policy, times proximal over rollout inside an interval.",
        "decoupled",
        {"update": ("ppo_clip", {}), "behaviour": ("masked", {"interval": (0.5, 1.5)})},
        signal=_GROUP,
        anchor="old and rollout",
        settings=f"rejection_sampling level='token', action='mask', lower=0.5, upper=1.5; {_ADVANTAGE}",
        source=_RELEASE,
        caution=_CORRECTION + "The interval is that of the reference data; rejected tokens stay in the denominator.",
    ),
    Preset(
        "areal:ppo+clamp/token_mean",
        "Decoupled PPO: PPO's clip against the proximal policy, times proximal over rollout up to a cap.",
        "decoupled",
        {"update": ("ppo_clip", {}), "behaviour": ("truncated", {"cap": 1.5})},
        signal=_GROUP,
        anchor="old and rollout",
        settings=f"rejection_sampling level='token', action='clamp', upper=1.5; {_ADVANTAGE}",
        source=_RELEASE,
        caution=_CORRECTION + "The cap is that of the reference data.",
    ),
    Preset(
        "areal:sapo/token_mean",
        "A soft gate of the ratio, steeper for negative advantages; one mean over the tokens of the batch.",
        "sapo",
        signal=_GROUP,
        settings=f"sapo_loss_fn with temperatures 1.0 and 1.05; {_ADVANTAGE}",
        source=_RELEASE,
        caution="SAPO's paper, TRL and verl take the mean over each sequence first.",
    ),
)
