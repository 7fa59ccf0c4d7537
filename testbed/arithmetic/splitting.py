"""Which prompts are trained on and which are held out: the same on every machine, for every seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real

import torch

from testbed.arithmetic.task import ArithmeticTask, prompts_of


@dataclass(frozen=True, eq=False)
class Split:
    """Prompts as int64 tokens, each (M, prompt_length), sorted by their operands."""

    training: torch.Tensor
    held_out: torch.Tensor


def split(task: ArithmeticTask, share: float = 0.2) -> Split:
    """Training and held-out prompts of a task.

    Unordered pairs of operands are ranked by the SHA-256 of their text and the first `share` of them is held out. Both
    orders of a pair fall on the same side, because all operations commute and 35+07 would give 07+35 away. How answers
    are written and paid does not enter, so such variants of a task can be compared on the same prompts.

    Args:
        task: what is computed.
        share: of the pairs that are held out, strictly between 0 and 1.

    Raises:
        ValueError: a share out of range, or one that leaves a side empty.

    >>> [len(side) for side in (split(ArithmeticTask()).training, split(ArithmeticTask()).held_out)]
    [7999, 2001]
    """
    if not isinstance(share, Real) or not 0.0 < share < 1.0:
        raise ValueError(f"share is {share!r}; expected a number strictly between 0 and 1")
    if not isinstance(task, ArithmeticTask):
        raise ValueError(f"task is {task!r}; expected an ArithmeticTask")
    kept = _split(task, float(share))
    # Copies, because who changes a prompt in place should not change it for the rest of the process.
    return Split(kept.training.clone(), kept.held_out.clone())


@lru_cache(maxsize=8)
def _split(task: ArithmeticTask, share: float) -> Split:
    n = task.operands
    pairs = sorted(
        ((i, j) for i in range(n) for j in range(i, n)),
        key=lambda pair: hashlib.sha256(f"{task.operation} {task.modulus} {pair[0]} {pair[1]}".encode()).digest(),
    )
    count = round(share * len(pairs))
    if not 0 < count < len(pairs):
        raise ValueError(f"share is {share!r} of {len(pairs)} pairs; expected one that leaves some on both sides")
    held = set(pairs[:count])
    sides = [[(i, j) for i in range(n) for j in range(n) if ((min(i, j), max(i, j)) in held) == out] for out in (0, 1)]
    training, held_out = (prompts_of(task, *torch.tensor(side).unbind(1)) for side in sides)
    return Split(training, held_out)
