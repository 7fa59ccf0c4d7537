"""Drop what lies above a threshold, or cut it off there? With which denominator?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table, Verdict
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees

THRESHOLDS = (1.1, 1.5, 2.0, 3.0, 5.0)
BATCHES = (1, 64, 4096)
SIGNAL = theory.signal("outcome", baseline="expected_return")


class _Error(NamedTuple):
    """Squared error of a batch, in units of |g|^2."""

    bias: float
    variance: float

    @property
    def total(self) -> float:
        return self.bias**2 + self.variance


def _fixed(m: theory.Moments, batch: int) -> _Error:
    return _Error(m.relative_bias, m.variance / batch / float(m.gradient @ m.gradient))


def _kept_share(case: cases.Case, threshold: float) -> float:
    """P_mu(W <= threshold) in a token tree, where a leaf's occupancy is the probability of its sequence."""
    process, target, behaviour = case
    pi, mu = (theory.values(process, policy).occupancy[-1] for policy in (target, behaviour))
    return float(mu[(pi <= threshold * mu) & (mu > 0.0)].sum())


def _kept_count(m: theory.Moments, kept: float, batch: int) -> _Error:
    """The batch's sum divided by how many sequences were kept (0 where none was): exact, by the binomial law of it.

    With X the estimator of one sequence, zero where it is dropped: the mean is E[X | kept] P(any kept), and the second
    moment the sum over k >= 1 of P(k kept) (|E[X | kept]|^2 + var(X | kept) / k).
    """
    mean = m.mean / kept
    spread = (m.variance + float(m.mean @ m.mean)) / kept - float(mean @ mean)
    k = np.arange(1, batch + 1)
    chance = binom.pmf(k, batch, kept)
    anything = float(chance.sum())
    second = anything * float(mean @ mean) + spread * float((chance / k).sum())
    scale = float(m.gradient @ m.gradient)
    average = anything * mean
    bias = float(np.linalg.norm(average - m.gradient)) / scale**0.5
    return _Error(bias, (second - float(average @ average)) / scale)


def settle() -> Finding:
    """Exact bias and variance of both against the threshold, for tokens and sequences."""
    case = cases.reference(kl=0.1)
    wins: dict[tuple[str, float, str, int], bool] = {}
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    for level in ("token", "sequence"):
        for c in THRESHOLDS:
            cut = cases.moments(case, theory.weight("truncated", level=level, cap=c), SIGNAL)
            dropped = cases.moments(case, theory.weight("masked", level=level, interval=(0.0, c)), SIGNAL)
            kinds: dict[str, Callable[[int], _Error]] = {"fixed": partial(_fixed, dropped)}
            if level == "sequence":
                kept = _kept_share(case, c)
                kinds["kept count"] = partial(_kept_count, dropped, kept)
            for kind, error in kinds.items():
                ratio = {n: error(n).total / _fixed(cut, n).total for n in BATCHES}
                wins |= {(level, c, kind, n): value < 1.0 for n, value in ratio.items()}
                rows.append((level, f"{c:g}", kind, cut.relative_bias, error(64).bias, *ratio.values()))
                if c == 2.0:
                    where = f"{level}, threshold 2, {kind}"
                    numbers |= {f"relative bias of truncation, {level}, threshold 2": cut.relative_bias}
                    numbers |= {f"relative bias of masking, {where}": error(64).bias}
                    numbers |= {f"ratio of errors at batch {n}, {where}": value for n, value in ratio.items()}
    numbers |= {"cells in which masking has less error": float(sum(wins.values())), "cells": float(len(wins))}

    def better(masking: bool, batch: int) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            cut = tree.moments(theory.weight("truncated", level="sequence", cap=1.5), "outcome")
            dropped = tree.moments(theory.weight("masked", level="sequence", interval=(0.0, 1.5)), "outcome")
            pair = {"bias truncated": cut.relative_bias, "bias masked": dropped.relative_bias}
            pair |= {"error truncated": cut.mean_squared_error(batch)}
            pair |= {"error masked": dropped.mean_squared_error(batch)}
            less = pair["error masked"] < pair["error truncated"] - 1e-9
            more = pair["error masked"] > pair["error truncated"] + 1e-9
            return pair if (less if masking else more) else None

        return shows

    searches = (
        smallest("sequences, threshold 1.5: truncation has less error at batch 64", better(False, 64), tiny_trees()),
        smallest("sequences, threshold 1.5: masking has less error at batch 1", better(True, 1), tiny_trees()),
    )
    won = sum(wins.values())
    verdict: Verdict = "holds" if won == len(wins) else "depends" if won else "fails"
    because = (
        f"on level, threshold, denominator and batch: masking has less error in {won} of {len(wins)} cells, truncation "
        "in the others"
    )
    columns = ("level", "threshold", "denominator", "bias cut", "bias masked", *(f"n={n}" for n in BATCHES))
    table = Table(
        "Masked over truncated, outcome - E[R]: relative biases, and ratio of mean squared errors of n trajectories",
        columns,
        rows,
    )
    return Finding(verdict, because, numbers, searches, (table,))


CLAIM = Claim(
    name="masking_beats_truncation",
    statement="Above a threshold, ratios should be masked rather than truncated.",
    sources=("threads, such as TRL 6369 and 6439, verl 3915, slime 657, mlcommons/training 905 (and the reverse)",),
    rule="Holds if masking has less mean squared error in every cell, fails if in none, depends otherwise.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "relative bias of truncation, token, threshold 2": 0.832577,
            "relative bias of masking, token, threshold 2, fixed": 0.8479108,
            "ratio of errors at batch 1, token, threshold 2, fixed": 0.8643673,
            "ratio of errors at batch 64, token, threshold 2, fixed": 0.9337178,
            "ratio of errors at batch 4096, token, threshold 2, fixed": 1.033297,
            "relative bias of truncation, sequence, threshold 2": 0.2772379,
            "relative bias of masking, sequence, threshold 2, fixed": 0.5295134,
            "ratio of errors at batch 1, sequence, threshold 2, fixed": 0.6003128,
            "ratio of errors at batch 64, sequence, threshold 2, fixed": 0.8399393,
            "ratio of errors at batch 4096, sequence, threshold 2, fixed": 3.182438,
            "relative bias of masking, sequence, threshold 2, kept count": 0.5259112,
            "ratio of errors at batch 1, sequence, threshold 2, kept count": 0.6003128,
            "ratio of errors at batch 64, sequence, threshold 2, kept count": 0.9484634,
            "ratio of errors at batch 4096, sequence, threshold 2, kept count": 3.158998,
            "cells in which masking has less error": 27.0,
            "cells": 45.0,
        },
        found=(
            "T=1, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 3/4; R = 1 0",
            "T=1, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 3/4; R = 1 0",
        ),
    ),
)
