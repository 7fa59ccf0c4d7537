"""Is the cumulative ratio always less variable than the ratio of the whole sequence, and its estimator too?"""

from __future__ import annotations

import math
from itertools import pairwise

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table, Verdict
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees


def _ratio_variance(case: cases.Case, tokens: int) -> float:
    """Var(C_t) with t = tokens: the chi-square of the laws of the first tokens."""
    return math.expm1(theory.renyi_divergence(*cases.stopped(case, tokens), order=2.0))


def settle() -> Finding:
    """Exact variances of C_t and of W, and of the two estimators with each signal."""
    case = cases.reference(kl=0.1)
    horizon = case.process.horizon
    ratios = [_ratio_variance(case, t) for t in range(1, horizon + 1)]
    numbers = {f"variance of the ratio up to token {t}": v for t, v in enumerate(ratios, start=1)}
    rows = []
    for signal in cases.SIGNALS:
        prefix, sequence = (cases.moments(case, weight, signal) for weight in ("prefix", "sequence"))
        numbers[f"variance of prefix over sequence, {signal}"] = prefix.variance / sequence.variance
        rows.append((signal, prefix.variance, sequence.variance, prefix.relative_bias, sequence.relative_bias))

    def noisier(signal: str) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            prefix, sequence = tree.moments("prefix", signal).variance, tree.moments("sequence", signal).variance
            return {"variance of prefix": prefix, "of sequence": sequence} if prefix > sequence + 1e-6 else None

        return shows

    def ratio_noisier(tree: TinyTree) -> dict[str, float] | None:
        first, last = (_ratio_variance(cases.Case(*tree.case), t) for t in (1, tree.depth))
        return {"Var(C_1)": first, "Var(W)": last} if first > last + 1e-9 else None

    def equal(tree: TinyTree) -> dict[str, float] | None:
        first, last = (_ratio_variance(cases.Case(*tree.case), t) for t in (1, 2))
        return {"Var(C_1)": first, "Var(W)": last} if first > 0.0 and abs(first - last) < 1e-12 else None

    searches = (
        smallest("Var(C_t) > Var(W)", ratio_noisier, tiny_trees(depths=(2,)), most=500),
        smallest("Var(C_t) = Var(W) > 0 before the last token", equal, tiny_trees(depths=(2,))),
        *(
            smallest(f"estimator with more variance, {signal}", noisier(signal), tiny_trees(depths=(2,)), most=600)
            for signal in cases.SIGNALS
        ),
    )
    ordered = all(a <= b for a, b in pairwise(ratios)) and searches[0].found is None
    counterexamples = [s.question.split(", ")[1] for s in searches[2:] if s.found is not None]
    strict = searches[1].found is None
    strictly = ordered and strict and not counterexamples
    verdict: Verdict = "holds" if strictly else "depends" if ordered else "fails"
    because = (
        "for the ratios never more, but equal where later tokens do not drift; for the estimators "
        + (f"not with {' and '.join(counterexamples)}" if counterexamples else "no counterexample")
    )  # fmt: skip
    columns = ("signal", "variance prefix", "variance sequence", "bias prefix", "bias sequence")
    return Finding(verdict, because, numbers, searches, (Table("The estimators", columns, rows),))


CLAIM = Claim(
    name="prefix_ratio_has_less_variance_than_the_sequence_ratio",
    statement="The cumulative ratio C_t has strictly lower variance than the sequence ratio W.",
    sources=("CTPO, arXiv 2605.07331",),
    rule="Holds if C_t, and its estimator with every signal, always has less variance; fails if C_t can have more; "
    "depends if only equality or an estimator speaks against it.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "variance of the ratio up to token 1": 0.06091361,
            "variance of the ratio up to token 2": 0.4708206,
            "variance of the ratio up to token 3": 0.7782535,
            "variance of the ratio up to token 4": 2.049551,
            "variance of prefix over sequence, target_advantage": 0.7015154,
            "variance of prefix over sequence, behaviour_advantage": 0.6549286,
            "variance of prefix over sequence, outcome": 0.5122942,
        },
        found=(
            None,
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4 1/2 1/2; R = 1 0 0 0",
            None,
            None,
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/2 1/4 1/2; R = 1 0 0 0",
        ),
    ),
)
