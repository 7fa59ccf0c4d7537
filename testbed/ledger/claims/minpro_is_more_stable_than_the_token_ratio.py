"""Where does MinPRO have less variance, and less error, than the plain token ratio?"""

from __future__ import annotations

import math
from typing import Any

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table, Verdict
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees

BASELINE = theory.signal("outcome", baseline="expected_return")
SIGNALS = (*(theory.signal(name) for name in cases.SIGNALS), BASELINE)
FORMS = (theory.weight("minpro"), theory.weight("minpro", clip=(0.8, 1.28)))
BATCHES = (1, 100, 10_000)
KLS = (0.01, 0.1, 0.5)


def _short(signal: theory.Signal) -> str:
    return "outcome - E[R]" if signal == BASELINE else signal.name


def _crossing(minpro: theory.Moments, token: theory.Moments) -> float:
    """The batch at which both have the same mean squared error: above it the one with less bias wins."""
    bias = float(token.bias @ token.bias - minpro.bias @ minpro.bias)
    batch = (minpro.variance - token.variance) / bias
    return batch if batch >= 1.0 else math.nan


def settle() -> Finding:
    """Exact variance and mean squared error, MinPRO over token, against drift, length, signal and batch."""
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    wins, cells = dict.fromkeys(("variance", *BATCHES), 0), 0
    settings = [("tree T=4", kl, cases.reference(kl=kl)) for kl in KLS]
    settings += [("sums T=64", kl, cases.sums(64, kl=kl)) for kl in KLS]
    for where, kl, case in settings:
        for signal in SIGNALS:
            token = cases.moments(case, "token", signal)
            for form in FORMS:
                m = cases.moments(case, form, signal)
                variance = m.variance / token.variance
                errors = {n: m.mean_squared_error(n) / token.mean_squared_error(n) for n in BATCHES}
                crossing = _crossing(m, token)
                cells += 1
                wins["variance"] += variance < 1.0
                for n in BATCHES:
                    wins[n] += errors[n] < 1.0
                rows.append(
                    (where, f"{kl:g}", _short(signal), "clip" if form is FORMS[1] else "-",
                     variance, m.relative_bias, token.relative_bias, errors[100], errors[10_000], crossing)
                )  # fmt: skip
                if kl == 0.5 and signal in (SIGNALS[0], BASELINE):
                    name = f"{where}, KL 0.5, {_short(signal)}{', clip' if form is FORMS[1] else ''}"
                    numbers[f"ratio of variances, {name}"] = variance
                    numbers[f"ratio of errors at batch 10000, {name}"] = errors[10_000]
    case = cases.sums(64, kl=0.1)
    pair = cases.moments(case, FORMS[0], "outcome"), cases.moments(case, "token", "outcome")
    numbers["batch where the token ratio overtakes, sums T=64, KL 0.1, outcome"] = _crossing(*pair)
    clipped = cases.moments(case, FORMS[1], "outcome").relative_bias
    numbers["relative bias, sums T=64, KL 0.1, outcome, clip"] = clipped
    numbers |= {f"cells of {cells} with less variance": float(wins["variance"])}
    numbers |= {f"cells of {cells} with less error at batch {n}": float(wins[n]) for n in BATCHES}

    def noisier(signal: str) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            minpro, token = tree.moments("minpro", signal).variance, tree.moments("token", signal).variance
            return {"variance of minpro": minpro, "of token": token} if minpro > token + 1e-6 else None

        return shows

    searches = tuple(
        smallest(f"more variance than the token ratio, {signal}", noisier(signal), tiny_trees())
        for signal in ("target_advantage", "outcome")
    )
    won = list(wins.values())
    verdict: Verdict = "holds" if min(won) == cells else "depends" if max(won) > 0 else "fails"
    because = (
        f"on length, drift, signal and batch: of {cells} cells, less variance in {won[0]}, less error in {won[1]} at "
        f"batch 1, {won[2]} at 100, {won[3]} at 10000"
    )
    columns = ("process", "KL", "signal", "clip", "variance", "bias", "token's", "n=100", "n=10^4", "n equal")
    table = Table(
        "MinPRO over token: ratio of variances; relative biases; ratio of mean squared errors of n trajectories, and "
        "the n that makes them equal",
        columns,
        rows,
    )
    return Finding(verdict, because, numbers, searches, (table,))


CLAIM = Claim(
    name="minpro_is_more_stable_than_the_token_ratio",
    statement="Under large drift MinPRO is more stable than the token ratio.",
    sources=("MinPRO, arXiv 2601.22718",),
    rule="Holds if variance and mean squared error are smaller in every cell and batch, fails if nowhere.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "ratio of variances, tree T=4, KL 0.5, target_advantage": 0.7803109,
            "ratio of errors at batch 10000, tree T=4, KL 0.5, target_advantage": 0.2040722,
            "ratio of variances, tree T=4, KL 0.5, target_advantage, clip": 0.03443774,
            "ratio of errors at batch 10000, tree T=4, KL 0.5, target_advantage, clip": 1.069135,
            "ratio of variances, tree T=4, KL 0.5, outcome - E[R]": 2.114093,
            "ratio of errors at batch 10000, tree T=4, KL 0.5, outcome - E[R]": 0.7149996,
            "ratio of variances, tree T=4, KL 0.5, outcome - E[R], clip": 0.04494589,
            "ratio of errors at batch 10000, tree T=4, KL 0.5, outcome - E[R], clip": 1.142426,
            "ratio of variances, sums T=64, KL 0.5, target_advantage": 0.07842754,
            "ratio of errors at batch 10000, sums T=64, KL 0.5, target_advantage": 5.851543,
            "ratio of variances, sums T=64, KL 0.5, target_advantage, clip": 0.04930143,
            "ratio of errors at batch 10000, sums T=64, KL 0.5, target_advantage, clip": 5.004765,
            "ratio of variances, sums T=64, KL 0.5, outcome - E[R]": 0.082441,
            "ratio of errors at batch 10000, sums T=64, KL 0.5, outcome - E[R]": 0.5641045,
            "ratio of variances, sums T=64, KL 0.5, outcome - E[R], clip": 0.1147014,
            "ratio of errors at batch 10000, sums T=64, KL 0.5, outcome - E[R], clip": 0.5156021,
            "batch where the token ratio overtakes, sums T=64, KL 0.1, outcome": 1774.595,
            "relative bias, sums T=64, KL 0.1, outcome, clip": 11.73842,
            "cells of 48 with less variance": 47.0,
            "cells of 48 with less error at batch 1": 47.0,
            "cells of 48 with less error at batch 100": 34.0,
            "cells of 48 with less error at batch 10000": 20.0,
        },
        found=(
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 3/4 1/2 1/2; R = 1 0 0 0",
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 3/4 1/2 1/2; R = 1 0 0 0",
        ),
    ),
)
