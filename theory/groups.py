"""Group-relative advantages, and their exact effect on a group's estimator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, exp, lgamma
from typing import Literal

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


def compositions(size: int, categories: int) -> int:
    """Number of ways in which the other members of a group can fall into the categories."""
    return comb(size + categories - 2, categories - 1)


# Above this many compositions the exact calculation would take minutes; sampling answers then.
MOST_COMPOSITIONS = 200_000


def group_moments(signal: GroupSignal, prompt: Categories, share_tokens: bool) -> tuple[Array, float, Array | None]:
    """Mean (P,), second moment E|.|^2 and outer product (P, P) of one group's estimator, for one prompt.

    The estimator is (1/G) sum of A_i X_i, or (sum of A_i X_i) / (sum of L_i) with `share_tokens`. Exact, by the
    multinomial law of the categories of the other trajectories: comb(G + m - 2, m - 1) compositions.

    Raises:
        ValueError: more compositions than can be visited.
    """
    G, m = signal.size, prompt.probability.size
    needed = compositions(G, m)
    if needed > MOST_COMPOSITIONS:
        raise ValueError(
            f"a group of {G} with {m} distinct (outcome, length) categories has {needed} compositions; expected at "
            f"most {MOST_COMPOSITIONS}; engine='sampling' can take it"
        )
    alone = np.zeros((2, m, 2))  # coefficient of E[X; r] and of E[|X|^2; r], by sign
    pairs = np.zeros((2, m, 2, m))
    kinds = np.arange(m)
    for counts, chance in _compositions(G - 1, prompt.probability):
        advantage, norm = _first_members(signal, prompt, counts, 1, share_tokens)
        sign = (advantage[:, 0] < 0).astype(int)
        alone[sign, kinds, 0] += G * chance * advantage[:, 0] * norm
        alone[sign, kinds, 1] += G * chance * (advantage[:, 0] * norm) ** 2
    if G > 1:
        left_kind, right_kind = np.divmod(np.arange(m * m), m)
        for counts, chance in _compositions(G - 2, prompt.probability):
            advantage, norm = _first_members(signal, prompt, counts, 2, share_tokens)
            left, right = (advantage < 0).astype(int).T
            product = advantage[:, 0] * advantage[:, 1] * norm**2
            pairs[left, left_kind, right, right_kind] += G * (G - 1) * chance * product
    mean = np.einsum("sm,smp->p", alone[..., 0], prompt.mean)
    second = float(np.einsum("sm,sm->", alone[..., 1], prompt.second))
    second += float(np.einsum("smrn,smp,rnp->", pairs, prompt.mean, prompt.mean, optimize=True))
    if prompt.outer is None:
        return mean, second, None
    outer = np.einsum("sm,smpq->pq", alone[..., 1], prompt.outer)
    outer += np.einsum("smrn,smp,rnq->pq", pairs, prompt.mean, prompt.mean, optimize=True)
    return mean, second, outer


def _first_members(
    signal: GroupSignal, prompt: Categories, counts: tuple[int, ...], first: int, share_tokens: bool
) -> tuple[Array, Array]:
    """Advantages (m^first, first) of the first members, the others given by counts, and the sum's factor."""
    m = prompt.probability.size
    own = np.indices((m,) * first).reshape(first, -1).T
    others = np.broadcast_to(np.repeat(np.arange(m), counts), (own.shape[0], sum(counts)))
    members = np.concatenate([own, others], axis=1)
    advantage = signal.advantages(prompt.outcome[members])[:, :first]
    tokens = prompt.length[members].sum(axis=1) if share_tokens else np.full(len(members), float(signal.size))
    return advantage, 1.0 / np.maximum(tokens, 1.0)


def _compositions(total: int, probability: Array) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every way to draw `total` outcomes, as counts per category, with its multinomial probability."""
    log_p = [float(np.log(p)) if p > 0 else -np.inf for p in probability]

    def parts(left: int, kinds: int) -> Iterator[tuple[int, ...]]:
        if kinds == 1:
            yield (left,)
            return
        for first in range(left + 1):
            for rest in parts(left - first, kinds - 1):
                yield (first, *rest)

    for counts in parts(total, len(log_p)):
        log_chance = lgamma(total + 1) - sum(lgamma(n + 1) for n in counts)
        log_chance += sum(n * lp for n, lp in zip(counts, log_p, strict=True) if n)
        chance = exp(log_chance)
        if chance > 0.0:
            yield counts, chance
