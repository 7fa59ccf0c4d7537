"""On reused data: leave the ratio out, or keep it?"""

from __future__ import annotations

from typing import Any

import theory
from testbed import drift
from testbed.environments import environment
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table, over_cells
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees

KLS = (0.0001, 0.001, 0.01, 0.1)
SIGNALS = {
    "group of 4": theory.group(4, "mean", "std"),
    "outcome - E[R]": theory.signal("outcome", baseline="expected_return"),
    "target_advantage": theory.signal("target_advantage"),
}
BATCHES = (64, 4096)


def settle() -> Finding:
    """Exact bias, variance, cosine and error of `none` and `token`, for stale policies and for noisy ones."""
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    alike = {}
    tree = environment("token_tree", depth=4, vocabulary=3)
    for kind in ("staleness", "noise"):
        for kl in KLS:
            pair = drift.at(kind, tree.process, tree.target, kl=kl)
            case = cases.Case(tree.process, pair.target, pair.behaviour)
            for name, signal in SIGNALS.items():
                none, token = (cases.moments(case, weight, signal) for weight in ("none", "token"))
                ratio = {n: (none.mean_squared_error(n) / token.mean_squared_error(n)) ** 0.5 for n in BATCHES}
                for n in BATCHES:
                    alike[kind, kl, name, n] = abs(ratio[n] - 1.0) < 0.1 and abs(token.cosine - none.cosine) < 0.01
                pairs = (none.relative_bias, token.relative_bias, none.cosine, token.cosine)
                rows.append((kind, f"{kl:g}", name, *pairs, none.variance / token.variance, *ratio.values()))
                if kind == "staleness" and kl in (0.001, 0.1) and name == "outcome - E[R]":
                    numbers |= {
                        f"relative bias without a ratio, {name}, KL {kl:g}": none.relative_bias,
                        f"relative bias with it, {name}, KL {kl:g}": token.relative_bias,
                        f"cosine without, {name}, KL {kl:g}": none.cosine,
                        f"cosine with, {name}, KL {kl:g}": token.cosine,
                        f"variance without over with, {name}, KL {kl:g}": none.variance / token.variance,
                    }
                    numbers |= {f"error without over with at {n}, {name}, KL {kl:g}": v for n, v in ratio.items()}
    numbers |= {"cells in which they are alike": float(sum(alike.values())), "cells": float(len(alike))}

    def better(none_wins: bool) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            none, token = (tree.moments(weight, "outcome").relative_bias for weight in ("none", "token"))
            pair = {"bias without": none, "bias with": token}
            return pair if (none < token - 1e-6 if none_wins else none > token + 1e-6) else None

        return shows

    searches = (
        smallest("less bias with the ratio, outcome", better(False), tiny_trees()),
        smallest("less bias without the ratio, outcome", better(True), tiny_trees()),
    )
    verdict = over_cells(alike.values())
    count = {kl: sum(same for key, same in alike.items() if key[1] == kl) for kl in KLS}
    cells = len(alike) // len(KLS)
    because = (
        f"on drift and batch: alike in {', '.join(f'{n} of {cells} cells at KL {kl:g}' for kl, n in count.items())}"
    )
    columns = (
        "drift",
        "KL",
        "signal",
        "bias",
        "token's",
        "cosine",
        "token's",
        "variance",
        *(f"n={n}" for n in BATCHES),
    )
    caption = (
        "Without a ratio and with the token's; the last three columns are without over with: variance, and root mean "
    )
    caption += "squared error of n trajectories"
    return Finding(verdict, because, numbers, searches, (Table(caption, columns, rows),))


CLAIM = Claim(
    name="no_ratio_performs_like_the_token_ratio",
    statement="On reused data GRPO without any ratio performs like GRPO with it.",
    sources=("TIC-GRPO, arXiv 2508.02833, ablation",),
    rule="Alike means: root mean squared errors within 10 %, and cosines within 0.01. Holds if alike in every cell, "
    "fails if in none, depends otherwise.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "relative bias without a ratio, outcome - E[R], KL 0.001": 0.1527611,
            "relative bias with it, outcome - E[R], KL 0.001": 0.07869703,
            "cosine without, outcome - E[R], KL 0.001": 0.996445,
            "cosine with, outcome - E[R], KL 0.001": 0.9987843,
            "variance without over with, outcome - E[R], KL 0.001": 1.042295,
            "error without over with at 64, outcome - E[R], KL 0.001": 1.028823,
            "error without over with at 4096, outcome - E[R], KL 0.001": 1.340146,
            "relative bias without a ratio, outcome - E[R], KL 0.1": 2.13417,
            "relative bias with it, outcome - E[R], KL 0.1": 0.9920298,
            "cosine without, outcome - E[R], KL 0.1": 0.6989586,
            "cosine with, outcome - E[R], KL 0.1": 0.800425,
            "variance without over with, outcome - E[R], KL 0.1": 1.567794,
            "error without over with at 64, outcome - E[R], KL 0.1": 1.459971,
            "error without over with at 4096, outcome - E[R], KL 0.1": 2.104777,
            "cells in which they are alike": 22.0,
            "cells": 48.0,
        },
        found=(
            "T=1, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4; R = 1 0",
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4 3/4 1/2; R = 1 0 0 0",
        ),
    ),
)
