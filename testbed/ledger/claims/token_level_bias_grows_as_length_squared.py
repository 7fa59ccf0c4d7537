"""How tight is the bound T^2 Dmax on the bias of weights per token?"""

from __future__ import annotations

from typing import Any

import numpy as np

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees

LENGTHS, KLS = (4, 8, 16, 32, 64, 128), (0.0001, 0.001, 0.01, 0.1)
WEIGHTS = ("none", "token")


def bound(case: cases.Case) -> float:
    """2 T^2 Dmax max|z| max|R|.

    From |E_mu[f] - E_pi[f]| <= 2 sup|f| TV with f = R sum of z_t, |f| <= T max|z| max|R| and TV <= T Dmax. Proved for
    the estimator without weights; for the token ratio the source argues by analogy.
    """
    process, target, _ = case
    largest = theory.divergences(*case, moves=0).token.maximum_total_variation
    score = float(np.sqrt(target.squared_score.max()))
    reward = float(np.abs(process.terminal_reward).max())
    return 2.0 * process.horizon**2 * largest * score * reward


def _used(case: cases.Case, weight: str) -> float:
    """|bias| over the bound, with the outcome."""
    return float(np.linalg.norm(cases.moments(case, weight, "outcome").bias)) / bound(case)


def _slope(x: list[float], y: list[float]) -> float:
    """Of log y against log x, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def settle() -> Finding:
    """Exact bias over the bound against T and Dmax, and the exponents with which the bias itself grows."""
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    used: list[float] = []
    for weight in WEIGHTS:
        sizes = []
        for horizon in LENGTHS:
            case = cases.sums(horizon, kl=0.01)
            share = _used(case, weight)
            used.append(share)
            sizes.append(share * bound(case) / theory.divergences(*case, moves=0).token.maximum_total_variation)
            rows.append((weight, str(horizon), "0.01", share, 1.0 / share))
        # The last half, where the sum has forgotten its start; Dmax is divided out.
        numbers[f"exponent of T, {weight}"] = _slope([float(t) for t in LENGTHS[3:]], sizes[3:])
        drifted = [cases.sums(16, kl=kl) for kl in KLS]
        distances = [theory.divergences(*case, moves=0).token.maximum_total_variation for case in drifted]
        shares = [_used(case, weight) for case in drifted]
        used += shares
        rows += [(weight, "16", f"{kl:g}", s, 1.0 / s) for kl, s in zip(KLS, shares, strict=True) if kl != 0.01]
        errors = [share * bound(case) for share, case in zip(shares, drifted, strict=True)]
        numbers[f"exponent of Dmax, {weight}, T = 16"] = _slope(distances, errors)
        for horizon in (4, 128):
            share = _used(cases.sums(horizon, kl=0.01), weight)
            numbers[f"bound over bias, {weight}, T = {horizon}, KL 0.01"] = 1.0 / share

    tightest = dict.fromkeys(WEIGHTS, 0.0)

    def beyond(weight: str) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            if tree.target == tree.behaviour:
                return None
            share = _used(cases.Case(*tree.case), weight)
            tightest[weight] = max(tightest[weight], share)
            return {"bias over bound": share} if share > 1.0 else None

        return shows

    searches = tuple(
        smallest(f"bias beyond the bound, {weight}", beyond(weight), tiny_trees(), most=800) for weight in WEIGHTS
    )
    numbers |= {f"bound over bias, {weight}, tightest tiny tree": 1.0 / tightest[weight] for weight in WEIGHTS}
    kept = max(used) <= 1.0 and all(search.found is None for search in searches)
    because = (
        f"as an upper bound, {1.0 / max(used):.3g} to {1.0 / min(used):.3g} times too large here: the bias grows as "
        f"T^{numbers['exponent of T, none']:.2f} without a ratio and T^{numbers['exponent of T, token']:.2f} with it"
    )
    columns = ("weight", "T", "KL", "bias / bound", "bound / bias")
    table = Table("Sum modulo 5, outcome: |bias| against 2 T^2 Dmax max|z| max|R|", columns, rows)
    return Finding("holds" if kept else "fails", because, numbers, searches, (table,))


CLAIM = Claim(
    name="token_level_bias_grows_as_length_squared",
    statement="The bias of weights per token is O(T^2 Dmax).",
    sources=("Liu, Li et al. 2025, 'When Speed Kills Stability', part 1",),
    rule="Holds as a bound if the exact bias never exceeds 2 T^2 Dmax max|z| max|R|; the exponents tell how tight.",
    settle=settle,
    recorded=Recorded(
        "holds",
        {
            "exponent of T, none": 1.025262,
            "exponent of Dmax, none, T = 16": 1.121191,
            "bound over bias, none, T = 4, KL 0.01": 79.86889,
            "bound over bias, none, T = 128, KL 0.01": 2106.384,
            "exponent of T, token": 6.589267e-05,
            "exponent of Dmax, token, T = 16": 1.048013,
            "bound over bias, token, T = 4, KL 0.01": 241.4843,
            "bound over bias, token, T = 128, KL 0.01": 372912.5,
            "bound over bias, none, tightest tiny tree": 2.0,
            "bound over bias, token, tightest tiny tree": 11.31371,
        },
        found=(
            None,
            None,
        ),
    ),
)
