"""Which logged diagnostic predicts the exact error of the gradient, and can any of them rule it out?"""

from __future__ import annotations

import math
from fractions import Fraction

import testbed
import theory
from testbed.ledger.record import Claim, Finding, Recorded, Table, over_cells
from testbed.ledger.tiny import HALF, TinyTree, smallest, tiny_trees

ZOO = ("brackets", "chain", "digit_addition", "frozen_lake", "garnet", "keyword", "modular_sum", "parity")
SHOWN = (
    "ratio_effective_sample_size",
    "sequence_ratio_effective_sample_size",
    "kl_k1",
    "kl_k2",
    "clip_fraction",
    "ratio_maximum",
    "log_ratio_absolute_mean",
)


def _weakest(interval: tuple[float, float]) -> float:
    """The least |correlation| of an interval, zero where it holds both signs."""
    low, high = interval
    return min(abs(low), abs(high)) if low * high > 0.0 else 0.0


def settle() -> Finding:
    """Rank correlation with the exact relative bias of the token ratio across a zoo; and where all are blind."""
    cells = testbed.prediction_cells("token", "outcome", environments=ZOO, kl=(0.01, 0.05, 0.2), seeds=(0, 1))
    ranking = testbed.diagnostic_ranking("token", "outcome", errors=("relative_bias",), resamples=200, cells=cells)
    # What cannot be ranked, such as a statistic that is the same in every cell, predicts nothing.
    known = [record for record in ranking if not math.isnan(record.correlation)]
    ranks = {record.diagnostic: record.correlation for record in known}
    numbers = {f"rank correlation with the error, {name}": ranks[name] for name in SHOWN}
    numbers[f"rank correlation with the error, best: {known[0].diagnostic}"] = known[0].correlation
    numbers["cells of the zoo"] = float(len(cells))
    rows = [(r.diagnostic, r.correlation, *r.correlation_interval, r.at_equal_kl, r.within_environment) for r in known]

    spot = testbed.blind_spot("prefix", "outcome", epsilon=0.1)
    numbers |= {
        "two tokens, first logit: truth": spot.truth,
        "two tokens, first logit: expected estimate": spot.expected,
        "two tokens: ESS of the first token's ratios": spot.first_token_effective_sample_size,
    }

    def blind(tree: TinyTree) -> dict[str, float] | None:
        m, d = tree.moments("token", "outcome"), theory.divergences(*tree.case, moves=0).sequence
        ess, kl = d.effective_sample_size, d.kl_behaviour_target
        if ess < 0.99 or kl > 0.01 or m.gradient[1] * m.mean[1] > -1e-9:
            return None
        return {"ESS, sequence": ess, "KL": kl, "truth": m.gradient[1], "expected estimate": m.mean[1]}

    fine = (HALF, Fraction(12, 25), Fraction(13, 25))
    question = "sequence ESS above 0.99, KL below 0.01, and the wrong sign in the first logit"
    search = smallest(question, blind, tiny_trees(depths=(2,), chances=fine))

    tells = any(_weakest(r.correlation_interval) > 0.9 for r in known)
    safe = search.found is None
    best = known[0]
    because = (
        f"the best, {best.diagnostic}, ranks the errors of the zoo with correlation {best.correlation:.2f} "
        f"({best.correlation_interval.low:.2f} to {best.correlation_interval.high:.2f}); "
        f"{'no tree of the search' if safe else 'a tree'} with full ESS and no KL has the wrong sign"
    )
    columns = ("diagnostic", "correlation", "from", "to", "at equal KL", "within one")
    caption = (
        f"Spearman correlation with the exact relative bias of token x outcome, {len(cells)} cells; 95 % intervals "
        "(environments resampled); mean of the correlations at equal KL, and within one environment"
    )
    return Finding(over_cells([tells, safe]), because, numbers, (search,), (Table(caption, columns, rows),))


CLAIM = Claim(
    name="effective_sample_size_tells_when_the_gradient_is_wrong",
    statement="The effective sample size, the KL divergence or the clip fraction tells when the gradient is wrong.",
    sources=("framework dashboards; TRL 5231, verl 6806, NeMo-RL 3753", "33modeling/offpolicy-misranking"),
    rule="Holds if the interval of some rank correlation lies beyond 0.9 and no tree with sequence ESS > 0.99 and "
    "KL < 0.01 has a wrong sign; fails if neither, depends if one.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "rank correlation with the error, ratio_effective_sample_size": -0.5920296,
            "rank correlation with the error, sequence_ratio_effective_sample_size": -0.6469355,
            "rank correlation with the error, kl_k1": 0.717522,
            "rank correlation with the error, kl_k2": 0.7460967,
            "rank correlation with the error, clip_fraction": 0.5964999,
            "rank correlation with the error, ratio_maximum": 0.3330478,
            "rank correlation with the error, log_ratio_absolute_mean": 0.7137315,
            "rank correlation with the error, best: kl_k2": 0.7460967,
            "cells of the zoo": 106.0,
            "two tokens, first logit: truth": -0.05,
            "two tokens, first logit: expected estimate": 0.05,
            "two tokens: ESS of the first token's ratios": 1.0,
        },
        found=("T=2, two tokens; pi(1|prefix) = 1/2 12/25 1/2; mu(1|prefix) = 1/2 13/25 1/2; R = 1 0 1 0",),
    ),
)
