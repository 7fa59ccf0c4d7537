"""Arithmetic as a token task: a prompt such as `07+35=`, an answer such as `42$`, and nothing in between."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import torch

from testbed.arithmetic.vocabulary import END, SYMBOLS, whole_numbers
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
        self._keep("digits", 1, MOST_DIGITS)
        if (self.modulus is not None) != (self.operation == "modular_addition"):
            wanted = "a modulus" if self.modulus is None else "None"
            raise ValueError(f"modulus of {self.operation} is {self.modulus!r}; expected {wanted}")
        if self.modulus is not None:
            self._keep("modulus", 2, 10**self.digits)
        for name in ("reversed_answers", "per_digit_credit"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected True or False")
        self._keep("slack", 0, LONGEST - self._longest_right)

    def _keep(self, name: str, least: int, most: int) -> None:
        """Keep a whole number as the int it is."""
        value = getattr(self, name)
        whole = isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer()
        if not whole or not least <= value <= most:
            raise ValueError(f"{name} is {value!r}; expected a whole number from {least} to {most}")
        object.__setattr__(self, name, int(value))

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
        return self._longest_right + self.slack

    @property
    def _longest_right(self) -> int:
        """Tokens of the longest right answer, its end token included."""
        return len(str(self.result(self.operands - 1, self.operands - 1, largest=True))) + 1

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
    """(N, prompt_length) int64 tokens of the prompts with these operands, both (N,).

    Raises:
        ValueError: operands that are no whole numbers below `task.operands`, or not as many second as first ones.

    >>> from testbed.arithmetic.vocabulary import decode
    >>> decode(prompts_of(ArithmeticTask(), torch.tensor([7]), torch.tensor([35]))[0])
    '07+35='
    """
    both, written = {"first": first, "second": second}, []
    shapes = [tuple(whole_numbers(name, number, "(N,)").shape) for name, number in both.items()]
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise ValueError(f"first has shape {shapes[0]} and second {shapes[1]}; expected (N,) of both")
    for name, number in both.items():
        if not bool(((number >= 0) & (number < task.operands)).all()):
            wrong = int(number[(number < 0) | (number >= task.operands)][0])
            raise ValueError(f"{name} contains {wrong}; expected operands from 0 to {task.operands - 1}")
        written.append(_digits(number.long(), task.digits).flip(-1))
    symbol, equals = (torch.full_like(written[0][:, :1], token) for token in _marks(task))
    return torch.cat([written[0], symbol, written[1], equals], dim=1)


def operands_of(task: ArithmeticTask, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two operands of prompts (..., prompt_length), int64 of shape (...).

    Raises:
        ValueError: rows of another length, or that are no prompts of this task: an operand that is not written in
            digits or not below `task.operands`, another operation's symbol, no `=` at the end.

    >>> from testbed.arithmetic.vocabulary import encode
    >>> [int(number) for number in operands_of(ArithmeticTask(), encode("07+35="))]
    [7, 35]
    """
    n, (symbol, equals) = task.digits, _marks(task)
    if whole_numbers("prompts", prompts, "(..., prompt_length)").shape[-1:] != (task.prompt_length,):
        given = f"{prompts.shape[-1]} tokens" if prompts.ndim else "no axis"
        raise ValueError(f"prompts have {given}; expected {task.prompt_length}")
    first, second = prompts[..., :n], prompts[..., n + 1 : 2 * n + 1]
    right = (prompts[..., n] == symbol) & (prompts[..., -1] == equals)
    right = right & (torch.minimum(first, second) >= 0).all(-1) & (torch.maximum(first, second) <= 9).all(-1)
    place = 10 ** torch.arange(n - 1, -1, -1, device=prompts.device)
    numbers = (first * place).sum(-1), (second * place).sum(-1)
    if task.modulus is not None:
        right = right & (torch.maximum(*numbers) < task.modulus)
    if not bool(right.all()):
        _refuse(task, prompts[~right].reshape(-1, task.prompt_length)[0].tolist())
    return numbers


def right_answers(task: ArithmeticTask, prompts: torch.Tensor) -> torch.Tensor:
    """(..., maximum_length) int64 tokens of the right answer to each prompt (..., prompt_length), then end tokens.

    Raises:
        ValueError: what `operands_of` raises.

    >>> from testbed.arithmetic.vocabulary import decode, encode
    >>> decode(right_answers(ArithmeticTask(), encode("07+35=")))
    '42$$'
    """
    number = task.result(*operands_of(task, prompts))
    length = lengths_of(number, task.maximum_length)
    digits = _digits(number, task.maximum_length)
    column = torch.arange(task.maximum_length, device=prompts.device)
    place = column if task.reversed_answers else length[..., None] - 1 - column
    written = digits.gather(-1, place.expand(digits.shape).clamp(min=0))
    return torch.where(column < length[..., None], written, END)


def lengths_of(number: torch.Tensor, most: int) -> torch.Tensor:
    """Digits of each number without leading zeros; zero has one."""
    powers = 10 ** torch.arange(1, most, device=number.device)
    return 1 + (number[..., None] >= powers).sum(-1)


def _digits(number: torch.Tensor, count: int) -> torch.Tensor:
    """(..., count) the lowest digits, lowest first."""
    return number[..., None] // 10 ** torch.arange(count, device=number.device) % 10


def _marks(task: ArithmeticTask) -> tuple[int, int]:
    """The tokens of the operation's symbol and of `=`."""
    return SYMBOLS.index(OPERATIONS[task.operation]), SYMBOLS.index("=")


def _refuse(task: ArithmeticTask, row: list[int]) -> NoReturn:
    """Say what a prompt should have looked like."""
    text = "".join(SYMBOLS[token] if 0 <= token < len(SYMBOLS) else "?" for token in row)
    form = f"{'d' * task.digits}{OPERATIONS[task.operation]}{'d' * task.digits}="
    raise ValueError(
        f"a prompt is {text!r}; expected {form!r} with digits d and operands from 0 to {task.operands - 1}"
    )
