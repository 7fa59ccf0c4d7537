"""Any MarkovProcess as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from testbed.environments.registry import environment
from theory import MarkovProcess


class ProcessEnv(gymnasium.Env[np.int64, np.int64]):
    """Samples a MarkovProcess step by step; the observation is the state.

    `terminated` is true when an absorbing state is entered or the horizon is reached, for the value after the horizon
    is the terminal reward and nothing is left to bootstrap; `truncated` is never true. `info` holds {"time": t}, the
    number of steps taken, since the state alone does not say how far the horizon is.

    Rewards are paid as they fall, not discounted by the environment: whoever collects them weighs step t by
    discount^t. The terminal reward is added to the last step's reward; a process pays it one step after, at
    discount^L, so it is added times discount (which is 1 in every registered environment but garnet where asked).
    Thus sum over t < L of discount^t reward_t is exactly the return of the process.

    Args:
        process: the process; its start distribution gives absorbing states no mass.
        render_mode: None, there is nothing to draw.

    Raises:
        ValueError: an episode could start in an absorbing state, where no step can be taken.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, process: MarkovProcess, render_mode: str | None = None) -> None:
        """Check the start states and lay the edges out by (state, action)."""
        stuck = np.flatnonzero(process.absorbing & (process.initial > 0))
        if stuck.size:
            raise ValueError(
                f"initial gives probability {process.initial[stuck[0]]:.6g} to the absorbing state {stuck[0]}; "
                "expected start states in which an action can be taken"
            )
        self.process = process
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Discrete(process.states)
        self.action_space = gymnasium.spaces.Discrete(process.actions)
        row = process.edges.state * process.actions + process.edges.action
        self._first_edge = np.searchsorted(row, np.arange(process.states * process.actions + 1))
        self._state: int | None = None
        self._time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw a start state."""
        super().reset(seed=seed)
        self._state, self._time = self._draw(self.process.initial), 0
        return np.int64(self._state), {"time": 0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action, and draw the next state."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("the episode has ended or not begun; call reset() before step()")
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action!r}; expected a whole number from 0 to {self.process.actions - 1}")
        edges, row = self.process.edges, self._state * self.process.actions + int(action)
        begin, end = self._first_edge[row : row + 2]
        edge = begin + self._draw(edges.probability[begin:end])
        state, reward = int(edges.next_state[edge]), float(edges.reward[edge])
        self._time += 1
        terminated = bool(self.process.absorbing[state]) or self._time == self.process.horizon
        if terminated:
            reward += self.process.discount * float(self.process.terminal_reward[state])
        self._state = None if terminated else state
        return np.int64(state), reward, terminated, False, {"time": self._time}

    def _draw(self, probability: Any) -> int:
        """An index by inversion; dividing by the last sum keeps rounding from drawing past the end."""
        below = np.cumsum(probability)
        return int(np.searchsorted(below / below[-1], self.np_random.random(), side="right"))


def named_process_env(name: str, render_mode: str | None = None, **options: Any) -> ProcessEnv:
    """What `gymnasium.make("offpolicy/Chain-v0", states=6)` calls: the registered environment with these options."""
    return ProcessEnv(environment(name, **options).process, render_mode)
