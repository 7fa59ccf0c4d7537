"""Samplers that are not the policy they sample from: top-p and top-k lose support, rounded logits do not.

The divergence is a step function of the strength: it changes where another action is cut, or where another bit of the
log-probabilities is rounded away. KL(mu || pi) is finite; KL(pi || mu) is infinite where support is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

import theory
from testbed.drifting.registry import Pair, kind
from theory import checks

Array = NDArray[np.float64]

FORMATS = {"fp16": 10, "bf16": 7, "e4m3": 3, "e5m2": 2}
"""Floating-point formats and their explicit mantissa bits (IEEE 754-2019; bfloat16; OCP 8-bit floating point 2023).

Only the mantissa is a format's: in its own range, exponents included, e4m3 goes from 2^-9 to 448.
"""

MANTISSA = 52
"""Explicit mantissa bits of float64, in which policies are kept."""

# Sums of the same probabilities in another order differ by less; p = 0.9 is not a binary number either.
_SAME = 1e-14


def _by_probability(policy: theory.SoftmaxPolicy) -> NDArray[np.int64]:
    """(S, A) actions from the likeliest to the least likely; of equal ones the lower index comes first."""
    return np.asarray(np.argsort(-policy.probabilities, axis=1, kind="stable"))


def _tails(policy: theory.SoftmaxPolicy) -> Array:
    """(S, A) probability of the k-th likeliest action and of all that come after it."""
    ordered = np.take_along_axis(policy.probabilities, _by_probability(policy), axis=1)
    return np.asarray(np.cumsum(ordered[:, ::-1], axis=1)[:, ::-1])


def _only_ranks(policy: theory.SoftmaxPolicy, kept: NDArray[np.bool_]) -> Pair:
    """The policy, and itself restricted to the ranks (S, A) that are kept, renormalised."""
    keep = np.zeros_like(kept)
    np.put_along_axis(keep, _by_probability(policy), kept, axis=1)
    return policy, theory.SoftmaxPolicy(np.where(keep, policy.log_probabilities, -np.inf))


def _tail_masses(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy) -> Sequence[float]:
    masses = np.unique(_tails(policy)[:, 1:])
    masses = masses[masses > 0.0]
    # Of masses that differ by rounding the largest, at which all of their actions are cut.
    return [float(m) for m in masses[np.append(np.diff(masses) > _SAME, True)]] if masses.size else []


def _left_out_by_p(p: Any, policy: theory.SoftmaxPolicy) -> float:
    if not _is_number(p) or not 0.0 < p <= 1.0:
        raise ValueError(f"p of top_p drift is {p!r}; expected a number above 0 and up to 1")
    return 1.0 - float(p)


@kind(
    "mu = pi over its nucleus, the fewest likeliest actions with probability >= p together (of equal ones the lower "
    "index first), renormalised; strength = 1 - p in [0, 1), or give p",
    steps=_tail_masses,
    settings={"p": _left_out_by_p},
)
def _top_p(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float) -> Pair:
    if not strength < 1.0:
        raise ValueError(f"strength of top_p drift is {strength!r}; expected 1 - p, a number in [0, 1)")
    kept = _tails(policy) > strength + _SAME
    kept[:, 0] = True
    return _only_ranks(policy, kept)


def _left_out_counts(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy) -> Sequence[float]:
    return [float(n) for n in range(1, policy.actions)]


def _left_out_by_k(k: Any, policy: theory.SoftmaxPolicy) -> float:
    return float(max(policy.actions - checks.whole_number("k of top_k drift", k, 1, "actions"), 0))


@kind(
    "mu = pi over its k likeliest actions (of equal ones the lower index first), renormalised; strength = A - k, the "
    "number of actions left out, or give k",
    steps=_left_out_counts,
    settings={"k": _left_out_by_k},
)
def _top_k(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float) -> Pair:
    if strength >= policy.actions or strength != int(strength):
        raise ValueError(
            f"strength of top_k drift is {strength!r}; expected A - k, a whole number from 0 to {policy.actions - 1}"
        )
    ranks = np.broadcast_to(np.arange(policy.actions), policy.logits.shape)
    return _only_ranks(policy, ranks < policy.actions - int(strength))


def _spacings(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy) -> Sequence[float]:
    return [2.0**-bits for bits in range(MANTISSA, -1, -1)]


def _spacing_by_bits(bits: Any, policy: theory.SoftmaxPolicy) -> float:
    return 2.0 ** -checks.whole_number("bits of rounding drift", bits, 0, "mantissa bits")


def _spacing_by_format(format: Any, policy: theory.SoftmaxPolicy) -> float:
    return 2.0 ** -FORMATS[checks.known_name("format", format, FORMATS, of="drift 'rounding'")]


@kind(
    "mu = softmax(log pi rounded to some explicit mantissa bits, halves to even, exponents of any size); strength = "
    f"2^-bits, or give bits, or format={', '.join(map(repr, FORMATS))} for the mantissa of that format alone: a cast "
    "that has its exponents too differs where a log-probability is below its normal range (2^-6 for e4m3, 2^-14 for "
    "fp16 and e5m2) or beyond its largest number (448 for e4m3)",
    steps=_spacings,
    settings={"bits": _spacing_by_bits, "format": _spacing_by_format},
)
def _rounding(process: theory.MarkovProcess, policy: theory.SoftmaxPolicy, strength: float) -> Pair:
    if strength == 0.0:
        return policy, policy
    if strength > 1.0 or math.frexp(strength)[0] != 0.5:
        raise ValueError(f"strength of rounding drift is {strength!r}; expected 2^-bits, such as {2.0**-7} for bf16")
    fraction, exponent = np.frexp(policy.log_probabilities)
    scale = 2.0 / strength
    return policy, theory.SoftmaxPolicy(np.ldexp(np.round(fraction * scale) / scale, exponent))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
