"""The fourteen tokens: digits are their own numbers, then comes the end token, then what only prompts contain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SYMBOLS = "0123456789$+*="
"""The token of index i is written as character i; `$` ends an answer and fills what is left of its row."""

END = 10
ANSWER_TOKENS = 11
"""Digits and the end token, indices 0..10: the actions of a policy that cannot write what only prompts contain."""

_INDEX = {symbol: index for index, symbol in enumerate(SYMBOLS)}


def encode(text: str) -> torch.Tensor:
    """(len(text),) int64 tokens of a text.

    >>> encode("7+5=").tolist()
    [7, 11, 5, 13]

    Raises:
        ValueError: no text, or a character without a token.
    """
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r}; expected a str of the characters {SYMBOLS!r}")
    for symbol in text:
        if symbol not in _INDEX:
            raise ValueError(f"{text!r} contains {symbol!r}; expected only the characters {SYMBOLS!r}")
    return torch.tensor([_INDEX[symbol] for symbol in text], dtype=torch.int64)


def decode(tokens: torch.Tensor) -> str:
    """The text of a row (L,) of tokens, whatever follows the end included.

    >>> decode(torch.tensor([1, 2, 10, 10]))
    '12$$'

    Raises:
        ValueError: no single row, or a number without a character.
    """
    if whole_numbers("tokens", tokens, "(L,)").ndim != 1:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; expected one row (L,)")
    for token in tokens.tolist():
        if token not in range(len(SYMBOLS)):
            raise ValueError(f"tokens contain {token}; expected whole numbers from 0 to {len(SYMBOLS) - 1}")
    return "".join(SYMBOLS[token] for token in tokens.tolist())


def whole_numbers(name: str, value: Any, shape: str) -> Tensor:
    """Return a tensor of an integer type, not bool; `shape` says which axes were expected.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is {named(value)}; expected {shape} whole numbers as a torch.Tensor")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {value.dtype}; expected {shape} whole numbers, such as torch.int64")
    return value


def token_rows(name: str, value: Any) -> Tensor:
    """Return tokens as (M, L), a single row (L,) as (1, L). Looks at no number, so that vmap passes.

    Raises:
        ValueError: no integers, or axes other than these.
    """
    rows = whole_numbers(name, value, "(M, L)")
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected (M, L), or (L,) for one row, with L >= 1")
    return rows


def checked_prompts(prompts: Any, vocabulary: int) -> Tensor:
    """Return prompts as (M, L) tokens below `vocabulary`; a single one (L,) as (1, L).

    Raises:
        ValueError: what `token_rows` raises, no prompt, or a token that is none.
    """
    rows = token_rows("prompts", prompts)
    if not len(rows):
        raise ValueError("prompts is empty; expected at least one prompt")
    if not bool(((rows >= 0) & (rows < vocabulary)).all()):
        token = int(rows[(rows < 0) | (rows >= vocabulary)][0])
        raise ValueError(f"prompts contain token {token}; expected tokens from 0 to {vocabulary - 1}")
    return rows


def named(value: Any) -> str:
    """What a value that was not expected is called."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}"
    return repr(value) if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
