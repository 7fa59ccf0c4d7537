"""The fourteen tokens: digits are their own numbers, then comes the end token, then what only prompts contain."""

from __future__ import annotations

import torch

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
        ValueError: a character without a token.
    """
    for symbol in text:
        if symbol not in _INDEX:
            raise ValueError(f"{text!r} contains {symbol!r}; expected only the characters {SYMBOLS!r}")
    return torch.tensor([_INDEX[symbol] for symbol in text], dtype=torch.int64)


def decode(tokens: torch.Tensor) -> str:
    """The text of a row (L,) of tokens, whatever follows the end included.

    >>> decode(torch.tensor([1, 2, 10, 10]))
    '12$$'
    """
    return "".join(SYMBOLS[index] for index in tokens.tolist())
