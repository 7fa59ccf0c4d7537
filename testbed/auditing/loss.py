"""A loss of the user: its parameters by name, its value and its gradient in the token log-probabilities."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from testbed.auditing.batch import TENSORS, Array, Batch
from theory import checks


class Evaluated(NamedTuple):
    """A loss at one batch."""

    value: float
    ascent: Array
    """(N, T), minus the gradient in logp: what the step ascends. Zero where autograd finds no path."""
    connected: bool
    """Whether autograd connects the loss to logp at all."""


@dataclass(frozen=True, eq=False)
class Loss:
    """A function to minimise, with its options fixed. Made by `as_loss`."""

    function: Callable[..., Any]
    name: str
    takes: tuple[str, ...]
    """Which of `TENSORS` it takes."""
    options: Mapping[str, Any]
    """Its other parameters and their values, defaults included."""

    @property
    def anchors(self) -> tuple[str, ...]:
        """What a ratio may be measured from."""
        return tuple(name for name in ("old_logp", "rollout_logp") if name in self.takes)

    def at(self, batch: Batch, dtype: str = "float64") -> Evaluated:
        """Value and ascent direction at one batch.

        Raises:
            ValueError: the loss fails, is no scalar, or has no gradient where it says that it has one.
        """
        torch = import_torch()
        tensors = {name: torch.as_tensor(getattr(batch, name).copy()).to(getattr(torch, dtype)) for name in self.takes}
        logp = tensors["logp"].requires_grad_(True)
        try:
            value = self.function(**tensors, **self.options)
        except (Exception, SystemExit) as why:
            raise ValueError(f"loss {self.name!r} fails with {_sentence(why)}") from why
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else _type(value)
            raise ValueError(f"loss {self.name!r} returns {what}; expected a scalar tensor, to be minimised")
        if not value.requires_grad:
            return Evaluated(float(value), np.zeros(batch.logp.shape), False)
        try:
            (gradient,) = torch.autograd.grad(value.reshape(()), logp, allow_unused=True)
        except Exception as why:
            raise ValueError(f"loss {self.name!r} is not differentiable in logp: {_sentence(why)}") from why
        if gradient is None:
            return Evaluated(float(value.detach()), np.zeros(batch.logp.shape), False)
        return Evaluated(float(value.detach()), -gradient.detach().double().numpy(), True)


def as_loss(function: Callable[..., Any], options: Mapping[str, Any] | None = None, name: str = "") -> Loss:
    """Match a function's parameters by name.

    Raises:
        ValueError: it has no logp, a parameter that nothing fills, or not the option that was given.
    """
    if not callable(function):
        raise ValueError(f"loss is {function!r}; expected a function of {', '.join(TENSORS)}")
    given = dict(options or {})
    name = name or getattr(function, "__qualname__", type(function).__name__)
    try:
        # A module of PyTorch is called as *args; what it takes is said by its forward.
        signature = inspect.signature(getattr(function, "forward", function))
    except (TypeError, ValueError) as why:
        raise ValueError(f"loss {name!r} does not tell its parameters; expected a Python function") from why
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {p.name: p for p in signature.parameters.values() if p.kind in named}
    own = [p for p in parameters if p not in TENSORS]
    if "logp" not in parameters:
        raise ValueError(f"loss {name!r} has parameters {_listed(parameters)}; expected logp among them")
    for option in given:
        if option not in own and not own:
            raise ValueError(f"loss {name!r} has no options; got {option!r}")
        checks.known_name("option", option, own, of=f"loss {name!r}")
    for parameter in own:
        if parameter not in given and parameters[parameter].default is inspect.Parameter.empty:
            raise ValueError(
                f"loss {name!r} has a parameter {parameter!r} that nothing fills{_nearest(parameter, parameters)}; "
                f"expected {', '.join(TENSORS)}, a default, or --option {parameter}=value"
            )
    values = {p: given.get(p, parameters[p].default) for p in own}
    return Loss(function, name, tuple(p for p in TENSORS if p in parameters), values)


def import_torch() -> Any:
    """PyTorch, or one sentence that says how to get it."""
    try:
        import torch
    except ImportError as why:
        raise ValueError(
            "auditing a loss needs PyTorch, which is not installed; expected it after pip install "
            "'offpolicy-testbed[torch]'"
        ) from why
    return torch


def _nearest(parameter: str, taken: Mapping[str, Any]) -> str:
    free = [name for name in TENSORS if name not in taken]
    near = difflib.get_close_matches(parameter.lower(), free, n=1, cutoff=checks.SIMILAR)
    return f" (the nearest name is {near[0]!r})" if near else ""


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) if names else "none"


def _type(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _sentence(error: BaseException) -> str:
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
