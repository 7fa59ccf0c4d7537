"""What it costs to choose a baseline by a rule: its exact error over the least one, over many environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import theory
from testbed import drift
from testbed.baseline_choice.exact import CANDIDATES, BaselineErrors, baseline_errors
from testbed.baseline_choice.samples import Batch, draw_batches, estimates
from testbed.environments import environment

# One start state each, so that a batch is one prompt; small enough for an exact optimum per state.
ENVIRONMENTS = ("brackets", "chain", "garnet", "keyword", "modular_sum", "parity")
RULES = {
    "least_variance": "the candidate of least exact variance: knows everything but the bias",
    "sample_variance": "the candidate of least sample variance, estimated baselines fitted on the same batch",
    "split_variance": "the same, with estimated baselines fitted on one half and judged on the other, both ways round",
    "sampled_constant": "the optimal constant as estimated from one batch, used on a fresh one",
    "random": "any candidate, for comparison",
    **{f"always {name}": f"{name}, whatever the data say" for name in CANDIDATES},
}


@dataclass(frozen=True)
class BaselineRegret:
    """Regret of one rule in one pair of policies."""

    environment: str
    drift: str
    kl: float
    """KL(mu || pi) per token, in nats."""
    weight: str
    trajectories: int
    rule: str
    regret: float
    """Mean over the batches of (exact error of what was chosen) / (least exact error of any baseline) - 1."""
    standard_error: float
    """Of that mean, over the batches; 0 for rules that look at no data."""
    best: str
    """The baseline of least exact error; "mse_constant" is one that takes the true gradient to know."""


@dataclass(frozen=True)
class RegretSummary:
    """Regret of one rule over all pairs of policies."""

    weight: str
    rule: str
    mean: float
    median: float
    worst: float
    cells: int


def baseline_regrets(
    weights: Sequence[Any] = ("token", "sequence", "none"),
    *,
    environments: Sequence[str] = ENVIRONMENTS,
    drifts: Sequence[str] = ("noise", "staleness"),
    kl: Sequence[float] = (0.02, 0.2),
    trajectories: int = 64,
    group_size: int = 8,
    batches: int = 40,
    seed: int = 0,
) -> list[BaselineRegret]:
    """Regret of every rule for every environment x drift x KL x weight, with the outcome as signal.

    Rules see one batch of `trajectories` from mu, and the exact values of either policy where a candidate is a value.
    They estimate variances only: the bias cannot be seen in data from mu. Where the weight is baseline-invariant the
    bias is the same for all baselines and this costs nothing; elsewhere the rule "least_variance" tells what it costs.
    "split_variance" and "sample_variance" choose a kind of baseline and are charged the exact error of that kind;
    "sampled_constant" is charged the error of the number it found, on fresh data.

    "leave_one_out" is left out where its exact variance is out of reach (many distinct returns, as with step rewards):
    `RegretSummary.cells` tells over how many pairs a mean was taken.

    Raises:
        ValueError: an unknown name, a batch that holds no two groups in each half, or what `baseline_errors` raises.
    """
    if trajectories < 4 * group_size:
        raise ValueError(
            f"trajectories is {trajectories} and group_size {group_size}; expected at least {4 * group_size}, two "
            "groups in each half of a batch"
        )
    result = []
    for name in environments:
        task = environment(name)
        if np.count_nonzero(task.process.initial) > 1:
            raise ValueError(
                f"environment {name!r} has several start states; expected one, so that a batch is a prompt"
            )
        for kind in drifts:
            for size in kl:
                try:
                    pair = drift.at(kind, task.process, task.target, size)
                except drift.UnreachableError:
                    continue
                for chosen in weights:
                    weight = theory.weight(chosen)
                    exact = baseline_errors(
                        task.process, pair.target, pair.behaviour, weight,
                        trajectories=trajectories, group_size=group_size,
                    )  # fmt: skip
                    rng = np.random.default_rng(seed)
                    drawn = draw_batches(task.process, pair.target, pair.behaviour, weight, trajectories, batches, rng)
                    for rule, errors in _errors_of_rules(exact, drawn, group_size, rng).items():
                        regrets = np.array([exact.regret(x) for x in errors])
                        error = regrets.std(ddof=1) / np.sqrt(regrets.size) if regrets.size > 1 else 0.0
                        result.append(
                            BaselineRegret(
                                name, kind, pair.kl, weight.label, trajectories, rule, float(regrets.mean()),
                                float(error), exact.best,
                            )
                        )  # fmt: skip
    return result


def regret_table(records: Sequence[BaselineRegret]) -> list[RegretSummary]:
    """Mean, median and worst regret of each rule, by weight, least mean first."""
    result = []
    for weight in dict.fromkeys(r.weight for r in records):
        rows = []
        for rule in dict.fromkeys(r.rule for r in records if r.weight == weight):
            x = np.array([r.regret for r in records if (r.weight, r.rule) == (weight, rule)])
            rows.append(RegretSummary(weight, rule, float(x.mean()), float(np.median(x)), float(x.max()), x.size))
        result += sorted(rows, key=lambda row: row.mean)
    return result


def _errors_of_rules(
    exact: BaselineErrors, drawn: Sequence[Batch], group_size: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Exact error of what each rule chooses, once per batch, or once where it looks at no data."""
    candidates = [name for name in CANDIDATES if name in exact.squared_biases]

    def least(variances: Callable[[str], float]) -> float:
        return exact.errors[min(candidates, key=variances)]

    errors: dict[str, list[float]] = {
        "least_variance": [exact.errors[exact.least_variance]],
        "random": [float(np.mean([exact.errors[name] for name in candidates]))],
        **{f"always {name}": [exact.errors[name]] for name in candidates},
        "sample_variance": [],
        "split_variance": [],
        "sampled_constant": [],
    }
    for batch in drawn:
        same = estimates(batch, batch, group_size, rng)
        errors["sample_variance"].append(least(same.variances.__getitem__))
        errors["sampled_constant"].append(exact.at_constant(same.constant))
        half = batch.returns.size // 2
        parts = batch.part(slice(0, half)), batch.part(slice(half, None))
        first, second = (estimates(a, b, group_size, rng).variances for a, b in (parts, parts[::-1]))
        split = {name: first[name] + second[name] for name in candidates}
        errors["split_variance"].append(least(split.__getitem__))
    return errors
