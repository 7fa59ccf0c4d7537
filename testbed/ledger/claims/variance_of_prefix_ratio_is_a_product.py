"""Is the variance of the cumulative ratio the product of the tokens' (1 + chi-square), minus one?"""

from __future__ import annotations

import math

import numpy as np

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, over_cells
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees


def both(case: cases.Case) -> tuple[float, float]:
    """Var(W), and prod over t of (1 + chi2_t) - 1, chi2_t averaged over the states of mu at step t."""
    process, target, behaviour = case
    pi, mu = target.probabilities, behaviour.probabilities
    excess = (pi**2 / mu).sum(axis=1)
    visits = theory.values(process, behaviour).occupancy[:-1]
    product = float(np.prod(visits @ excess)) - 1.0
    return math.expm1(theory.renyi_divergence(*case, order=2.0)), product


def settle() -> Finding:
    """Exact variance of W beside the product, with and without dependence on the state."""
    tree = cases.reference(kl=0.1)
    row = theory.MarkovProcess(np.ones(1), np.ones((1, 3, 1)), np.array([[0.0, 0.0, 1.0]]), horizon=64)
    policies = (theory.SoftmaxPolicy([[0.0, 0.5, 1.0]]), theory.SoftmaxPolicy([[0.2, 0.4, 0.7]]))
    settings = {"independent tokens, T = 64": cases.Case(row, *policies), "token tree, T = 4, KL 0.1": tree}
    numbers: dict[str, float] = {}
    for name, case in settings.items():
        exact, product = both(case)
        numbers |= {f"variance, {name}": exact, f"product, {name}": product}

    def apart(more: bool) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            exact, product = both(cases.Case(*tree.case))
            found = exact > product + 1e-9 if more else exact < product - 1e-9
            return {"variance": exact, "product": product} if found else None

        return shows

    searches = (
        smallest("variance above the product", apart(True), tiny_trees()),
        smallest("variance below the product", apart(False), tiny_trees()),
    )
    equal = {
        name: math.isclose(numbers[f"variance, {name}"], numbers[f"product, {name}"], rel_tol=1e-9)
        for name in settings
    }  # fmt: skip
    verdict = over_cells(equal.values())
    because = (
        f"on independence: exact with {' and '.join(k for k, v in equal.items() if v) or 'neither'}; for dependent "
        f"tokens it lies on {'either side' if all(s.found for s in searches) else 'one side'}"
    )
    return Finding(verdict, because, numbers, searches)


CLAIM = Claim(
    name="variance_of_prefix_ratio_is_a_product",
    statement="Var(C_t) is the product over the tokens of (1 + chi2_j), minus one.",
    sources=("CTPO, arXiv 2605.07331 (stated under independence)",),
    rule="Holds if both agree in independent and in dependent tokens, fails if in neither, depends otherwise.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "variance, independent tokens, T = 64": 8.337028,
            "product, independent tokens, T = 64": 8.337028,
            "variance, token tree, T = 4, KL 0.1": 2.049551,
            "product, token tree, T = 4, KL 0.1": 1.577461,
        },
        found=(
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 3/4 1/4 1/2; R = 1 0 0 0",
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4 1/4 1/2; R = 1 0 0 0",
        ),
    ),
)
