"""Arithmetic as a token task: a prompt such as `07+35=`, an answer such as `42$`, and nothing in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from testbed.arithmetic.vocabulary import END, encode
from theory import checks

OPERATIONS = {"addition": "+", "modular_addition": "+", "multiplication": "*"}
"""Operation and the symbol that prompts write it with."""

MOST_DIGITS = 3
"""Of an operand: a million prompts."""
LONGEST = 18
"""Tokens of an answer whose number still fits 64 bits."""


@dataclass(frozen=True)
class ArithmeticTask:
    """Two operands, one operation, and the number they make.

    A prompt is both operands with exactly `digits` digits, highest first, the operation's symbol between them and `=`
    after them: 2 digits + 2 tokens. The answer in canonical form is the number without leading zeros (zero itself is
    one 0), highest digit first or, with `reversed_answers`, lowest first, and the end token; so its length varies.

    Raises:
        ValueError: an unknown operation, an option without meaning, or a modulus where there is none.
    """

    operation: str = "addition"
    digits: int = 2
    """Of each operand, 1 to 3."""
    reversed_answers: bool = False
    """Lowest digit first, as carries run."""
    modulus: int | None = None
    """Of modular addition, and only there: from 2 to 10^digits. The operands are below it."""
    per_digit_credit: bool = False
    """Pay a wrong answer in canonical form for the digits that are right (see `testbed.arithmetic.verifier`)."""
    slack: int = 0
    """Tokens that an answer may have beyond the longest right one."""

    def __post_init__(self) -> None:
        """Check every field."""
        checks.known_name("operation", self.operation, OPERATIONS)
        _whole("digits", self.digits, 1, MOST_DIGITS)
        if (self.modulus is not None) != (self.operation == "modular_addition"):
            wanted = "a modulus" if self.modulus is None else "None"
            raise ValueError(f"modulus of {self.operation} is {self.modulus!r}; expected {wanted}")
        if self.modulus is not None:
            _whole("modulus", self.modulus, 2, 10**self.digits)
        for name in ("reversed_answers", "per_digit_credit"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected True or False")
        _whole("slack", self.slack, 0, LONGEST - self.maximum_length + self.slack if _is_whole(self.slack) else 0)

    @property
    def operands(self) -> int:
        """How many values an operand takes: 0 up to this, exclusive."""
        return self.modulus if self.modulus is not None else int(10**self.digits)

    @property
    def prompt_length(self) -> int:
        """Tokens of every prompt."""
        return 2 * self.digits + 2

    @property
    def maximum_length(self) -> int:
        """Tokens of the longest answer, its end token included. An answer that has not ended by then is malformed."""
        return len(str(self.result(self.operands - 1, self.operands - 1, largest=True))) + 1 + self.slack

    def result(self, first: Any, second: Any, *, largest: bool = False) -> Any:
        """What the operands make, of ints or of integer tensors alike; `largest`: the largest that any operands do."""
        if self.operation == "multiplication":
            return first * second
        if self.modulus is None:
            return first + second
        return self.modulus - 1 if largest else (first + second) % self.modulus


def all_prompts(task: ArithmeticTask) -> torch.Tensor:
    """(operands^2, prompt_length) int64 tokens of every prompt, the second operand changing fastest.

    >>> from testbed.arithmetic.vocabulary import decode
    >>> decode(all_prompts(ArithmeticTask())[735])
    '07+35='
    """
    numbers = torch.arange(task.operands)
    return prompts_of(task, numbers.repeat_interleave(task.operands), numbers.repeat(task.operands))


def prompts_of(task: ArithmeticTask, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(N, prompt_length) int64 tokens of the prompts with these operands, both (N,)."""
    symbol, equals = (encode(c).to(first.device).expand(len(first), 1) for c in (OPERATIONS[task.operation], "="))
    written = [_digits(number, task.digits).flip(-1) for number in (first, second)]
    return torch.cat([written[0], symbol, written[1], equals], dim=1)


def operands_of(task: ArithmeticTask, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two operands of prompts (..., prompt_length), int64 of shape (...).

    Raises:
        ValueError: rows of another length, or of which the operands are not digits.
    """
    n = task.digits
    if prompts.shape[-1] != task.prompt_length:
        raise ValueError(f"prompts have {prompts.shape[-1]} tokens; expected {task.prompt_length}")
    first, second = prompts[..., :n], prompts[..., n + 1 : 2 * n + 1]
    if bool(((first | second) & ~15).any()) or bool((torch.maximum(first, second) > 9).any()):
        raise ValueError(f"an operand of a prompt is not written in digits; expected {n} digits each")
    place = 10 ** torch.arange(n - 1, -1, -1, device=prompts.device)
    return (first * place).sum(-1), (second * place).sum(-1)


def right_answers(task: ArithmeticTask, prompts: torch.Tensor) -> torch.Tensor:
    """(N, maximum_length) int64 tokens of the right answer to each prompt, filled up with end tokens."""
    number = task.result(*operands_of(task, prompts))
    length = lengths_of(number, task.maximum_length)
    digits = _digits(number, task.maximum_length)
    column = torch.arange(task.maximum_length, device=prompts.device)
    place = column if task.reversed_answers else length[:, None] - 1 - column
    written = digits.gather(1, place.expand(len(number), -1).clamp(min=0))
    return torch.where(column < length[:, None], written, END)


def lengths_of(number: torch.Tensor, most: int) -> torch.Tensor:
    """Digits of each number without leading zeros; zero has one."""
    powers = 10 ** torch.arange(1, most, device=number.device)
    return 1 + (number[..., None] >= powers).sum(-1)


def _digits(number: torch.Tensor, count: int) -> torch.Tensor:
    """(N, count) the lowest digits, lowest first."""
    return number[..., None] // 10 ** torch.arange(count, device=number.device) % 10


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if not _is_whole(value) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; expected a whole number from {least} to {most}")
