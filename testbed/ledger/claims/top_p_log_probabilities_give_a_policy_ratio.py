"""Full-vocabulary log-probabilities over those of a truncated sampler: what does the quotient contain?"""

from __future__ import annotations

from typing import Any

import numpy as np

import testbed
import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table
from testbed.ledger.tiny import TinyTree, smallest, tiny_trees

TOP_P = (1.0, 0.95, 0.9, 0.8, 0.6)


def truncated(policy: theory.SoftmaxPolicy, top_p: float) -> theory.SoftmaxPolicy:
    """The sampler: the most probable tokens that reach the mass `top_p`, renormalised."""
    order = np.argsort(-policy.probabilities, axis=1)
    ranked = np.take_along_axis(policy.probabilities, order, axis=1)
    kept = np.empty_like(ranked, dtype=bool)
    np.put_along_axis(kept, order, np.cumsum(ranked, axis=1) - ranked < top_p - 1e-12, axis=1)
    return theory.SoftmaxPolicy(np.where(kept, policy.logits, -np.inf))


def settle() -> Finding:
    """The quotient with identical weights: per token, per sequence, and what it does to the gradient."""
    environment = testbed.environment("token_tree", depth=4, vocabulary=3)
    process, policy = environment.process, environment.target
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    for top_p in TOP_P:
        sampler = truncated(policy, top_p)
        kept = np.isfinite(sampler.logits)
        mass = np.where(kept, policy.probabilities, 0.0).sum(axis=1, keepdims=True)
        quotient = policy.probabilities / np.where(kept, sampler.probabilities, 1.0)
        # Between equal weights every ratio should be 1; the quotient is the kept mass instead.
        apart = float(np.abs(np.where(kept, quotient - mass, 0.0)).max())
        visits = theory.values(process, sampler).occupancy[:-1].sum(axis=0) * ~process.absorbing
        estimator = theory.Estimator("sequence", "outcome")
        full = theory.moments(process, policy, sampler, estimator, missing_support="allow")
        restricted = theory.moments(process, sampler, sampler, estimator)
        naive_step = float(np.linalg.norm(full.mean))
        average = float(visits @ mass[:, 0] / visits.sum())
        rows.append((f"{top_p:g}", average, 1.0 - full.lost_mass, full.relative_bias, full.cosine))
        if top_p in (1.0, 0.6):
            numbers |= {
                f"quotient minus kept mass, largest, top-p {top_p:g}": apart,
                f"average quotient of a token, top-p {top_p:g}": average,
                f"average quotient of a sequence, top-p {top_p:g}": 1.0 - full.lost_mass,
                f"relative bias of the sequence ratio, top-p {top_p:g}": full.relative_bias,
                f"length over that of the sampler's own gradient, top-p {top_p:g}": naive_step
                / float(np.linalg.norm(restricted.gradient)),
            }
    for tokens in (100, 1000):
        numbers[f"0.99 kept at each of {tokens} tokens: quotient of the sequence"] = 0.99**tokens

    def apart_from_one(tree: TinyTree) -> dict[str, float] | None:
        process, policy, _ = tree.case
        sampler = truncated(policy, 0.7)
        m = theory.moments(process, policy, sampler, theory.Estimator("sequence", "outcome"), missing_support="allow")
        mean_ratio = 1.0 - m.lost_mass
        return {"average quotient": mean_ratio} if abs(mean_ratio - 1.0) > 1e-9 else None

    on_policy = tiny_trees(on_policy=True)
    searches = (smallest("top-p 0.7, equal weights: average quotient is not 1", apart_from_one, on_policy),)
    multiplied = numbers["quotient minus kept mass, largest, top-p 0.6"] < cases.ZERO
    one = abs(numbers["average quotient of a token, top-p 0.6"] - 1.0) < cases.ZERO
    because = (
        "at equal weights the quotient is "
        + ("the kept mass at every token instead of 1" if multiplied and not one else "1")
        + "; its expectation is the share of the target that the sampler can reach"
    )
    columns = ("top-p", "token quotient", "sequence quotient", "relative bias", "cosine")
    table = Table("Token tree, trainer and sampler with equal weights: averages under the sampler", columns, rows)
    return Finding("holds" if one else "fails", because, numbers, searches, (table,))


CLAIM = Claim(
    name="top_p_log_probabilities_give_a_policy_ratio",
    statement="Full-vocabulary trainer log-probabilities minus those of a top-p sampler are the log of a policy ratio.",
    sources=("TRL issue 6789",),
    rule="Holds if the quotient is 1 wherever trainer and sampler have equal weights, fails otherwise.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "quotient minus kept mass, largest, top-p 1": 0.0,
            "average quotient of a token, top-p 1": 1.0,
            "average quotient of a sequence, top-p 1": 1.0,
            "relative bias of the sequence ratio, top-p 1": 0.0,
            "length over that of the sampler's own gradient, top-p 1": 1.0,
            "quotient minus kept mass, largest, top-p 0.6": 0.0,
            "average quotient of a token, top-p 0.6": 0.7652201,
            "average quotient of a sequence, top-p 0.6": 0.3420112,
            "relative bias of the sequence ratio, top-p 0.6": 1.741099,
            "length over that of the sampler's own gradient, top-p 0.6": 1.315534,
            "0.99 kept at each of 100 tokens: quotient of the sequence": 0.3660323,
            "0.99 kept at each of 1000 tokens: quotient of the sequence": 4.317125e-05,
        },
        found=("T=1, two tokens; pi(1|prefix) = 1/4; mu(1|prefix) = 1/4; R = 1 0",),
    ),
)
