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
OLD = (8, 32, 128)
GRPO, GSPO = "ppo_clip(clip=(0.8, 1.2))", "gspo(clip=(0.8, 1.2))"
RATES = {"2e-4": 2e-4, "4e-4": 4e-4, "8e-4": 8e-4}
CLIPS = ((0.8, 1.28), (0.5, 2.0))
BASE = 0.405
"""Accuracy of the base model on the prompts of the tuning runs."""

Runs = Sequence[dict]


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


def said(runs: Runs, bounded: Runs) -> list[str]:
    """What the page says of the runs, number by number."""
    return [
        *of_minpro(runs), *of_the_highest_rate(runs), *of_the_mask(runs), *of_distances(runs), *of_clipped_minpro(runs),
        *of_the_best(runs), *of_cosines(runs), *of_bounds(bounded), *of_floors(runs), *of_lengths(runs),
        *of_chance(runs), *of_pass_at_8(runs),
    ]  # fmt: skip


def of_minpro(runs: Runs) -> Iterator[str]:
    """MinPRO without a clip beside the token ratio."""
    for name, rate in RATES.items():
        yield f"at {name} {listed([difference(runs, 'minpro', 'token', rate, k) for k in OLD])}"
    token, minpro, prefix = (
        listed([sum(r["collapsed"] for r in tuned(runs, w, 8e-4, k)) for k in OLD])
        for w in ("token", "minpro", "prefix")
    )
    yield (
        f"At 8e-4 the token ratio collapsed in {token} of 8 runs, MinPRO without a clip in {minpro}, and the exact "
        f"prefix ratio in {prefix}"
    )
    yield f"at the best learning rate of each {less(runs, 'MinPRO unclipped', 'token ratio')}"


def of_the_highest_rate(runs: Runs) -> Iterator[str]:
    """Runs that collapsed, and that ended below the base model, by whether the weight has a mask."""
    high = [r for r in where(runs, stage="tuning", learning_rate=8e-4) if r["staleness"] in (32, 128)]
    masked, gspo = ([r for r in high if r["name"] in names] for names in (("GRPO", "M2PO"), ("GSPO",)))
    free = [r for r in high if r["name"] not in ("GRPO", "M2PO", "GSPO")]
    yield (
        f"{collapses(free)} runs of weights without a mask collapsed, {collapses(masked)} of GRPO and M2PO, and "
        f"{collapses(gspo)} of GSPO"
    )
    below = [f"{sum(r['final_accuracy'] < BASE for r in rows)} of {len(rows)}" for rows in (masked, gspo)]
    yield f"{below[0]} of GRPO and M2PO and {below[1]} of GSPO ended below the base model"
    on_policy = {rate: [100 * np.mean([r["final_accuracy"] for r in tuned(runs, w, rate, 0)])
                        for w in ("token", "minpro", "prefix", GRPO, GSPO)] for rate in (4e-4, 8e-4)}  # fmt: skip
    first, second = (f"{min(x):.0f} to {max(x):.0f} %" for x in on_policy.values())
    yield f"at K = 0 it ends at {second}, after {first} at 4e-4"


def of_the_mask(runs: Runs) -> Iterator[str]:
    """PPO's clip less the token ratio."""
    found = [f"{listed([difference(runs, GRPO, 'token', rate, k) for k in OLD])} at {n}" for n, rate in RATES.items()]
    yield f"{found[0]}, {found[1]}, and {found[2]}"


def of_distances(runs: Runs) -> Iterator[str]:
    """KL(mu || pi) where nothing collapsed."""
    kl = []
    for weight in ("token", "minpro", GRPO, GSPO):
        mine = tuned(runs, weight, 4e-4, 128)
        assert len(mine) in (4, 8)
        kl.append(f"{np.mean([r['mean_kl_behaviour_policy'] for r in mine]):.2f}")
    yield (
        f"{kl[0]} nats per token with the token ratio, {kl[1]} with MinPRO without a clip, {kl[2]} with GRPO and "
        f"{kl[3]} with GSPO"
    )


