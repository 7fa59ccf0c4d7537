"""Which logged diagnostic predicts the exact error of the gradient, and can any of them rule it out?"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

import testbed
import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table, Verdict
from testbed.ledger.tiny import HALF, TinyTree, smallest, tiny_trees

Array = NDArray[np.float64]
RESAMPLES = 500


def diagnostics(case: cases.Case) -> dict[str, float]:
    """What a dashboard logs, as its exact expectation; larger means further apart."""
    process, target, behaviour = case
    d = theory.divergences(*case, moves=0)
    pi, mu = target.probabilities, behaviour.probabilities
    visits = theory.values(process, behaviour).occupancy[:-1].sum(axis=0) * ~process.absorbing
    chosen = (visits[:, None] * mu) / visits.sum()
    ratio = pi / mu
    clipped = (ratio < 0.8) | (ratio > 1.2)
    return {
        "KL(mu||pi), token": d.token.kl_behaviour_target,
        "KL(pi||mu), token": d.token.kl_target_behaviour,
        "KL(mu||pi), sequence": d.sequence.kl_behaviour_target,
        "KL(pi||mu), sequence": d.sequence.kl_target_behaviour,
        "total variation, token": d.token.total_variation,
        "largest total variation": d.token.maximum_total_variation,
        "one minus ESS, token": 1.0 - d.token.effective_sample_size,
        "one minus ESS, sequence": 1.0 - d.sequence.effective_sample_size,
        "clip fraction (0.8, 1.2)": float(chosen[clipped].sum()),
        "largest ratio": float(ratio[visits > 0.0].max()),
        "mean |log ratio|": float((chosen * np.abs(np.log(ratio))).sum()),
    }


def _spearman(x: Array, y: Array) -> float:
    """Rank correlation, with the average rank where values are equal."""
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _nine_digits(values: list[float]) -> Array:
    """Divergences that were asked to be equal are so only up to the solver's rounding, which must not rank them."""
    return np.array([float(f"{value:.8e}") for value in values])


def settle() -> Finding:
    """Spearman's correlation with the exact relative bias of the token ratio, across a zoo; and where all are blind."""
    seen = [
        (name, diagnostics(case), cases.moments(case, "token", "outcome").relative_bias)
        for name, _, _, case in cases.zoo()
    ]
    error = _nine_digits([bias for _, _, bias in seen])
    families = np.array([name for name, _, _ in seen])
    names = sorted({name for name, _, _ in seen})
    rng = np.random.default_rng(0)
    # Cells of one environment are alike: whole environments are drawn, and the interval is as wide as that makes it.
    rows_of = {name: np.flatnonzero(families == name) for name in names}
    draws = [np.concatenate([rows_of[str(n)] for n in rng.choice(names, len(names))]) for _ in range(RESAMPLES)]
    rows, lows = [], []
    for diagnostic in seen[0][1]:
        value = _nine_digits([logged[diagnostic] for _, logged, _ in seen])
        rank = _spearman(value, error)
        low, high = np.quantile([_spearman(value[draw], error[draw]) for draw in draws], [0.025, 0.975])
        within = [_spearman(value[families == name], error[families == name]) for name in names]
        rows.append((diagnostic, rank, float(low), float(high), min(within)))
        lows.append(float(low))
    rows.sort(key=lambda row: -row[1])
    numbers = {f"rank correlation with the error: {row[0]}": row[1] for row in rows}
    numbers |= {"cells of the zoo": float(len(seen)), "largest lower end of an interval": max(lows)}

    coin = testbed.environment("two_token_counterexample", epsilon=0.1)
    assert coin.behaviour is not None
    pair = cases.Case(coin.process, coin.target, coin.behaviour)
    m = theory.moments(*pair, theory.Estimator("token", "outcome"))
    d = theory.divergences(*pair)
    numbers |= {
        "two tokens: truth in the first logit": m.gradient[1],
        "two tokens: expected estimate": m.mean[1],
        "two tokens: ESS, first token": theory.divergences(*cases.stopped(pair, 1)).sequence.effective_sample_size,
        "two tokens: ESS, sequence": d.sequence.effective_sample_size,
        "two tokens: KL, sequence": d.sequence.kl_behaviour_target,
    }
    fine = (HALF, Fraction(12, 25), Fraction(13, 25))

    def blind(tree: TinyTree) -> dict[str, float] | None:
        m, d = tree.moments("token", "outcome"), theory.divergences(*tree.case, moves=0).sequence
        wrong = m.gradient[1] * m.mean[1] < -1e-9
        if d.effective_sample_size < 0.99 or d.kl_behaviour_target > 0.01 or not wrong:
            return None
        ess, kl = d.effective_sample_size, d.kl_behaviour_target
        return {"ESS, sequence": ess, "KL": kl, "truth": m.gradient[1], "expected estimate": m.mean[1]}

    searches = (
        smallest("sequence ESS above 0.99, KL below 0.01, wrong sign in the first logit", blind,
                 tiny_trees(depths=(2,), chances=fine)),
    )  # fmt: skip
    ranks = max(lows) > 0.9
    safe = searches[0].found is None
    verdict: Verdict = "holds" if ranks and safe else "depends" if ranks or safe else "fails"
    best = rows[0]
    because = (
        f"the best of them, {best[0]}, ranks the errors of the zoo with correlation {best[1]:.2f} "
        f"({best[2]:.2f} to {best[3]:.2f}); none rules a wrong sign out"
    )
    columns = ("diagnostic", "rank correlation", "from", "to", "least within one")
    caption = f"Spearman correlation with the exact relative bias of token x outcome, {len(seen)} cells; 95 % intervals"
    return Finding(verdict, because, numbers, searches, (Table(caption, columns, rows),))


CLAIM = Claim(
    name="effective_sample_size_tells_when_the_gradient_is_wrong",
    statement="The effective sample size, the KL divergence or the clip fraction tells when the gradient is wrong.",
    sources=("framework dashboards; TRL 5231, verl 6806, NeMo-RL 3753", "33modeling/offpolicy-misranking"),
    rule="Holds if the 95 % interval (environments resampled) of some rank correlation lies above 0.9 and no tree with "
    "sequence ESS > 0.99 and KL < 0.01 has a wrong sign; fails if neither, depends if one.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "rank correlation with the error: KL(mu||pi), token": 0.5651929,
            "rank correlation with the error: clip fraction (0.8, 1.2)": 0.5332982,
            "rank correlation with the error: mean |log ratio|": 0.5310697,
            "rank correlation with the error: largest total variation": 0.5183438,
            "rank correlation with the error: total variation, token": 0.504943,
            "rank correlation with the error: KL(mu||pi), sequence": 0.4775071,
            "rank correlation with the error: one minus ESS, token": 0.4588303,
            "rank correlation with the error: KL(pi||mu), token": 0.4585175,
            "rank correlation with the error: KL(pi||mu), sequence": 0.435848,
            "rank correlation with the error: one minus ESS, sequence": 0.4144462,
            "rank correlation with the error: largest ratio": 0.2727168,
            "cells of the zoo": 90.0,
            "largest lower end of an interval": 0.4822937,
            "two tokens: truth in the first logit": -0.05,
            "two tokens: expected estimate": 0.05,
            "two tokens: ESS, first token": 1.0,
            "two tokens: ESS, sequence": 0.8571429,
            "two tokens: KL, sequence": 0.08109302,
        },
        found=("T=2, two tokens; pi(1|prefix) = 1/2 12/25 1/2; mu(1|prefix) = 1/2 13/25 1/2; R = 1 0 1 0",),
    ),
)
