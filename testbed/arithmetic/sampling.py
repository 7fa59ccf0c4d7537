"""What the behaviour policy makes of the network's logits: temperature, top-k, top-p, rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from theory import checks

FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Sums of the same probabilities in another order differ by less; p = 0.9 is not a binary number either.
_SAME = 1e-14


@dataclass(frozen=True)
class Sampler:
    """How answers are sampled from a network. The defaults sample from the network itself.

    The order is that of serving engines: round, temper, keep the k likeliest tokens, renormalise, keep the nucleus,
    renormalise.

    Raises:
        ValueError: an option without meaning.
    """

    temperature: float = 1.0
    """Divides the logits; 0 is greedy: the likeliest token (of equal ones the lowest index) with probability one."""
    top_k: int | None = None
    """The k likeliest tokens (of equal ones the lower index first); None keeps all."""
    top_p: float = 1.0
    """The fewest likeliest tokens that have this probability together (of equal ones the lower index first)."""
    weights: str | None = None
    """Round theta to this format before anything is computed: "bf16" or "fp16". The computation keeps its dtype."""
    logits: str | None = None
    """Round the logits to this format: "bf16" or "fp16"."""

    def __post_init__(self) -> None:
        """Check every option."""
        checks.non_negative("temperature", self.temperature)
        if self.top_k is not None:
            object.__setattr__(self, "top_k", checks.whole_number("top_k", self.top_k, 1, "tokens"))
        if not isinstance(self.top_p, Real) or isinstance(self.top_p, bool) or not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p is {self.top_p!r}; expected a number above 0 and up to 1")
        for name in ("weights", "logits"):
            if getattr(self, name) is not None:
                checks.known_name("format", getattr(self, name), FORMATS, of=name)


def checked_sampler(sampler: Any) -> Sampler:
    """Return it, once it is seen to be one.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(sampler, Sampler):
        raise ValueError(f"sampler is {sampler!r}; expected a Sampler, such as Sampler(temperature=0) for greedy")
    return sampler


def behaviour_parameters(sampler: Sampler, theta: Tensor) -> Tensor:
    """(P,) theta as the behaviour policy holds it: rounded to `sampler.weights` and back to its own dtype.

    Raises:
        ValueError: no `Sampler`.

    >>> behaviour_parameters(Sampler(weights="bf16"), torch.tensor([1.001]))
    tensor([1.])
    """
    form = checked_sampler(sampler).weights
    return theta if form is None else theta.to(FORMATS[form]).to(theta.dtype)


def sampler_log_probs(sampler: Sampler, logits: Tensor) -> Tensor:
    """(..., V) float64 log-probabilities, as `testbed.arithmetic.behaviour_log_probs`, with nothing refused.

    Rows of logits that are not numbers, or become so by rounding or tempering, are NaN: see `testbed.arithmetic.doors`.
    """
    if sampler.logits is not None:
        logits = logits.to(FORMATS[sampler.logits])
    logits = logits.double()
    if sampler.temperature == 0.0:
        best = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
        # The largest is NaN where any is.
        known = logits.amax(-1, keepdim=True).isfinite()
        return torch.where(known, torch.where(best, 0.0, -math.inf), math.nan).double()
    log_probs = (logits / sampler.temperature).log_softmax(-1)
    if sampler.top_k is not None and sampler.top_k < logits.shape[-1]:
        log_probs = _renormalised(log_probs, _ranks(log_probs) < sampler.top_k)
    if sampler.top_p < 1.0:
        log_probs = _renormalised(log_probs, _nucleus(log_probs, sampler.top_p))
    return log_probs


def drawn_tokens(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """(...) the token at which the cumulative probability (..., V) passes a uniform number (...) in [0, 1).

    As `testbed.arithmetic.chosen`, with nothing refused: of NaN some token is chosen.
    """
    cumulative = log_probs.exp().cumsum(-1)
    return (cumulative <= uniform[..., None] * cumulative[..., -1:]).sum(-1)


def _order(log_probs: Tensor) -> Tensor:
    return log_probs.argsort(dim=-1, descending=True, stable=True)


def _ranks(log_probs: Tensor) -> Tensor:
    return _order(log_probs).argsort(dim=-1)


def _nucleus(log_probs: Tensor, p: float) -> Tensor:
    order = _order(log_probs)
    ordered = log_probs.detach().exp().gather(-1, order)
    tails = ordered.flip(-1).cumsum(-1).flip(-1)
    kept = tails > 1.0 - p + _SAME
    kept[..., 0] = True
    return torch.zeros_like(kept).scatter(-1, order, kept)


def _renormalised(log_probs: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept, log_probs, -math.inf).log_softmax(-1)