def of_clipped_minpro(runs: Runs) -> Iterator[str]:
    """MinPRO with both bounds."""
    narrow, wide, none = (
        ageing(runs, w, 2e-4, 32) for w in ("minpro(clip=(0.8, 1.28))", "minpro(clip=(0.5, 2.0))", "none")
    )
    yield (
        f"From K = 0 to K = 32 at 2e-4 it loses {narrow} points with the bounds 0.8 and 1.28 and {wide} with 0.5 and "
        f"2, no correction {none}"
    )
    yield f"at the best rate of each it ends {less(runs, 'MinPRO unclipped', 'MinPRO')} points below"


def of_the_best(runs: Runs) -> Iterator[str]:
    """Each method at the configuration that it chose."""
    final_runs = where(runs, stage="final")
    yield f"{sum(r['collapsed'] for r in final_runs) or 'None'} of the {len(final_runs)} final runs collapsed"
    for name, k, beside in (
        ("GSPO", 32, "MinPRO unclipped"), ("GSPO", 128, "MinPRO unclipped"),
        ("truncated sequence", 128, "MinPRO unclipped"), ("GRPO", 128, "MinPRO unclipped"),
        ("truncated sequence", 0, "GSPO"),
    ):  # fmt: skip
        [c] = [c for c in best(runs)[name, k].comparisons if c.reference == beside]
        p = p_value(c.t_p_adjusted)
        told = f"p {p}" if p.startswith("<") else f"p = {p}"
        yield f"{points(final(runs, name, k), final(runs, beside, k))} ({told.replace('<', '< ')})"


def of_cosines(runs: Runs) -> Iterator[str]:
    """Mean cosine at K = 128."""
    cosine = {m: best(runs)[m, 128].cosine.estimate for m in ("GRPO", "GSPO", "token ratio")}
    yield (
        f"GSPO's is {cosine['GSPO']:.2f}, GRPO's {cosine['GRPO']:.2f} and the token ratio's {cosine['token ratio']:.2f}"
    )


def of_bounds(bounded: Runs) -> Iterator[str]:
    """What each bound of MinPRO's clip costs beside neither, and both beyond the sum of the two."""
    seeds = sorted({r["seed"] for r in where(bounded, stage="final")})

    def ends(weight: str, k: int) -> np.ndarray:
        rows = {r["seed"]: 100 * r["final_accuracy"] for r in where(bounded, stage="final", weight=weight, staleness=k)}
        return np.array([rows[seed] for seed in seeds])

    def cost(*weights: str) -> str:
        return listed([interval(sum(ends("minpro", k) - ends(w, k) for w in weights)) for k in OLD])

    alone = {bound: f"minpro(clip={bound})" for low, high in CLIPS for bound in (f"(0.0, {high})", f"({low}, inf)")}
    upper, wide = cost(alone["(0.0, 1.28)"]), cost(alone["(0.0, 2.0)"])
    yield f"At most 1.28 costs {upper} points at K = 8, 32 and 128, at most 2 {wide}"
    p = [c.t_p_adjusted for r in summarise_runs(packaged_experiment("floor"), bounded).results
         for c in r.comparisons if r.method.startswith("at most")]  # fmt: skip
    yield f"none of it is told from chance (p of {min(p):.2f} and more after Holm)"
    yield f"At least 0.8 costs {cost(alone['(0.8, inf)'])}, at least 0.5 {cost(alone['(0.5, inf)'])}"
    beyond = [
        listed([
            interval(ends(f"minpro(clip=(0.0, {high}))", k) + ends(f"minpro(clip=({low}, inf))", k)
                     - ends("minpro", k) - ends(f"minpro(clip=({low}, {high}))", k)) for k in OLD
        ]) for low, high in CLIPS
    ]  # fmt: skip
    told = f"by {beyond[0]} points for 0.8 to 1.28 and by {beyond[1]} for 0.5 to 2"
    yield f"Both together cost more than the sum of the two, {told}"


