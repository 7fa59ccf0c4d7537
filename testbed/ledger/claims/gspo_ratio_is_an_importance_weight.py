"""Is the geometric mean of token ratios a ratio of densities?"""

from __future__ import annotations

import math

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded
from testbed.ledger.tiny import TinyTree, smallest, tiny_trees


def expected_root(case: cases.Case) -> float:
    """E_mu[W^(1/T)], at fixed length T: exp((order - 1) D_order) with order = 1/T."""
    order = 1.0 / case.process.horizon
    return math.exp((order - 1.0) * theory.renyi_divergence(*case, order=order))


def settle() -> Finding:
    """Exact expectation of the weight, which is one for every density ratio, and its bias."""
    numbers: dict[str, float] = {}
    for kl in (0.01, 0.1):
        for horizon in (1, 4):
            numbers[f"E[W^(1/T)], T = {horizon}, KL {kl:g}"] = expected_root(cases.reference(kl=kl, depth=horizon))
        numbers[f"E[W^(1/T)], T = 512, KL {kl:g}"] = expected_root(cases.sums(512, kl=kl))
        for signal in cases.SIGNALS:
            m = cases.moments(cases.reference(kl=kl), "geometric", signal)
            numbers[f"relative bias, {signal}, T = 4, KL {kl:g}"] = m.relative_bias

    def not_one(tree: TinyTree) -> dict[str, float] | None:
        mean = expected_root(cases.Case(*tree.case))
        return {"E[W^(1/T)]": mean} if abs(mean - 1.0) > 1e-9 else None

    searches = (
        smallest("E[W^(1/T)] is not 1", not_one, tiny_trees()),
        smallest("T = 1: E[W^(1/T)] is not 1", not_one, tiny_trees(depths=(1,))),
    )
    one = [abs(value - 1.0) < cases.ZERO for name, value in numbers.items() if "E[W" in name and "T = 1," not in name]
    because = (
        f"{sum(one)} of {len(one)} averages at T > 1 are one, as those of every density ratio are: "
        f"{numbers['E[W^(1/T)], T = 4, KL 0.1']:.4f} at T = 4, KL 0.1"
    )
    return Finding("holds" if all(one) else "fails", because, numbers, searches)


CLAIM = Claim(
    name="gspo_ratio_is_an_importance_weight",
    statement="GSPO's W^(1/T) is the importance weight of a sequence.",
    sources=("GSPO, arXiv 2507.18071",),
    rule="A ratio of densities has expectation 1. Holds if E[W^(1/T)] = 1 at every length, fails otherwise.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "E[W^(1/T)], T = 1, KL 0.01": 1.0,
            "E[W^(1/T)], T = 4, KL 0.01": 0.9924539,
            "E[W^(1/T)], T = 512, KL 0.01": 0.9900683,
            "relative bias, target_advantage, T = 4, KL 0.01": 0.1101568,
            "relative bias, behaviour_advantage, T = 4, KL 0.01": 0.2099817,
            "relative bias, outcome, T = 4, KL 0.01": 0.5121146,
            "E[W^(1/T)], T = 1, KL 0.1": 1.0,
            "E[W^(1/T)], T = 4, KL 0.1": 0.9248146,
            "E[W^(1/T)], T = 512, KL 0.1": 0.9050013,
            "relative bias, target_advantage, T = 4, KL 0.1": 0.3951025,
            "relative bias, behaviour_advantage, T = 4, KL 0.1": 0.788848,
            "relative bias, outcome, T = 4, KL 0.1": 1.525825,
        },
        found=(
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4 1/2 1/2; R = 1 0 0 0",
            None,
        ),
    ),
)
