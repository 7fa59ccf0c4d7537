"""The committed runs, and what their page may say of them."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from testbed.arithmetic.experiment import packaged_experiment, summarise_runs
from testbed.arithmetic.experiment.columns import run_columns
from testbed.arithmetic.experiment.wording import p_value

FOLDER = Path(__file__).parents[4] / "docs" / "staleness"
PLACES = {"staleness": FOLDER, "floor": FOLDER / "floor"}
KINDS = {column.name: column.type for column in run_columns()}
MASKED = ("GRPO", "M2PO", "GSPO")
"""Their weight is zero where a token is too far from its rollout."""


def read_runs(folder):
    with (folder / "runs.csv").open(newline="") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def value(name, text):
    if KINDS[name] == "string":
        return text
    if text in ("", "nan"):
        return None if KINDS[name] == "int64" else float("nan")
    return int(text) if KINDS[name] == "int64" else float(text)


def with_interval(values):
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{100 * np.mean(values):.1f} ± {100 * half:.1f}"


Runs = Sequence[dict]
RATIOS = ("token", "minpro", "prefix")
GSPO = "gspo(clip=(0.8, 1.2))"
OLD = (8, 32, 128)


def said(runs: Runs, bounded: Runs) -> list[str]:
    """What the page says of the runs, number by number."""
    return [*of_masks(runs), *of_minpro(runs), *of_ageing(runs), *of_clipped_minpro(runs), *of_the_best(runs),
            *of_cosines(runs), *of_bounds(runs, bounded), *of_lengths(runs), *of_limits(runs)]  # fmt: skip


def of_masks(runs: Runs) -> Iterator[str]:
    """Runs that collapsed at the highest learning rate, by whether the weight has a mask."""

    def shares(*lags: int) -> list[str]:
        high = [r for r in where(runs, stage="tuning", learning_rate=8e-4) if r["staleness"] in lags]
        return [collapses([r for r in high if (r["name"] in MASKED) == masked]) for masked in (False, True)]

    free, masked = shares(32, 128)
    yield f"{free} runs of weights without a mask collapsed, and {masked} of weights with one"
    free, masked = shares(8)
    yield f"at K = 8 {free} and {masked}"
    gains = [difference(runs, "ppo_clip(clip=(0.8, 1.2))", "token", 8e-4, k) for k in OLD]
    yield f"the mask alone is worth {listed(gains)} points"
    kl = [
        np.mean([r["mean_kl_sampled"] for r in tuned(runs, w, 8e-4, 128)])
        for w in ("token", "minpro", "ppo_clip(clip=(0.8, 1.2))", GSPO)
    ]
    yield (
        "{:.1f} nats per token with the token ratio, {:.1f} with MinPRO without a clip, {:.1f} with GRPO and ".format(
            *kl[:3]
        )
        + f"{kl[3]:.1f} with GSPO"
    )
    costs = [ageing(runs, w, 1e-4, 128) for w in ("token", "ppo_clip(clip=(0.8, 1.2))", "gspo(clip=(0.9997, 1.0004))")]
    yield (
        f"at 1e-4 the token ratio loses {costs[0]} points, GRPO {costs[1]} and GSPO with its paper's narrow bounds "
        f"{costs[2]}"
    )


def of_minpro(runs: Runs) -> Iterator[str]:
    """MinPRO without a clip beside the token ratio."""
    for rate, name in ((2e-4, "2e-4"), (4e-4, "4e-4")):
        found = [difference(runs, "minpro", "token", rate, k) for k in OLD]
        yield f"at {name} {listed(found)}"
    token, minpro, prefix = (
        listed([sum(r["collapsed"] for r in tuned(runs, weight, 8e-4, k)) for k in OLD]) for weight in RATIOS
    )
    yield (
        f"At 8e-4 the token ratio collapsed in {token} of 8 runs, MinPRO without a clip in {minpro}, and the exact "
        f"prefix ratio in {prefix}"
    )


def of_ageing(runs: Runs) -> Iterator[str]:
    """What older rollouts cost at the same configuration."""
    token, minpro, prefix, gspo = (ageing(runs, w, 4e-4, 128) for w in (*RATIOS, GSPO))
    yield (
        f"at 4e-4 the token ratio loses {token} points, MinPRO without a clip {minpro}, the prefix ratio {prefix} and "
        f"GSPO with PPO's bounds {gspo}"
    )
    token, minpro = (ageing(runs, w, 2e-4, 128) for w in ("token", "minpro"))
    yield f"At 2e-4 the token ratio loses {token} and MinPRO without a clip {minpro}"


def of_clipped_minpro(runs: Runs) -> Iterator[str]:
    """MinPRO with both bounds."""
    narrow, wide, none = (
        ageing(runs, w, 2e-4, 32) for w in ("minpro(clip=(0.8, 1.28))", "minpro(clip=(0.5, 2.0))", "none")
    )
    yield (
        f"From K = 0 to K = 32 at 2e-4 it loses {narrow} points with the bounds 0.8 and 1.28 and {wide} with 0.5 and "
        f"2, no correction {none}"
    )


def of_the_best(runs: Runs) -> Iterator[str]:
    """Each method at the configuration that it chose."""
    hits, runs_made = (f(where(runs, stage="final")) for f in (lambda rows: sum(r["collapsed"] for r in rows), len))
    yield f"{hits or 'None'} of the {runs_made} final runs collapsed"

    def less(method: str, other: str) -> str:
        return listed([points(final(runs, method, k), final(runs, other, k)) for k in OLD])

    yield f"MinPRO without a clip less the token ratio is {less('MinPRO unclipped', 'token ratio')} points"
    results = best(runs)
    p = [c.t_p_adjusted for k in OLD for c in results["GSPO", k].comparisons if c.reference == "MinPRO unclipped"]
    told = ", ".join(map(p_value, p[:-1]))
    told = f"p = {told} and {p_value(p[-1])} after Holm"
    yield f"GSPO less MinPRO without a clip is {less('GSPO', 'MinPRO unclipped')} ({told}"
    yield f"Clipped MinPRO less MinPRO without a clip is {less('MinPRO', 'MinPRO unclipped')} points"


def of_cosines(runs: Runs) -> Iterator[str]:
    """Mean cosine along training at K = 128."""
    cosine = {m: best(runs)[m, 128].cosine.estimate for m in ("GRPO", "GSPO", "token ratio")}
    yield (
        f"At K = 128 GSPO's is {cosine['GSPO']:.2f} on average, GRPO's {cosine['GRPO']:.2f} and the token ratio's "
        f"{cosine['token ratio']:.2f}"
    )


def of_lengths(runs: Runs) -> Iterator[str]:
    """Tokens at the floor at the first and at the last position."""
    shares = []
    for name in ("2-digit addition", "3-digit addition", "2-digit multiplication", "3-digit multiplication"):
        mine = where(runs, stage="length", name=name)
        assert len(mine) == 8
        last = max(t for t in range(1, 9) if np.isfinite(mine[0][f"floor_{t}"]))
        shares.append([round(100 * np.mean([r[f"floor_{t}"] for r in mine])) for t in (1, last)])
    first, second, third, fourth = (f"from {one} to {other} %" for one, other in shares)
    yield (
        f"{first} between the first and the last position of 2-digit addition, {second} in 3-digit addition, {third} "
        f"in 2-digit and {fourth} in 3-digit multiplication"
    )


def of_limits(runs: Runs) -> Iterator[str]:
    """How far chance goes: at K = 0 all weights are 1."""
    means = [100 * r.final_accuracy.estimate for (_, k), r in best(runs).items() if k == 0]
    yield f"end between {min(means):.1f} and {max(means):.1f} on average"
    many = [100 * r.pass_at_8.estimate for (m, k), r in best(runs).items() if k]
    yield f"pass@8 hides all of it: {min(many):.0f} to {max(many):.0f} % for every method at K of 8 and more"


def of_bounds(runs: Runs, bounded: Runs) -> Iterator[str]:
    """What each bound of MinPRO's clip costs, beside neither."""

    def costs(weight: str) -> list[str]:
        pairs = [[where(bounded, stage="final", weight=w, staleness=k) for w in ("minpro", weight)] for k in OLD]
        return [points(*pair) for pair in pairs]

    p = {
        r.method: p_value(c.t_p_adjusted)
        for r in summarise_runs(packaged_experiment("floor"), bounded).results for c in r.comparisons
        if r.staleness == 128
    }  # fmt: skip
    upper = [points(*(where(bounded, stage="final", weight=w, staleness=128) for w in (weight, "minpro")))
             for weight in ("minpro(clip=(0.0, 1.28))", "minpro(clip=(0.0, 2.0))")]  # fmt: skip
    yield (
        f"at K = 128 it ends {upper[0]} points (at most 1.28, p = {p['at most 1.28']} after Holm) and {upper[1]} "
        f"points (at most 2, p = {p['at most 2']}) above neither bound"
    )
    lower, wide = (costs(f"minpro(clip=({low}, inf))") for low in (0.8, 0.5))
    told = f"{listed(lower)} points at K = 8, 32 and 128, one of 0.5 {listed(wide)}"
    yield f"A lower bound of 0.8 alone costs {told}"
    narrow, broad = (listed(costs(f"minpro(clip=({low}, {high}))")) for low, high in ((0.8, 1.28), (0.5, 2.0)))
    yield f"0.8 to 1.28 costs {narrow}, 0.5 to 2 {broad}"
    means = {
        (w, k): np.mean([r["final_accuracy"] for r in where(bounded, stage="final", weight=w, staleness=k)])
        for w in {r["weight"] for r in bounded} for k in OLD
    }  # fmt: skip
    more = all(
        means["minpro", k] - means[f"minpro(clip=({low}, {high}))", k]
        > 2 * means["minpro", k] - means[f"minpro(clip=(0.0, {high}))", k] - means[f"minpro(clip=({low}, inf))", k]
        for low, high in ((0.8, 1.28), (0.5, 2.0)) for k in OLD
    )  # fmt: skip
    yield f"Both together {'always' if more else 'do not always'} cost more than the sum of each alone"
    floors = [
        100 * r["mean_floor_fraction"] for r in where(runs, stage="tuning", name="MinPRO") if r["collapsed"]
    ]  # fmt: skip
    yield f"In the {len(floors)} tuning runs of clipped MinPRO that collapsed {min(floors):.0f} to {max(floors):.0f} %"


