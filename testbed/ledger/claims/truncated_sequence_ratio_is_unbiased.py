"""Is the sequence ratio still unbiased once it is cut off above?"""

from __future__ import annotations

import math
from typing import Any

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table, over_cells
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees


def settle() -> Finding:
    """Exact relative bias and variance of min(W, cap) with the outcome, for caps in use and for none."""
    case = cases.reference(kl=0.1)
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    for cap in (1.0, 2.0, 5.0, 8.0, 10.0, math.inf):
        m = cases.moments(case, theory.weight("truncated", level="sequence", cap=cap), "outcome")
        numbers[f"relative bias, cap {cap:g}"] = m.relative_bias
        rows.append((f"{cap:g}", m.relative_bias, m.cosine, m.variance))
    numbers["relative bias, cap 2, minus expected return"] = cases.moments(
        case,
        theory.weight("truncated", level="sequence", cap=2.0),
        theory.signal("outcome", baseline="expected_return"),
    ).relative_bias

    def biased(cap: float) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            m = tree.moments(theory.weight("truncated", level="sequence", cap=cap), "outcome")
            return {"relative bias": m.relative_bias, "cosine": m.cosine} if m.relative_bias > 1e-6 else None

        return shows

    searches = (
        smallest("a bias at cap 2", biased(2.0), tiny_trees()),
        smallest("a bias without a cap", biased(math.inf), tiny_trees(), most=800),
    )
    finite = [value for name, value in numbers.items() if "inf" not in name]
    unbiased = [value < cases.ZERO for value in finite]
    verdict = over_cells(unbiased)
    untruncated = "unbiased" if numbers["relative bias, cap inf"] < cases.ZERO else "biased"
    because = f"biased at every finite cap of the table; without a cap {untruncated}"
    table = Table("min(W, cap) x outcome", ("cap", "relative bias", "cosine", "variance"), rows)
    return Finding(verdict, because, numbers, searches, (table,))


CLAIM = Claim(
    name="truncated_sequence_ratio_is_unbiased",
    statement="Truncated importance sampling with the ratio of the whole sequence is unbiased.",
    sources=("verl documentation, rollout correction mathematics, section 5.2",),
    rule="Holds if the relative bias is zero at every finite cap, fails if at none, depends on the cap otherwise.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "relative bias, cap 1": 0.9043255,
            "relative bias, cap 2": 0.8301957,
            "relative bias, cap 5": 0.4866769,
            "relative bias, cap 8": 0.3583904,
            "relative bias, cap 10": 0.2845913,
            "relative bias, cap inf": 0.0,
            "relative bias, cap 2, minus expected return": 0.2772379,
        },
        found=(
            "T=1, two tokens; pi(1|prefix) = 1/4; mu(1|prefix) = 3/4; R = 1 0",
            None,
        ),
    ),
)
