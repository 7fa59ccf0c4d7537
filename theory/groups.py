"""Group-relative advantages, and their exact effect on a group's estimator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, islice
from math import comb, lgamma
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks

Array = NDArray[np.float64]


# Returns of a group that differ by less than this, relative to the largest, are equal.
_EQUAL = 1e-12


@dataclass(frozen=True)
class GroupSignal:
    """A group-relative advantage: G trajectories of one prompt (one start state), each measured against the others.

    A_i = (R_i - centre) / scale, with R_i the return of trajectory i. Made by `theory.group(size, ...)`.

    Raises:
        ValueError: as `theory.group`.
    """

    size: int
    centre: Literal["mean", "leave_one_out", "none"] = "mean"
    scale: Literal["std", "none"] = "std"
    ddof: int = 1
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        """Check every field."""
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        checks.known_name("centre", self.centre, ("mean", "leave_one_out", "none"))
        checks.known_name("scale", self.scale, ("std", "none"))
        least = 1 if self.centre == "none" and self.scale == "none" else 2
        put("size", checks.whole_number("size", self.size, least, "trajectories"))
        put("ddof", checks.whole_number("ddof", self.ddof, 0, "degrees of freedom"))
        if self.scale == "std" and self.ddof >= self.size:
            raise ValueError(f"ddof is {self.ddof}; expected 0 <= ddof < size = {self.size}")
        put("epsilon", checks.non_negative("epsilon", self.epsilon))

    @property
    def name(self) -> str:
        """`group`, as the function that makes it."""
        return "group"

    @property
    def label(self) -> str:
        """Size, centre and scale, such as `group(size=8, centre=mean, scale=std)`."""
        return f"group(size={self.size}, centre={self.centre}, scale={self.scale})"

    def advantages(self, returns: Array) -> Array:
        """Group-relative advantages of (..., G) returns, same shape. A group of equal returns gets zeros."""
        mean = returns.mean(axis=-1, keepdims=True)
        centred = returns - mean if self.centre == "mean" else returns
        if self.centre == "leave_one_out":
            centred = (returns - mean) * self.size / (self.size - 1)
        if self.centre == self.scale == "none":
            return np.asarray(returns, dtype=np.float64)
        # Rounding must not turn a group of equal returns into tiny advantages, divided by a deviation as tiny.
        spread = returns.max(axis=-1, keepdims=True) - returns.min(axis=-1, keepdims=True)
        equal = spread <= _EQUAL * np.abs(returns).max(axis=-1, keepdims=True)
        if self.scale == "std":
            deviation = returns.std(axis=-1, ddof=self.ddof, keepdims=True)
            centred = centred / np.where(equal, 1.0, deviation + self.epsilon)
        return np.where(equal, 0.0, centred)


def group(size: int, centre: str = "mean", scale: str = "std", *, ddof: int = 1, epsilon: float = 1e-6) -> GroupSignal:
    """A group-relative signal: GRPO is (mean, std), Dr.GRPO (mean, none), RLOO (leave_one_out, none).

    A_i = (R_i - centre_i) / scale. centre "mean": of all G returns, the own one included; "leave_one_out": of the other
    G - 1; "none": zero. scale "std": the group's standard deviation with `ddof`, plus `epsilon`; "none": 1.
    A group of equal returns contributes zero wherever something is subtracted or divided by the deviation.
    Sources: GRPO arXiv 2402.03300, Dr.GRPO arXiv 2503.20783, RLOO arXiv 2402.14740.

    Args:
        size: G, trajectories of one prompt.
        centre: "mean", "leave_one_out" or "none".
        scale: "std" or "none".
        ddof: of the standard deviation; 1 for the sample's.
        epsilon: added to the standard deviation.

    >>> theory.group(size=8).label
    'group(size=8, centre=mean, scale=std)'
    >>> theory.group(size=4, centre="leave_one_out", scale="none").label
    'group(size=4, centre=leave_one_out, scale=none)'

    Raises:
        ValueError: a size below 2 (below 1 where nothing is compared), an unknown centre or scale, a `ddof` that is no
            whole number below the size, or an `epsilon` that is negative or not finite.
    """
    return GroupSignal(size, centre, scale, ddof, epsilon)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Categories:
    """Moments of X = sum of c_t z_t of one trajectory of one prompt, by what the rest of the group needs to know of it.

    The first axis of `mean`, `second` and `outer` is the sign of the advantage, 0 for A >= 0 and 1 for A < 0, since
    some weights look at it. m is the number of categories: distinct (outcome, length), or distinct outcomes.
    """

    outcome: Array
    """(m,) the return."""
    length: Array
    """(m,) the number of tokens; 1 where the reduction does not couple the trajectories."""
    probability: Array
    """(m,)"""
    mean: Array
    """(2, m, P): E[X 1{category}]."""
    second: Array
    """(2, m): E[|X|^2 1{category}]."""
    outer: Array | None = None
    """(2, m, P, P): E[X X' 1{category}], where the covariance is asked for."""


# What the sums over all groups may touch, a few seconds' worth of numbers, and the categories that pairs are kept for.
MOST_NUMBERS = 200_000_000
MOST_CATEGORIES = 1000
_CHUNK_NUMBERS = 1_000_000


def cost(size: int, categories: int) -> int:
    """Numbers that `group_moments` touches: members of groups, over all categories of their first one and two."""
    one = comb(size + categories - 2, categories - 1) * categories
    two = comb(size + categories - 3, categories - 1) * categories**2 if size > 1 else 0
    return (one + two) * size


def group_moments(
    signal: GroupSignal, prompt: Categories, share_tokens: bool, mean_only: bool = False
) -> tuple[Array, float, Array | None]:
    """Mean (P,), second moment E|.|^2 and outer product (P, P) of one group's estimator, for one prompt.

    The estimator is (1/G) sum of A_i X_i, or (sum of A_i X_i) / (sum of L_i) with `share_tokens`. Exact, by the
    multinomial law of the categories of the other trajectories: comb(G + m - 2, m - 1) compositions. With `mean_only`
    the second moment is NaN, and its pairs are not formed.
    """
    law = (signal, *(x.tobytes() for x in (prompt.outcome, prompt.length, prompt.probability)), share_tokens)
    alone, squares = _alone(*law)
    mean = np.einsum("sm,smp->p", alone, prompt.mean)
    if mean_only:
        return mean, np.nan, None
    m = prompt.probability.size
    # A second moment may be infinite, and counts nowhere where its coefficient is zero.
    used = squares > 0.0
    second = float(squares[used] @ prompt.second[used])
    vectors = prompt.mean.reshape(2 * m, -1)
    pairs = _small_pairs if prompt.probability.nbytes <= _FEW else _large_pairs
    others = pairs(*law) @ vectors if signal.size > 1 else np.zeros_like(vectors)
    second += float((vectors * others).sum())
    if prompt.outer is None:
        return mean, second, None
    outer = np.einsum("k,kpq->pq", squares[used], prompt.outer[used]) + vectors.T @ others
    return mean, second, outer


# What multiplies the moments depends on the law of the returns alone: it is the same for every weight, and weights are
# compared one after the other. Laws are told apart by their bytes; there is one for each prompt.
@lru_cache(maxsize=1024)
def _alone(
    signal: GroupSignal, outcome: bytes, length: bytes, probability: bytes, share_tokens: bool
) -> tuple[Array, Array]:
    """(2, m) coefficients of E[X; category], and of E[|X|^2; category]."""
    law = _Law.of(outcome, length, probability)
    alone, squares = (np.zeros((2, law.probability.size)) for _ in range(2))
    for parts, factor, chance in _first_members(signal, law, 1, share_tokens):
        alone += signal.size * np.einsum("sbk,bk,b->sk", parts[0], factor, chance)
        squares += signal.size * np.einsum("sbk,bk,b->sk", parts[0] ** 2, factor**2, chance)
    return alone, squares


def _pairs(signal: GroupSignal, outcome: bytes, length: bytes, probability: bytes, share_tokens: bool) -> Array:
    """(2 m, 2 m) coefficients of <E[X; category], E[X; category]> of two members."""
    law = _Law.of(outcome, length, probability)
    G, m = signal.size, law.probability.size
    pairs = np.zeros((2, 2, m * m))
    for parts, factor, chance in _first_members(signal, law, 2, share_tokens):
        pairs += G * (G - 1) * np.einsum("sbk,rbk,bk,b->srk", *parts, factor**2, chance, optimize=True)
    return pairs.reshape(2, 2, m, m).transpose(0, 2, 1, 3).reshape(2 * m, 2 * m)


# At most 33 MB of small ones, and of large ones 64 MB: (2 * MOST_CATEGORIES)^2 numbers are 32 MB.
_FEW = 32 * np.dtype(np.float64).itemsize
_small_pairs, _large_pairs = lru_cache(maxsize=1024)(_pairs), lru_cache(maxsize=2)(_pairs)


class _Law(NamedTuple):
    """The law of a trajectory's category."""

    outcome: Array
    length: Array
    probability: Array

    @classmethod
    def of(cls, *columns: bytes) -> _Law:
        return cls(*(np.frombuffer(column) for column in columns))


def _first_members(
    signal: GroupSignal, law: _Law, first: int, share_tokens: bool
) -> Iterator[tuple[list[Array], Array, Array]]:
    """Chunks of B compositions of the other members, with what the `first` ones then get in each category.

    The positive and the negative part of each one's advantage, (2, B, m^first); what multiplies the group's sum,
    (B, m^first); the chance of the others, (B,).
    """
    m, others = law.probability.size, signal.size - first
    own = np.indices((m,) * first).reshape(first, -1).T
    rows = max(1, _CHUNK_NUMBERS // (own.shape[0] * signal.size))
    for kinds, chance in _compositions(others, law.probability, rows):
        shape = (len(kinds), len(own))
        members = np.concatenate(
            [np.broadcast_to(own, (*shape, first)), np.broadcast_to(kinds[:, None], (*shape, others))], axis=-1
        )
        advantage = signal.advantages(law.outcome[members])
        parts = [
            np.stack([np.maximum(advantage[..., i], 0.0), np.minimum(advantage[..., i], 0.0)]) for i in range(first)
        ]
        tokens = law.length[members].sum(axis=-1) if share_tokens else np.full(shape, float(signal.size))
        yield parts, 1.0 / np.maximum(tokens, 1.0), chance


def _compositions(total: int, probability: Array, rows: int) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Every way to draw `total` categories, in any order, as ascending rows (B, total), with its chance (B,)."""
    with np.errstate(divide="ignore"):
        log_p = np.log(probability)
    every = combinations_with_replacement(range(probability.size), total)
    while chunk := list(islice(every, rows)):
        kinds = np.array(chunk, dtype=np.int64).reshape(len(chunk), total)
        # The place of each within its run of equal ones: their product is that of the factorials of all counts.
        place = np.ones(kinds.shape)
        for k in range(1, total):
            place[:, k] += np.where(kinds[:, k] == kinds[:, k - 1], place[:, k - 1], 0.0)
        yield kinds, np.exp(lgamma(total + 1) - np.log(place).sum(axis=1) + log_p[kinds].sum(axis=1))
