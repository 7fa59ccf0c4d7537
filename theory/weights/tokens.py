"""What a weight sees of a batch of token sequences, in NumPy or PyTorch alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import array_api_compat

from theory import checks
from theory.weights.needs import NEEDS, RANGES


class Tokens(NamedTuple):
    """N sequences of up to T tokens. At masked tokens log_ratio, advantage and what is given beside them are 0."""

    xp: Any
    """The array namespace (array API)."""
    log_ratio: Any
    """(N, T) l_t = log pi(a_t|s_t) - log mu(a_t|s_t)."""
    mask: Any
    """(N, T) bool, true where the token counts."""
    advantage: Any
    """(N, T), or None where the weight does not look at it."""
    given: Mapping[str, Any] = MappingProxyType({})
    """What the weight needs beside these, by its name in `theory.NEEDS`, each (N, T)."""
    batch: int = 1
    """Every `batch` sequences in a row are one batch; it divides N."""

    @property
    def ratio(self) -> Any:
        """rho_t = exp(l_t), (N, T)."""
        return self.xp.exp(self.log_ratio)

    @property
    def length(self) -> Any:
        """Number of tokens that count, at least 1 so that one can divide by it, (N, 1), of log_ratio's type."""
        count = self.xp.sum(self.xp.astype(self.mask, self.log_ratio.dtype), axis=1, keepdims=True)
        return self.xp.maximum(count, self.xp.ones_like(count))

    def by_batch(self, x: Any) -> Any:
        """(N, T) as (N / batch, batch T): the tokens of a batch in one row."""
        return self.xp.reshape(x, (x.shape[0] // self.batch, self.batch * x.shape[1]))

    def each_sequence(self, x: Any) -> Any:
        """(N / batch, 1), a number per batch, as (N, 1): the same for each of its sequences."""
        return self.xp.reshape(self.xp.broadcast_to(x, (x.shape[0], self.batch)), (-1, 1))

    @property
    def log_prefix(self) -> Any:
        """log P_t = sum over j < t of l_j, (N, T)."""
        return exclusive_sum(self.xp, self.log_ratio)

    @property
    def log_minimum(self) -> Any:
        """log m_t, m_t the smallest rho_j over the j < t that count, and 1 where there is none, (N, T)."""
        earlier = self.least_earlier
        return self.xp.where(earlier == float("inf"), self.xp.zeros_like(earlier), earlier)

    @property
    def least_earlier(self) -> Any:
        """The smallest l_j over the j < t that count, +inf where there is none, (N, T)."""
        # A masked token has no ratio, so it must not lower the minimum (its neutral log-ratio 0 would).
        never = self.xp.full_like(self.log_ratio, float("inf"))
        return exclusive_minimum(self.xp, self.xp.where(self.mask, self.log_ratio, never))

    @property
    def log_suffix(self) -> Any:
        """log S_t = sum over j > t of l_j, (N, T)."""
        xp = self.xp
        return xp.flip(exclusive_sum(xp, xp.flip(self.log_ratio, axis=1)), axis=1)

    @property
    def log_sequence(self) -> Any:
        """log W = sum over all j of l_j, (N, 1)."""
        return self.xp.sum(self.log_ratio, axis=1, keepdims=True)

    @property
    def sequence_ratio(self) -> Any:
        """W, the same for all tokens of a sequence, (N, T)."""
        return self.xp.exp(self.log_sequence + self.xp.zeros_like(self.log_ratio))

    @property
    def geometric_mean(self) -> Any:
        """W^(1/L), the same for all tokens of a sequence, (N, T)."""
        return self.xp.exp(self.log_sequence / self.length + self.xp.zeros_like(self.log_ratio))


def exclusive_sum(xp: Any, x: Any) -> Any:
    """Sum over j < t of x_j along the last axis of an (N, T) array."""
    # The array API's include_initial is not offered by every library, and inclusive minus own fails at -inf.
    inclusive = xp.cumulative_sum(x, axis=1)
    return xp.concat([xp.zeros_like(x[:, :1]), inclusive[:, :-1]], axis=1)


def exclusive_minimum(xp: Any, x: Any) -> Any:
    """Minimum over j < t of x_j along the last axis of an (N, T) array, +inf at t = 0.

    The array API has no cumulative minimum: log2(T) steps of shift and minimum give it in any array library.
    """
    top = xp.full_like(x, float("inf"))
    result = xp.concat([top[:, :1], x[:, :-1]], axis=1)
    step, width = 1, x.shape[1]
    while step < width:
        shifted = xp.concat([top[:, :step], result[:, :-step]], axis=1)
        result = xp.minimum(result, shifted)
        step *= 2
    return result


def tokens_of(
    log_ratio: Any,
    mask: Any,
    advantage: Any,
    given: Mapping[str, Any],
    batch: int | None,
    *,
    needs_advantage: bool,
    name: str,
) -> Tokens:
    """Check the arrays of a batch and put neutral values where they are masked."""
    xp = library_of("log_ratio", log_ratio)
    log_ratio = constant_of(log_ratio)
    if log_ratio.ndim != 2:
        raise ValueError(f"log_ratio has shape {tuple(log_ratio.shape)}; expected (N, T)")
    # A weight of whole numbers would be rounded to whole numbers.
    if not xp.isdtype(log_ratio.dtype, "real floating"):
        raise ValueError(f"log_ratio is of type {log_ratio.dtype}; expected floating-point numbers")
    counted = _mask_of(xp, log_ratio, mask)
    zeros = xp.zeros_like(log_ratio)
    log_ratio = xp.where(counted, log_ratio, zeros)
    if bool(xp.any(xp.isnan(log_ratio))) or bool(xp.any(log_ratio == float("inf"))):
        raise ValueError("log_ratio is NaN or +inf at a token that counts; expected numbers below +inf")
    rows = log_ratio.shape[0]
    batch = max(rows, 1) if batch is None else checks.whole_number("batch", batch, 1, "sequences")
    if rows % batch:
        raise ValueError(f"batch is {batch}; expected a divisor of the {rows} sequences")

    def numbers(called: str, array: Any) -> Any:
        check_like(called, array, xp, log_ratio)
        return xp.where(counted, xp.astype(constant_of(array), log_ratio.dtype, copy=False), zeros)

    beside = {called: numbers(called, array) for called, array in given.items()}
    beside = {called: _within_range(xp, called, array) for called, array in beside.items()}
    if advantage is None:
        if needs_advantage:
            raise ValueError(f"weight {name!r} looks at the sign of the advantage; expected advantage of shape (N, T)")
        return Tokens(xp, log_ratio, counted, None, beside, batch)
    advantage = numbers("advantage", advantage)
    if needs_advantage and bool(xp.any(xp.isnan(advantage))):
        raise ValueError("advantage is NaN at a token that counts; expected numbers")
    return Tokens(xp, log_ratio, counted, advantage, beside, batch)


def _within_range(xp: Any, called: str, array: Any) -> Any:
    """What a need can be, with what rounding has put outside of it back on its bound; raise where it is far outside."""
    if bool(xp.any(xp.isnan(array))):
        raise ValueError(f"{called} is NaN at a token that counts; expected numbers")
    low, high = RANGES[called]
    # Sums over a vocabulary, in the type of the caller: half of its digits.
    slack = math.sqrt(xp.finfo(array.dtype).eps)
    endless = (array == math.inf) & (called != "kl")
    wrong = array[(array < low - slack) | (array > high + slack) | endless]
    if wrong.shape[0]:
        raise ValueError(f"{called} is {float(wrong[0]):.6g} at a token that counts; expected {NEEDS[called]}")
    return xp.clip(array, low, high)


def _mask_of(xp: Any, log_ratio: Any, mask: Any) -> Any:
    if mask is None:
        return xp.ones_like(log_ratio, dtype=xp.bool)
    check_like("mask", mask, xp, log_ratio)
    if bool(xp.any(mask != mask)):
        raise ValueError("mask contains NaN; expected true or non-zero where a token counts, false or zero elsewhere")
    return mask != 0


def library_of(name: str, array: Any) -> Any:
    """The array namespace of an argument."""
    try:
        return array_api_compat.array_namespace(array)
    except TypeError as why:
        raise ValueError(
            f"{name} is of type {type(array).__name__}; expected an array of shape (N, T), such as a NumPy array or a "
            "PyTorch tensor"
        ) from why


def check_like(name: str, array: Any, xp: Any, log_ratio: Any) -> None:
    """Raise unless the array is of the library and the shape of log_ratio, and of real numbers."""
    if library_of(name, array) is not xp:
        raise ValueError(
            f"{name} is of type {_type_name(array)} and log_ratio of type {_type_name(log_ratio)}; expected both of "
            "one array library"
        )
    if tuple(array.shape) != tuple(log_ratio.shape):
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected {tuple(log_ratio.shape)}, that of log_ratio")
    if not xp.isdtype(array.dtype, ("bool", "integral", "real floating")):
        raise ValueError(f"{name} is of type {array.dtype}; expected real numbers")


def _type_name(array: Any) -> str:
    return f"{type(array).__module__.split('.')[0]}.{type(array).__name__}"


def constant_of(array: Any) -> Any:
    """Without autograd history: a weight is a constant of the surrogate."""
    return array.detach() if array_api_compat.is_torch_array(array) else array
