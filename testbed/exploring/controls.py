"""The controls: what they show of a state, and the state after some of them were moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import theory
from testbed.environments import environment_cards
from testbed.exploring.state import State, length_option, options_of, weight_of, written

CLIPPED = ("minpro", "ppo_clip", "cispo", "gspo")
"""Weights that the page's clip applies to."""
SIGNALS = (
    "target_advantage", "behaviour_advantage", "target_action_value", "behaviour_action_value", "reward_to_go",
    "outcome", "outcome(baseline=expected_return)", "group(size=2)", "group(size=4)", "group(size=8)",
)  # fmt: skip
CONTROLS = {
    "environment": "environment", "length": "length", "options": "other options", "drift": "drift",
    "drift_options": "drift's options", "kl": "KL", "weights": "weights", "low": "clip: low", "high": "clip: high",
    "signal": "signal", "batch": "n",
}  # fmt: skip
"""Name -> label."""
KLS = (*(float(f"{digit}e{power}") for power in range(-4, 0) for digit in (1, 1.5, 2, 3, 5, 7)), 1.0)
"""The places of the slider, in nats per token; its lower end stands for zero too."""


def shown_by(state: State) -> dict[str, Any]:
    """Control -> what it shows."""
    length = length_option(state.environment)
    others = options_of(state.environment, state.options)
    others.pop(length or "", None)
    low, high = state.clip
    return {
        "environment": state.environment,
        "length": _length(state),
        "options": written(others),
        "drift": state.drift,
        "drift_options": state.drift_options,
        "kl": float(np.interp(math.log(max(state.kl, KLS[0])), np.log(KLS), range(len(KLS)))),
        "weights": list(state.weights),
        "low": low,
        "high": None if math.isinf(high) else high,
        "signal": state.signal,
        "batch": math.log2(state.batch),
    }


def changed(state: State, asked: Mapping[str, Any]) -> tuple[State, list[str]]:
    """The state after every control that shows something else has been heard, and what some of them say in vain.

    All are heard, not only the last: two may be moved before the first answer is there.
    """
    shown, wrong = shown_by(state), []
    moved = {name: asked[name] for name in CONTROLS if name in asked and asked[name] != shown[name]}
    for name, value in moved.items():
        try:
            state = _moved(state, name, value)
        except (ValueError, TypeError) as why:
            wrong.append(f"{CONTROLS[name]}: {why}")
    return state, wrong


def offered(state: State) -> list[dict[str, str]]:
    """The weights that can be chosen: those of two policies, those of the page's clip, and what the address names."""
    plain = [name for name, card in theory.weight_cards().items() if name != "decoupled" and name not in CLIPPED[1:]]
    texts = dict.fromkeys((*plain, *(f"{name}(clip=clip)" for name in CLIPPED), *state.weights))
    return [{"label": label, "value": text} for text in texts if (label := _label(text, state.clip))]


def _moved(state: State, name: str, value: Any) -> State:
    if name == "environment":
        return replace(state, environment=value, options="")
    if name == "drift":
        return replace(state, drift=value, drift_options="")
    if name == "length":
        option = length_option(state.environment)
        if option is None:
            return state
        if not isinstance(value, (int, float)) or value < 1 or value != int(value):
            raise ValueError(f"{option} is {'no number' if value is None else value}; expected a whole number from 1")
        return replace(state, options=written({**options_of(state.environment, state.options), option: int(value)}))
    if name == "options":
        given = options_of(state.environment, value or "")
        option = length_option(state.environment)
        kept = options_of(state.environment, state.options)
        length = {option: kept[option]} if option in kept and option not in given else {}
        return replace(state, options=written({**given, **length}))
    if name == "kl":
        return replace(state, kl=KLS[round(float(value))])
    if name == "batch":
        return replace(state, batch=round(2.0 ** float(value)))
    if name == "low":
        return replace(state, clip=(float(value or 0.0), state.clip[1]))
    if name == "high":
        return replace(state, clip=(state.clip[0], math.inf if value is None else float(value)))
    if name == "weights":
        return replace(state, weights=tuple(value or ()))
    if name == "drift_options":
        return replace(state, drift_options=value or "")
    return replace(state, signal=value)


def _length(state: State) -> Any:
    option = length_option(state.environment)
    if option is None:
        return None
    return {**environment_cards()[state.environment].options, **options_of(state.environment, state.options)}[option]


def _label(text: str, clip: tuple[float, float]) -> str:
    try:
        return weight_of(text, clip).label
    except ValueError:  # not with this clip
        return ""
