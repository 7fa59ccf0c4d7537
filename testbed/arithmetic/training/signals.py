"""psi_t of sampled answers: outcomes, groups, and exact values where the signal asks for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import theory
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.trees import prefix_states, tree_rewards, tree_values

LogProbs = Callable[[], Tensor]
"""() -> (M, S_p, A) log-probabilities of a policy over the trees of the prompts; called where they are needed."""


def needed_values(signal: theory.Signal | theory.GroupSignal) -> str:
    """Whose exact values a signal takes, "target" or "behaviour"; empty where it takes none."""
    if isinstance(signal, theory.GroupSignal):
        return ""
    if signal.baseline == "expected_return":
        return "behaviour"
    named = signal.name if signal.name.endswith(("_advantage", "_action_value")) else str(signal.baseline)
    return named.partition("_")[0] if named.startswith(("target_", "behaviour_")) else ""


def token_signals(
    signal: theory.Signal | theory.GroupSignal,
    task: ArithmeticTask,
    prompts: Tensor,
    answers: Tensor,
    mask: Tensor,
    outcome: Tensor,
    policy: LogProbs,
    behaviour: LogProbs,
) -> Tensor:
    """(N, T) float64 signal of every token, zero where masked; the rewards of this task are paid at the end alone.

    Args:
        signal: of the estimator.
        task: what is computed.
        prompts: (M, L) tokens.
        answers: (N, T) tokens, N = M G, those of one prompt adjacent.
        mask: (N, T) bool.
        outcome: (N,) reward of each answer.
        policy: log-probabilities of the policy that is trained over the trees of the prompts.
        behaviour: those of the policy that sampled.
    """
    if isinstance(signal, theory.GroupSignal):
        groups = outcome.reshape(-1, signal.size).cpu().numpy()
        advantage = torch.from_numpy(signal.advantages(groups).reshape(-1, 1)).to(mask.device)
        return torch.where(mask, advantage, 0.0)
    rows = torch.arange(len(prompts), device=answers.device).repeat_interleave(len(answers) // len(prompts))[:, None]
    states = prefix_states(answers)

    def values() -> tuple[Tensor, Tensor, Tensor]:
        """State and action values of every token, and the expected reward of every answer's prompt."""
        of = policy if needed_values(signal) == "target" else behaviour
        found = tree_values(task, tree_rewards(task, prompts), of())
        return found.state[rows, states], found.action[rows, states, answers], found.expected_reward[rows]

    if signal.name.endswith(("_advantage", "_action_value")):
        state, action, _ = values()
        return torch.where(mask, action - state if signal.name.endswith("_advantage") else action, 0.0)
    if signal.name == "reward":
        last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
        return torch.where(last, outcome[:, None], 0.0)
    centred = outcome[:, None].expand(mask.shape)
    if signal.baseline == "expected_return":
        centred = centred - values()[2]
    elif signal.baseline != "none":
        centred = centred - (values()[0] if needed_values(signal) else float(signal.baseline))
    return torch.where(mask, centred, 0.0)
