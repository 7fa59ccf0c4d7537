"""`name(option=value)`, as people write a choice with its options, and values as Python literals."""

from __future__ import annotations

import ast
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import theory
from theory import checks


def literal(text: str) -> Any:
    """A Python literal; `inf` is infinity, and a bare word is itself.

    >>> literal("(0.8, inf)"), literal("token")
    ((0.8, inf), 'token')
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        raise ValueError(f"{text!r} is no value; expected a Python literal such as 0.2, (0.8, 1.28) or None") from None


def call(text: str, such_as: str = "ppo_clip(clip=(0.8, 1.28))") -> tuple[str, dict[str, Any]]:
    """Name and options; an option may be another weight with its own.

    >>> call("ppo_clip(clip=(0.8, 1.28))")
    ('ppo_clip', {'clip': (0.8, 1.28)})
    """
    name, bracket, _ = text.strip().partition("(")
    if not bracket:
        return name.strip(), {}
    try:
        parsed = ast.parse(f"_({text.strip()[len(name) + 1 :]}", mode="eval").body
        if not isinstance(parsed, ast.Call) or parsed.args or any(k.arg is None for k in parsed.keywords):
            raise ValueError(text)
        return name.strip(), {str(k.arg): _value(k.value) for k in parsed.keywords}
    except (SyntaxError, ValueError) as why:
        if str(why).startswith("unknown "):
            raise
        raise ValueError(f"{text!r} is no name with options; expected one such as {such_as}") from None


def weight(text: str) -> theory.Weight:
    """A weight with its options, such as `minpro(clip=(0.8, 1.28))`."""
    name, given = call(text, "minpro(clip=(0.8, 1.28))")
    return theory.weight(name, **given)


def signal(text: Any) -> theory.Signal | theory.GroupSignal:
    """A signal with its options, such as `outcome(baseline=0.5)` or `group(size=8)`; a made one stays as it is."""
    if isinstance(text, (theory.Signal, theory.GroupSignal)):
        return text
    name, given = call(text, "group(size=4)")
    checks.known_name("signal", name, [*theory.signal_cards(), "group"])
    try:
        return theory.group(**given) if name == "group" else theory.signal(name, **given)
    except TypeError as why:
        raise ValueError(f"signal is {text!r}: {why}; expected one such as group(size=4)") from why


def reduction(text: str) -> theory.Reduction:
    """A reduction with its batch, such as `token_mean(batch=8)`."""
    name, given = call(text, "token_mean(batch=8)")
    for option in given:
        checks.known_name("option", option, ("batch",), of=f"reduction {name!r}")
    return theory.reduction(name, **given)


def options(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value`, each a Python literal."""
    result = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError(f"--option is {pair!r}; expected name=value, such as clip=0.2")
        result[name.strip()] = literal(value)
    return result


def function_at(path: str) -> Callable[..., Any]:
    """`package.module:function`, imported; modules of the working directory are found.

    Raises:
        ValueError: the path has another form, or there is no such module or function.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ValueError(f"loss is {path!r}; expected package.module:function")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as why:
        reason = str(why).strip().split("\n")[0]
        raise ValueError(f"module {module_name!r} cannot be imported: {type(why).__name__}: {reason}") from why
    known = [n for n, value in vars(found).items() if getattr(value, "__module__", "") == found.__name__]
    for part in name.split("."):
        if not hasattr(found, part):
            checks.known_name("function", name, known or ["none"], of=f"module {module_name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{path!r} is a {type(found).__name__}; expected a function")
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"inf": math.inf, "nan": math.nan}.get(node.id, node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return theory.weight(node.func.id, **{str(k.arg): _value(k.value) for k in node.keywords})
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, (ast.Tuple, ast.List)):
        values = [_value(item) for item in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    return ast.literal_eval(node)
