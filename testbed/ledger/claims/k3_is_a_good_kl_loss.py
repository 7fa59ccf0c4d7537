"""k3 estimates the KL divergence without bias. Does its gradient?"""

from __future__ import annotations

from typing import Any, Literal

import testbed
import theory
from testbed import drift
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table, Verdict
from testbed.ledger.tiny import TinyTree, smallest, tiny_trees

KINDS = ("k1", "k2", "k3")
Place = Literal["loss", "reward"]
AGAINST = {"sequence": "KL(pi||ref)", "target_states": "at its states", "reversed_target_states": "KL(ref||pi)"}


def settle() -> Finding:
    """Exact value and expected gradient of each estimator: in the loss and in the reward, on and off policy."""
    tree = testbed.environment("token_tree", depth=4, vocabulary=3)
    pi, reference = tree.target, cases.reference(kl=0.1).behaviour
    behaviour = drift.at("noise", tree.process, pi, kl=0.1, seed=1).behaviour
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    settings: tuple[tuple[str, theory.SoftmaxPolicy | None, Place, str], ...] = (
        ("on policy", None, "loss", "none"),
        ("on policy", None, "reward", "none"),
        ("off policy", behaviour, "loss", "none"),
        ("off policy, x rho", behaviour, "loss", "token"),
        ("off policy, x W", behaviour, "loss", "sequence"),
    )
    for kind in KINDS:
        for where, mu, place, weight in settings:
            p = theory.kl_penalty(tree.process, pi, reference, mu, kind, place=place, weight=weight)
            errors = [p.relative_error(of) for of in AGAINST]
            rows.append((kind, place, where, p.value / p.kl, *errors))
            if mu is None:
                numbers[f"{kind} in the {place}: value over KL"] = p.value / p.kl
                for of, error in zip(AGAINST, errors, strict=True):
                    numbers[f"{kind} in the {place}: gradient error, {of}"] = error

    def biased(tree: TinyTree) -> dict[str, float] | None:
        p = theory.kl_penalty(*tree.case[:2], tree.case[2], estimator="k3")
        off = p.relative_error("target_states")
        return {"value over KL": p.value / p.kl, "gradient error": off} if p.kl > 0 and off > 1e-6 else None

    def value_biased(tree: TinyTree) -> dict[str, float] | None:
        p = theory.kl_penalty(*tree.case[:2], tree.case[2], estimator="k3")
        return {"value - KL": p.value_bias} if abs(p.value_bias) > 1e-9 else None

    searches = (
        smallest("k3 on policy (ref = mu): value is not the KL", value_biased, tiny_trees(depths=(1, 2)), most=400),
        smallest("k3 in the loss (ref = mu): not the gradient of KL(pi||ref)", biased, tiny_trees()),
    )
    value = abs(numbers["k3 in the loss: value over KL"] - 1.0) < cases.ZERO
    exact = {kind: numbers[f"{kind} in the loss: gradient error, target_states"] < cases.ZERO for kind in KINDS}
    other = numbers["k3 in the loss: gradient error, reversed_target_states"] < cases.ZERO
    verdict: Verdict = "holds" if value and exact["k3"] else "fails" if value else "depends"
    because = (
        "unbiased as a value; as a loss its gradient is "
        + ("exactly that of KL(ref||pi), not of KL(pi||ref)" if other else "that of neither KL")
        + f"; {' and '.join(k for k in KINDS if exact[k]) or 'none'} gives that of KL(pi||ref)"
    )
    columns = ("estimator", "place", "data", "value / KL", *AGAINST.values())
    caption = "Value over KL, and relative error of the expected gradient against three gradients"
    return Finding(verdict, because, numbers, searches, (Table(caption, columns, rows),))


CLAIM = Claim(
    name="k3_is_a_good_kl_loss",
    statement="k3 is an unbiased estimator of the KL divergence, and therefore a good KL loss.",
    sources=("framework documentation; threads such as TRL 4967, OpenRLHF 1309, verl 2953", "Schulman 2020"),
    rule="Holds if both its value and its expected gradient in the loss are those of KL(pi||ref) at the states of pi; "
    "fails if only the value is.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "k1 in the loss: value over KL": 1.0,
            "k1 in the loss: gradient error, sequence": 1.0,
            "k1 in the loss: gradient error, target_states": 1.0,
            "k1 in the loss: gradient error, reversed_target_states": 1.0,
            "k1 in the reward: value over KL": 1.0,
            "k1 in the reward: gradient error, sequence": 0.0,
            "k1 in the reward: gradient error, target_states": 0.3199929,
            "k1 in the reward: gradient error, reversed_target_states": 0.4097813,
            "k2 in the loss: value over KL": 1.190485,
            "k2 in the loss: gradient error, sequence": 0.2784495,
            "k2 in the loss: gradient error, target_states": 0.0,
            "k2 in the loss: gradient error, reversed_target_states": 0.2350255,
            "k2 in the reward: value over KL": 1.190485,
            "k2 in the reward: gradient error, sequence": 0.6644129,
            "k2 in the reward: gradient error, target_states": 0.7253794,
            "k2 in the reward: gradient error, reversed_target_states": 0.7414602,
            "k3 in the loss: value over KL": 1.0,
            "k3 in the loss: gradient error, sequence": 0.3191236,
            "k3 in the loss: gradient error, target_states": 0.210337,
            "k3 in the loss: gradient error, reversed_target_states": 0.0,
            "k3 in the reward: value over KL": 1.0,
            "k3 in the reward: gradient error, sequence": 0.7787656,
            "k3 in the reward: gradient error, target_states": 0.8203297,
            "k3 in the reward: gradient error, reversed_target_states": 0.8288371,
        },
        found=(
            None,
            "T=1, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4; R = 1 0",
        ),
    ),
)
