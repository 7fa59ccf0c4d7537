"""The policies that environments come with: no seed, nothing degenerate, every action possible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory import MarkovProcess, SoftmaxPolicy

Array = NDArray[np.float64]


def best_actions(process: MarkovProcess) -> NDArray[np.bool_]:
    """Which actions to favour, (S, A): those that are optimal with the whole horizon ahead, by backward induction.

    Where several are (in parity all are, until the last token), those that are optimal at the most of the steps.
    """
    ended = process.absorbing
    value, times = process.terminal_reward, np.zeros((process.states, process.actions), int)
    for _ in range(process.horizon):
        future = np.asarray(process.transition_matrix @ value).reshape(process.states, process.actions)
        action_value = process.expected_reward + process.discount * future
        best = action_value.max(axis=1, keepdims=True)
        optimal = action_value >= best - 1e-9 * np.maximum(1.0, np.abs(best))
        times += optimal
        value = np.where(ended, process.terminal_reward, best[:, 0])
    often = np.where(optimal, times, 0)
    return np.asarray(often == often.max(axis=1, keepdims=True))


def leaning_policy(process: MarkovProcess, strength: float = 1.0, wave: float = 0.5) -> SoftmaxPolicy:
    """logits[s, a] = strength * 1{a is one of the best actions in s} + wave * sin(1 + s*A + a).

    A half-trained policy: the sine breaks every symmetry between states and between actions that could hide a wrong
    formula. No random numbers, so it is the same on every machine.
    """
    index = 1.0 + np.arange(process.states * process.actions).reshape(process.states, process.actions)
    return SoftmaxPolicy(strength * best_actions(process) + wave * np.sin(index))
