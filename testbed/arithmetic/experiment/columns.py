"""What the tables of an experiment hold: one row per run, and one per evaluated step of the runs that have curves."""

from __future__ import annotations

from testbed.sweep.columns import Column

POSITIONS = 8
"""Answer positions that have a column of their own: the longest answer to 3-digit multiplication has 7 tokens."""

_AT_FLOOR = "whose coefficient is the clip's lower bound; mean over updates from step K on"
_GONE = "0 where the run broke off, its gradient not finite"
NAMES = (
    Column(
        "stage",
        "string",
        "",
        "tuning: configurations are chosen from it; final: what is reported; length: of the length study",
    ),
    Column("name", "string", "", "Method, or task of the length study"),
    Column("weight", "string", "", "Importance weight, as spelled"),
    Column("staleness", "int64", "updates", "K: rollouts come from the policy of so many updates ago"),
    Column("learning_rate", "float64", "1", "Of AdamW"),
    Column("seed", "int64", "1", "Of the run"),
)

MEANS = {
    "cosine": ("1", "between the estimator's exact mean and the true gradient"),
    "relative_bias": ("1", "|E[g_hat] - g| / |g|"),
    "effective_step": ("1", "|E[g_hat]| / |g|"),
    "relative_standard_deviation": ("1", "of the estimator per draw over |g|"),
    "ess": ("1", "effective sample size of whole sequences, 1 / E_mu[W^2]"),
    "entropy": ("nats per token", "of the policy"),
    "kl_behaviour_policy": ("nats per token", "KL(mu || pi)"),
    "kl_policy_behaviour": ("nats per token", "KL(pi || mu)"),
}
"""Columns of the log that exist at some steps; the runs have the mean over those from step K on: name -> unit,
meaning."""
EVERY = {
    "kl_sampled": ("nats per token", "KL(mu || pi), estimated from the update's tokens (k3)"),
    "clip_fraction": ("1", "Share of tokens whose coefficient is not that of the unclipped weight"),
    "zero_fraction": ("1", "Share of tokens whose coefficient is zero"),
    "floor_fraction": ("1", "Share of tokens whose coefficient is the clip's lower bound"),
}
"""Columns of the log of every update, of which the runs have the mean once the staleness is in force: name -> unit,
meaning."""

_LAST = {
    "final_accuracy": f"Expected share of right answers on held-out prompts after the last update, exact; {_GONE}",
    "recorded_accuracy": "The same as the last row of the run's log has it: NaN where there is none",
    "peak_accuracy": "Largest of the evaluated steps; 0 where none is a number",
    "final_greedy_accuracy": f"Share right with the likeliest token each time; {_GONE}",
    "final_expected_reward": "Exact, on held-out prompts after the last update; NaN where the run broke off unmeasured",
    "final_pass_at_8": f"Chance that one of 8 answers is right, mean over held-out prompts; {_GONE}",
}
_END = (
    *(Column(name, "float64", "1", text) for name, text in _LAST.items()),
    Column("collapsed", "int64", "1", "1 where the run's thresholds count it as collapsed or it broke off, else 0"),
    Column("collapsed_at", "int64", "updates", "The step at which; empty where it did not"),
    Column("collapse", "string", "", "Why; empty where it did not"),
    Column("steps", "int64", "updates", "Rows of its log less one: how far it came"),
    Column("answer_length", "float64", "tokens", "Mean length of the sampled answers once the staleness is in force"),
)

CURVES = {
    "reward": ("1", "Mean of the update's batch"),
    "accuracy": ("1", "Expected share of right answers on held-out prompts, exact"),
    "greedy_accuracy": ("1", "Share right with the likeliest token each time"),
    "expected_reward": ("1", "On held-out prompts, exact"),
    "pass_at_8": ("1", "Chance that one of 8 answers is right, mean over held-out prompts"),
    "gradient_norm": ("1", "Of the update, before it is shortened"),
    "ratio_max": ("1", "Largest token ratio of the update's batch"),
    "ratio_min": ("1", "Least token ratio of the update's batch"),
    **{name: (unit, text[:1].upper() + text[1:]) for name, (unit, text) in MEANS.items()},
    **EVERY,
}
"""Columns of the log that the curves keep: name -> unit, meaning."""


def run_columns() -> list[Column]:
    """Of runs.parquet."""
    means = [
        Column(f"mean_{name}", "float64", unit, f"{text}; mean over the steps where it was computed, from step K on")
        for name, (unit, text) in MEANS.items()
    ]
    every = [
        Column(f"mean_{name}", "float64", unit, f"{text}; mean over updates from step K on")
        for name, (unit, text) in EVERY.items()
    ]
    floors = [
        Column(f"floor_{t}", "float64", "1", f"Share of tokens at answer position {t} (from 1) {_AT_FLOOR}")
        for t in range(1, POSITIONS + 1)
    ]
    return [*NAMES, *_END, *means, *every, *floors]


def curve_columns() -> list[Column]:
    """Of curves.parquet."""
    step = Column("step", "int64", "updates", "Updates before the policy of this row")
    return [*NAMES, step, *(Column(name, "float64", unit, text) for name, (unit, text) in CURVES.items())]
