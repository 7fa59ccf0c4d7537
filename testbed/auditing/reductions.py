"""How a loss brings tokens and sequences together: factors of the mask, told apart on ragged batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from testbed.auditing.batch import Array
from theory import checks

Bools = NDArray[np.bool_]


def _per_sequence(count: Array) -> Array:
    return np.asarray(1.0 / np.maximum(count.sum(axis=1, keepdims=True), 1.0))


def _whole(number: float) -> Array:
    return np.full((1, 1), 1.0 / max(number, 1.0))


# (mask (N, T), tokens whose coefficient is not zero (N, T)) -> factor that broadcasts with (N, 1).
_FACTORS: dict[str, Callable[[Array, Bools], Array]] = {
    "sum": lambda mask, kept: np.ones((1, 1)),
    "sequence_mean": lambda mask, kept: _whole(len(mask)),
    "length_mean": lambda mask, kept: _per_sequence(mask) / len(mask),
    "token_mean": lambda mask, kept: _whole(mask.sum()),
    "width_mean": lambda mask, kept: _whole(mask.size),
    "length_sum": lambda mask, kept: _per_sequence(mask),
    "width_sum": lambda mask, kept: _whole(mask.shape[1]),
    "kept_token_mean": lambda mask, kept: _whole(float(kept.sum())),
    "kept_length_mean": lambda mask, kept: _per_sequence(kept.astype(float)) / len(mask),
}

REDUCTIONS = {
    "sum": "sum over all tokens of the batch",
    "sequence_mean": "mean over sequences of the sum over their tokens",
    "length_mean": "mean over sequences of the mean over their tokens",
    "token_mean": "sum over all tokens divided by their number in the batch",
    "width_mean": "sum over all tokens divided by N T, the padded size of the batch",
    "length_sum": "sum over sequences of the mean over their tokens",
    "width_sum": "sum over all tokens divided by the padded width T",
    "kept_token_mean": "sum over all tokens divided by the number of those that the weight keeps",
    "kept_length_mean": "mean over sequences of the mean over the tokens that the weight keeps",
    "unnamed": "a factor of the mask that none of the named ones is",
}
"""name -> what it is. Up to one positive constant: dividing by a fixed number is "sum" or "sequence_mean"."""

# A reduction of `theory.Estimator` -> what it may be called on a batch.
_EXPECTED = {
    "sum": ("sum", "sequence_mean"),
    "sequence_mean": ("sequence_mean",),
    "length_mean": ("length_mean", "length_sum"),
    "constant": ("sum", "sequence_mean", "width_mean"),
    "token_mean": ("token_mean",),
}
BY_LENGTH = ("length_mean", "length_sum", "token_mean", "kept_token_mean", "kept_length_mean")
"""Those that divide by a number of tokens that counts."""


def factor(name: str, mask: Array, kept: Bools) -> Array:
    """What multiplies every token of a sequence, broadcasting with (N, 1)."""
    return _FACTORS[name](mask, kept)


def searched() -> tuple[str, ...]:
    """Every named reduction, the plainest first."""
    return tuple(_FACTORS)


def known() -> set[str]:
    """Every reduction that may be expected."""
    return {*_EXPECTED, *_FACTORS}


def accepted(expected: str) -> tuple[str, ...]:
    """The reductions of a batch that an expected one stands for, one sequence or many.

    Raises:
        ValueError: an unknown name.
    """
    checks.known_name("reduction", expected, known())
    return _EXPECTED.get(expected, (expected,))
