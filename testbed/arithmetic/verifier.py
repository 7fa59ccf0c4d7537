"""The verifiable reward: answers are parsed by the grammar `0 | [1-9][0-9]*` and the end token, and by nothing else."""

from __future__ import annotations

import torch

from testbed.arithmetic.task import ArithmeticTask, lengths_of, operands_of
from testbed.arithmetic.vocabulary import END, whole_numbers

MALFORMED = -1


def parsed(task: ArithmeticTask, answers: torch.Tensor) -> torch.Tensor:
    """The number that each answer writes in canonical form, -1 for every other row.

    Malformed are: no end token, no digit before it, a token that is no digit, a leading zero before other digits (the
    highest place: the last digit written where answers are reversed). What follows the end token does not count.

    Args:
        task: says in which order digits are written.
        answers: (..., T) int64 tokens with 1 <= T <= maximum_length.

    Returns:
        int64 of shape (...).

    Raises:
        ValueError: no whole numbers, or rows longer than the task allows.

    >>> from testbed.arithmetic.vocabulary import encode
    >>> parsed(ArithmeticTask(), torch.stack([encode("42$$"), encode("042$")]))
    tensor([42, -1])
    """
    T = (0, *whole_numbers("answers", answers, "(..., T)").shape)[-1]
    if not 1 <= T <= task.maximum_length:
        raise ValueError(f"answers have {T} tokens; expected at least 1 and at most {task.maximum_length}")
    ends = answers == END
    length = torch.where(ends.any(-1), ends.int().argmax(-1), 0)
    column = torch.arange(T, device=answers.device)
    before = column < length[..., None]
    digit = (answers >= 0) & (answers <= 9)
    highest = (length - 1).clamp(min=0) if task.reversed_answers else torch.zeros_like(length)
    padded = (answers.gather(-1, highest[..., None])[..., 0] == 0) & (length > 1)
    place = column if task.reversed_answers else length[..., None] - 1 - column
    number = torch.where(before, answers * 10 ** place.clamp(min=0), 0).sum(-1)
    return torch.where((length > 0) & (digit | ~before).all(-1) & ~padded, number, MALFORMED)


def rewards(task: ArithmeticTask, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Reward of every answer to its prompt: 1 for the right number in canonical form, 0 for anything else.

    With `per_digit_credit` an answer in canonical form earns the share of places, counted from the lowest, at which
    its digit is that of the right number; the places are those of the longer of the two. So 1 still means right, and
    malformed answers still earn 0.

    Args:
        task: what is computed.
        prompts: (..., prompt_length) int64 tokens.
        answers: (..., T) int64 tokens. Leading axes broadcast: (M, 1, .) and (K, .) give the (M, K) table of rewards.

    Returns:
        float64 in [0, 1], of the broadcast shape.

    Raises:
        ValueError: what `operands_of` and `parsed` raise, or leading axes that do not broadcast.

    >>> from testbed.arithmetic.vocabulary import encode
    >>> rewards(ArithmeticTask(), encode("07+35="), torch.stack([encode("42$$"), encode("042$"), encode("24$$")]))
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    right, given = task.result(*operands_of(task, prompts)), parsed(task, answers)
    if any(a != b and 1 not in (a, b) for a, b in zip(right.shape[::-1], given.shape[::-1], strict=False)):
        shapes = f"{tuple(right.shape)} prompts and {tuple(given.shape)} answers"
        raise ValueError(f"there are {shapes}; expected leading axes that broadcast, such as (M, 1) and (K,)")
    if not task.per_digit_credit:
        return (given == right).double()
    most = task.maximum_length
    places = torch.maximum(lengths_of(right, most), lengths_of(given, most))
    power = 10 ** torch.arange(most, device=answers.device)
    same = given[..., None] // power % 10 == right[..., None] // power % 10
    counted = same & (torch.arange(most, device=answers.device) < places[..., None])
    return torch.where(given == MALFORMED, 0.0, counted.sum(-1).double() / places)
