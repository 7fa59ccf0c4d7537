"""Tiny token trees with round probabilities, smallest first, and the search through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import combinations, product

import numpy as np

import theory
from testbed.ledger.record import Search

HALF = Fraction(1, 2)
ROUND = (HALF, Fraction(1, 4), Fraction(3, 4))


@dataclass(frozen=True)
class TinyTree:
    """Two tokens per step, every prefix a state, a reward at each leaf. Prefixes in the order "", 0, 1, 00, 01, ..."""

    target: tuple[Fraction, ...]
    """pi(1 | prefix)."""
    behaviour: tuple[Fraction, ...]
    """mu(1 | prefix)."""
    rewards: tuple[int, ...]
    """Of the leaves, left to right."""

    @property
    def depth(self) -> int:
        """T."""
        return len(self.rewards).bit_length() - 1

    @property
    def label(self) -> str:
        """All parameters in one line."""
        chances = [
            " ".join(str(p) for p in policy) if len(set(policy)) > 1 else str(policy[0])
            for policy in (self.target, self.behaviour)
        ]
        rewards = " ".join(map(str, self.rewards))
        return f"T={self.depth}, two tokens; pi(1|prefix) = {chances[0]}; mu(1|prefix) = {chances[1]}; R = {rewards}"

    @cached_property
    def case(self) -> tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]:
        """Process, target and behaviour, as `theory.moments` takes them."""
        return _process(self.rewards), self._policy(self.target), self._policy(self.behaviour)

    def moments(self, weight: str | theory.Weight, signal: object, **options: object) -> theory.Moments:
        """Exact moments of weight x signal."""
        estimator = theory.Estimator(weight, signal, **options)  # type: ignore[arg-type]
        return theory.moments(*self.case, estimator, engine="enumeration")

    def _policy(self, chances: Sequence[Fraction]) -> theory.SoftmaxPolicy:
        one = np.full(2 * len(self.rewards) - 1, 0.5)
        one[: len(chances)] = [float(p) for p in chances]
        return theory.SoftmaxPolicy(np.log(np.stack([1.0 - one, one], axis=1)))


Shows = Callable[[TinyTree], Mapping[str, float] | None]


@lru_cache(maxsize=4096)
def _process(rewards: tuple[int, ...]) -> theory.MarkovProcess:
    leaves = len(rewards)
    states, inner = 2 * leaves - 1, leaves - 1
    successor = np.repeat(np.arange(states)[:, None], 2, axis=1)
    successor[:inner] = 2 * np.arange(inner)[:, None] + 1 + np.arange(2)
    terminal = np.concatenate([np.zeros(inner), np.asarray(rewards, dtype=float)])
    start = np.eye(states)[0]
    return theory.MarkovProcess(
        start, np.eye(states)[successor], np.zeros((states, 2)), leaves.bit_length() - 1, terminal
    )


def tiny_trees(
    depths: Iterable[int] = (1, 2, 3),
    chances: Sequence[Fraction] = ROUND,
    rewards: Sequence[int] = (0, 1),
    *,
    on_policy: bool = False,
    pattern: tuple[int, ...] | None = None,
) -> Iterator[TinyTree]:
    """Every tree with these numbers: by depth, then by how many prefixes and leaves are not the plainest.

    The plainest prefix has pi = mu = the first of `chances`, the plainest leaf the first of `rewards`. With
    `on_policy`, mu = pi throughout. With a `pattern`, all trees have these rewards. Trees whose leaves all pay the same
    have no gradient and are left out.
    """
    depths = depths if pattern is None else [len(pattern).bit_length() - 1]
    pairs = [(p, p) for p in chances] if on_policy else list(product(chances, repeat=2))
    for depth in depths:
        inner, leaves = 2**depth - 1, 2**depth
        choices: list[Sequence[object]] = [pairs] * inner
        choices += [rewards] * leaves if pattern is None else [[reward] for reward in pattern]
        for count in range(len(choices) + 1):
            for places in combinations(range(len(choices)), count):
                for values in product(*(choices[place][1:] for place in places)):
                    drawn: list[object] = [options[0] for options in choices]
                    for place, value in zip(places, values, strict=True):
                        drawn[place] = value
                    if len(set(drawn[inner:])) > 1:
                        target, behaviour = zip(*drawn[:inner], strict=True)
                        yield TinyTree(target, behaviour, tuple(drawn[inner:]))  # type: ignore[arg-type]


def smallest(
    question: str,
    shows: Shows,
    trees: Iterable[TinyTree],
    most: int = 2000,
) -> Search:
    """The first tree for which `shows` gives its numbers rather than None; at most `most` trees are looked at."""
    searched = 0
    for searched, tree in enumerate(trees, start=1):
        numbers = shows(tree)
        if numbers is not None:
            return Search(question, searched, tree.label, dict(numbers))
        if searched >= most:
            break
    return Search(question, searched)
