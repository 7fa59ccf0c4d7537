"""All answers to one prompt as a process of the exact theory: a state for every prefix, one for every reward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

import theory
from testbed.arithmetic.model import ModelConfig, answer_logits
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.verifier import rewards
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, END

Array = NDArray[np.float64]

MOST_PREFIXES = 20_000
"""Prefixes of a tree: answers of up to 5 tokens have 11,111."""


@dataclass(frozen=True, eq=False)
class AnswerTree:
    """The answers to one prompt, up to the task's length limit.

    State k < S_p is a prefix of digits, shorter ones first and in numerical order; each further state ends the episode
    and pays its terminal reward. Actions are the answer tokens: digits, and the end token.
    """

    prompt: Tensor
    """(1, L) tokens."""
    process: theory.MarkovProcess
    rows: Tensor
    """(N, T) answers that between them have every prefix."""
    place: Tensor
    """(S_p, 2) row and position at which each prefix is read."""

    @property
    def prefixes(self) -> int:
        """S_p."""
        return len(self.place)

    def logits(self, config: ModelConfig, theta: Tensor) -> Tensor:
        """(S_p, A) logits of the network after each prefix; differentiable."""
        every = answer_logits(config, theta, self.prompt.to(theta.device), self.rows.to(theta.device))
        row, position = self.place.to(theta.device).T
        return every[row, position]

    def policy(self, logits: Tensor) -> theory.SoftmaxPolicy:
        """The tabular policy with these logits (S_p, A), in float64. States that end the episode choose nothing."""
        table = np.zeros((self.process.states, self.process.actions))
        table[: self.prefixes] = logits.detach().double().cpu().numpy()
        return theory.SoftmaxPolicy(table)


def answer_tree(task: ArithmeticTask, prompt: Tensor) -> AnswerTree:
    """The tree of all answers to a prompt (L,) or (1, L).

    Raises:
        ValueError: answers so long that the tree has over 20,000 prefixes.
    """
    prompt = prompt.reshape(1, -1)
    T, A = task.maximum_length, ANSWER_TOKENS
    sizes = [10**k for k in range(T)]
    first = np.concatenate([[0], np.cumsum(sizes)])
    S = int(first[-1])
    if S > MOST_PREFIXES:
        raise ValueError(
            f"answers of up to {T} tokens have {S} prefixes; expected at most {MOST_PREFIXES}: fewer digits, less slack"
        )
    paid, reward_of = _ends(task, prompt, sizes)
    state, action, after = _moves(sizes, first, reward_of, S)
    N = S + len(paid)
    ended = np.arange(S, N)
    # What ends stays where it is.
    rows = np.concatenate([state * A + action, np.repeat(ended, A) * A + np.tile(np.arange(A), len(ended))])
    columns = np.concatenate([after, np.repeat(ended, A)])
    transition = sparse.csr_matrix((np.ones(rows.size), (rows, columns)), shape=(N * A, N))
    initial = np.zeros(N)
    initial[0] = 1.0
    process = theory.MarkovProcess(
        initial, transition, np.zeros((N, A)), T, np.concatenate([np.zeros(S), paid]), np.arange(N) >= S
    )
    digits = [np.arange(sizes[-1]) // 10**j % 10 for j in reversed(range(T - 1))]
    answers = torch.full((sizes[-1], T), END)
    if digits:
        answers[:, : T - 1] = torch.from_numpy(np.stack(digits, axis=1))
    # A prefix of k digits is read in the row in which zeros follow it.
    place = [(value * 10 ** (T - 1 - k), k) for k in range(T) for value in range(sizes[k])]
    return AnswerTree(prompt, process, answers, torch.tensor(place))


def _ends(task: ArithmeticTask, prompt: Tensor, sizes: list[int]) -> tuple[Array, list[NDArray[np.int64]]]:
    """The distinct rewards, and which of them ends each answer: after k digits for k = 0..T (at T without an end)."""
    T, found = task.maximum_length, []
    for k in range(T + 1):
        count = 10**k
        answers = torch.full((count, T), END)
        values = torch.arange(count)
        for j in range(k):
            answers[:, j] = values // 10 ** (k - 1 - j) % 10
        found.append(rewards(task, prompt.expand(count, -1), answers).double().numpy())
    paid = np.unique(np.concatenate(found))
    return paid, [np.searchsorted(paid, values) for values in found]


def _moves(
    sizes: list[int], first: NDArray[np.int64], reward_of: list[NDArray[np.int64]], S: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """State, action and next state of every move out of a prefix."""
    moves = []
    for k, size in enumerate(sizes):
        values = np.arange(size)
        here = first[k] + values
        moves.append((here, np.full(size, END), S + reward_of[k]))
        for digit in range(10):
            longer = values * 10 + digit
            last = k + 1 == len(sizes)
            moves.append((here, np.full(size, digit), S + reward_of[k + 1][longer] if last else first[k + 1] + longer))
    state, action, after = (np.concatenate(column) for column in zip(*moves, strict=True))
    return state, action, after