def of_floors(runs: Runs) -> Iterator[str]:
    """Tokens at the floor in tuning runs of clipped MinPRO."""
    rows = [r for r in where(runs, stage="tuning", name="MinPRO") if r["staleness"]]
    shares = [[100 * r["mean_floor_fraction"] for r in rows if r["collapsed"] == c] for c in (1, 0)]
    yield (
        f"In the {len(shares[0])} tuning runs of clipped MinPRO that collapsed {min(shares[0]):.0f} to "
        f"{max(shares[0]):.0f} % of the tokens were at the floor, in the {len(shares[1])} others {min(shares[1]):.0f} "
        f"to {max(shares[1]):.0f} %"
    )


def of_lengths(runs: Runs) -> Iterator[str]:
    """Tokens at the floor at the first and at the last position, and how far the policy is from its rollouts."""
    tasks = (
        "2-digit addition",
        "3-digit addition",
        "modular addition",
        "2-digit multiplication",
        "3-digit multiplication",
    )
    shares, whole, kl = [], [], []
    for name in tasks:
        mine = where(runs, stage="length", name=name)
        assert len(mine) == 8
        last = max(t for t in range(1, 9) if np.isfinite(mine[0][f"floor_{t}"]))
        first, end = (round(100 * np.mean([r[f"floor_{t}"] for r in mine])) for t in (1, last))
        shares.append(f"from {first} to {end} %")
        whole.append(round(100 * np.mean([r["mean_floor_fraction"] for r in mine])))
        kl.append(np.mean([r["mean_kl_sampled"] for r in mine]))
    yield (
        f"{shares[0]} between the first and the last position of 2-digit addition, {shares[1]} in 3-digit and "
        f"{shares[2]} in modular addition, {shares[3]} in 2-digit and {shares[4]} in 3-digit multiplication"
    )
    yield f"{whole[2]}, {whole[0]} and {whole[1]} % of all tokens in modular, 2-digit and 3-digit addition"
    yield f"{min(kl[:4]):.3f} to {max(kl[:4]):.3f} nats per token, and {kl[4]:.3f} in 3-digit multiplication"


def of_chance(runs: Runs) -> Iterator[str]:
    """How far chance goes: at K = 0 all weights are 1."""
    means = [100 * r.final_accuracy.estimate for (_, k), r in best(runs).items() if k == 0]
    yield f"end between {min(means):.1f} and {max(means):.1f} on average"


def of_pass_at_8(runs: Runs) -> Iterator[str]:
    """At the configurations chosen, and at the highest rate."""
    many = [100 * r.pass_at_8.estimate for (_, k), r in best(runs).items() if k]
    high = [f"{100 * np.mean([r['final_pass_at_8'] for r in tuned(runs, w, 8e-4, 128)]):.0f} %"
            for w in ("token", "minpro", GRPO, GSPO)]  # fmt: skip
    yield (
        f"{min(many):.0f} to {max(many):.0f} % for every method at K of 8 and more; at 8e-4 and K = 128 it is "
        f"{high[0]} for the token ratio, {high[1]} for MinPRO without a clip, {high[2]} for GRPO and {high[3]} for GSPO"
    )


def best(runs: Runs):
    """(method, K) -> its result at the configuration chosen."""
    found = summarise_runs(packaged_experiment("staleness"), runs).results
    return {(r.method, r.staleness): r for r in found}


def less(runs: Runs, method: str, other: str) -> str:
    """Of final runs, at K = 8, 32 and 128."""
    return listed([points(final(runs, method, k), final(runs, other, k)) for k in OLD])


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
    return interval(np.array([one[seed] - two[seed] for seed in sorted(one.keys() & two.keys())]))


def interval(values: np.ndarray) -> str:
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval()
    return f"{plain(values.mean())} [{plain(low)}, {plain(high)}]"


def plain(x: float) -> str:
    return f"{round(x, 1) + 0.0:.1f}"


def listed(texts: Sequence[object]) -> str:
    *first, last = map(str, texts)
    return f"{', '.join(first)} and {last}"
