"""The table of presets, and the way to them by name."""

from __future__ import annotations

from typing import Any

from theory import checks
from theory.presets import areal, openrlhf, papers, torchrl, trl, verl
from theory.presets.record import Preset

PRESETS: dict[str, Preset] = {
    preset.name: preset for library in (papers, trl, verl, torchrl, openrlhf, areal) for preset in library.PRESETS
}


def preset(name: str, *, group_size: int | None = None, **options: Any) -> Preset:
    """What a library or a paper computes under a name: weight, signal, reduction and defaults.

    Args:
        name: "library:recipe/aggregation", one of `theory.preset_cards()`.
        group_size: another number of trajectories per prompt than the library's default.
        options: of the preset's weight, such as clip=(0.8, 1.28), in the place of the library's defaults.

    >>> theory.preset("trl:grpo/dapo").estimator.label
    'ppo_clip x group(size=8, centre=mean, scale=std) x token_mean(batch=8)'
    >>> theory.preset("trl:grpo/cispo").weight.label  # left unset, TRL takes the offset 0.2 for the bound
    'cispo(clip=(0.0, 0.2))'

    Raises:
        ValueError: an unknown name or option, or an option's value without meaning.
    """
    found = PRESETS[checks.known_name("preset", name, PRESETS)]
    return found.with_options(group_size=group_size, **options) if options or group_size is not None else found


def preset_cards() -> dict[str, Preset]:
    """Every preset: name -> record.

    >>> theory.preset_cards()["paper:minpro"].name
    'paper:minpro'
    """
    return dict(PRESETS)
