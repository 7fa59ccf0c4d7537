"""Sweeps as TOML files: the little that a sweep needs of the format, written; the standard library reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

LINE = 100


def written(data: Mapping[str, Any]) -> str:
    """A TOML document of one level: strings, booleans, numbers, arrays, and inline tables inside arrays.

    >>> settings = {"kl": [0.1, float("inf")], "weights": ["token", {"name": "minpro", "clip": (0.8, 1.28)}]}
    >>> print(written(settings), end="")
    kl = [0.1, inf]
    weights = ["token", {name = "minpro", clip = [0.8, 1.28]}]
    """
    return "".join(f"{key} = {_top(value, len(key) + 3)}\n" for key, value in data.items())


def _top(value: Any, used: int) -> str:
    text = _value(value)
    if isinstance(value, (list, tuple)) and used + len(text) > LINE:
        return "[\n" + "".join(f"    {_value(v)},\n" for v in value) + "]"
    return text


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # repr is the shortest text that reads back as the same number; TOML has "nan" and "inf" as Python prints them.
        return "nan" if math.isnan(value) else repr(value)
    if isinstance(value, str):
        # DEL is the one character that JSON leaves bare and TOML forbids.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    raise ValueError(
        f"a sweep cannot hold {value!r}; expected text, a number, true or false, or lists and tables of them"
    )


def _key(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key) else _value(key)