def best(runs: Runs):
    """(method, K) -> its result at the configuration chosen."""
    found = summarise_runs(packaged_experiment("staleness"), runs).results
    return {(r.method, r.staleness): r for r in found}


def final(runs: Runs, method: str, k: int) -> Runs:
    return where(runs, stage="final", name=method, staleness=k)


def collapses(rows: Runs) -> str:
    return f"{sum(r['collapsed'] for r in rows)} of {len(rows)}"


def tuned(runs: Runs, weight: str, rate: float, k: int) -> Runs:
    return where(runs, stage="tuning", weight=weight, learning_rate=rate, staleness=k)


def where(runs: Runs, **wanted) -> Runs:
    return [r for r in runs if all(r[name] == w for name, w in wanted.items())]


def difference(runs: Runs, weight: str, other: str, rate: float, k: int) -> str:
    """Of final accuracies at the same rate, staleness and tuning seeds, in points."""
    return points(tuned(runs, weight, rate, k), tuned(runs, other, rate, k))


def ageing(runs: Runs, weight: str, rate: float, k: int) -> str:
    """What is lost between on-policy rollouts and those K updates old."""
    return points(tuned(runs, weight, rate, 0), tuned(runs, weight, rate, k))


def points(rows: Runs, others: Runs) -> str:
    """Mean and interval of the differences, paired by seed."""
    one, two = ({r["seed"]: 100 * r["final_accuracy"] for r in table} for table in (rows, others))
    both = sorted(one.keys() & two.keys())
    test = stats.ttest_rel([one[s] for s in both], [two[s] for s in both])
    low, high = test.confidence_interval()
    return f"{plain(np.mean([one[s] - two[s] for s in both]))} [{plain(low)}, {plain(high)}]"


def plain(x: float) -> str:
    return f"{round(x, 1) + 0.0:.1f}"


def listed(texts: Sequence[object]) -> str:
    *first, last = map(str, texts)
    return f"{', '.join(first)} and {last}"
