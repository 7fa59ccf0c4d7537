"""All answers to one prompt as a process of the exact theory: a state for every prefix, one for every reward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

import theory
from testbed.arithmetic.model import ModelConfig
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.trees import DIGITS, first_states, tree_logits, tree_rewards
from testbed.arithmetic.vocabulary import END, token_rows


@dataclass(frozen=True, eq=False)
class AnswerTree:
    """The answers to one prompt, up to the task's length limit.

    State k < S_p is a prefix of digits, shorter ones first and in numerical order; each further state ends the episode
    and pays its terminal reward. Actions are the answer tokens: digits, and the end token.
    """

    task: ArithmeticTask
    prompt: Tensor
    """(1, L) tokens."""
    process: theory.MarkovProcess

    @property
    def prefixes(self) -> int:
        """S_p."""
        return first_states(self.task)[-1]

    def logits(self, config: ModelConfig, theta: Tensor) -> Tensor:
        """(S_p, A) logits of the network after each prefix; differentiable."""
        return tree_logits(config, theta, self.task, self.prompt.to(theta.device))[0]

    def policy(self, logits: Tensor) -> theory.SoftmaxPolicy:
        """The tabular policy with these logits (S_p, A), in float64. States that end the episode choose nothing.

        Raises:
            ValueError: logits of another shape, or what `theory.SoftmaxPolicy` raises.
        """
        if logits.shape != (self.prefixes, self.process.actions):
            shape = (self.prefixes, self.process.actions)
            raise ValueError(f"logits have shape {tuple(logits.shape)}; expected {shape}")
        table = np.zeros((self.process.states, self.process.actions))
        table[: self.prefixes] = logits.detach().double().cpu().numpy()
        return theory.SoftmaxPolicy(table)


def answer_tree(task: ArithmeticTask, prompt: Tensor) -> AnswerTree:
    """The tree of all answers to a prompt (L,) or (1, L).

    Raises:
        ValueError: no single prompt of this task, or answers so long that the tree has over 20,000 prefixes.

    >>> from testbed.arithmetic.vocabulary import encode
    >>> tree = answer_tree(ArithmeticTask(), encode("07+35="))
    >>> tree.prefixes, tree.process.states  # an answer ends in a state of reward 0 or one of reward 1
    (1111, 1113)
    """
    prompt = token_rows("prompt", prompt)
    if len(prompt) != 1:
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}; expected one prompt, (L,) or (1, L)")
    after, ends = _moves(task)
    S, A = after.shape
    paid, reward_of = np.unique(tree_rewards(task, prompt)[0].cpu().numpy()[ends], return_inverse=True)
    N = S + len(paid)
    to = np.arange(N)[:, None].repeat(A, 1)
    to[:S] = after
    to[:S][ends] = S + reward_of
    # What ends stays where it is. Every move leads to one state, so that the rows of the matrix have one entry.
    transition = sparse.csr_array((np.ones(N * A), to.reshape(-1), np.arange(N * A + 1)), shape=(N * A, N))
    initial = np.zeros(N)
    initial[0] = 1.0
    process = theory.MarkovProcess(
        initial, transition, np.zeros((N, A)), task.maximum_length, np.concatenate([np.zeros(S), paid]),
        np.arange(N) >= S,
    )  # fmt: skip
    return AnswerTree(task, prompt, process)


@lru_cache(maxsize=8)
def _moves(task: ArithmeticTask) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(S_p, A) the prefix after every action, and which actions end the answer."""
    first = first_states(task)
    S, last = first[-1], first[-2]
    ends = np.zeros((S, END + 1), dtype=bool)
    ends[:, END] = ends[last:] = True
    after = np.zeros((S, END + 1), dtype=np.int64)
    # The children of all prefixes, in order, are the prefixes from the second one on.
    after[:last, :DIGITS] = np.arange(1, S).reshape(last, DIGITS)
    return after, ends
