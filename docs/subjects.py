"""The reference by subject: which public names stand on which page. A test sees that each is on one, and only there."""

from __future__ import annotations

SUBJECTS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "processes": (
        "Processes, policies and values",
        {
            "theory": [
                "MarkovProcess", "SoftmaxPolicy", "Values", "values", "policy_gradient", "action_value_gradient",
                "performance_difference",
            ],
        },
    ),
    "estimators": (
        "Estimators: weights, signals, reductions",
        {
            "theory": [
                "Estimator", "weight", "Weight", "weight_cards", "Card", "register", "Factors", "Parts", "NEEDS",
                "signal", "Signal", "signal_cards", "SignalCard", "group", "GroupSignal", "reduction", "Reduction",
                "preset", "Preset", "preset_cards",
            ],
        },
    ),
    "moments": (
        "Bias and variance",
        {
            "theory": [
                "moments", "Moments", "ENGINES", "decompose", "Decomposition", "group_variance", "GroupVariance",
                "baseline_moments", "optimal_baseline", "OptimalBaseline", "baseline_leak", "BaselineLeak",
                "WorstBaseline", "value_contribution", "ValueContribution", "kl_penalty", "KLPenalty",
            ],
        },
    ),
    "critics": (
        "Methods with a critic",
        {
            "theory": [
                "critic_moments", "critic_cards", "CriticCard", "noisy_critic", "efficiency_bound", "EfficiencyBound",
            ],
        },
    ),
    "diagnostics": (
        "Divergences and diagnostics",
        {
            "theory": [
                "divergences", "Divergences", "TokenDivergences", "SequenceDivergences", "renyi_divergence",
                "diagnostics", "Diagnostics", "sampled_diagnostics", "diagnostic_cards", "DiagnosticCard",
            ],
            "testbed": [
                "prediction_cells", "PredictionCell", "diagnostic_ranking", "DiagnosticPrediction", "blind_spot",
                "BlindSpot",
            ],
        },
    ),
    "environments": (
        "Environments and drift",
        {
            "testbed": [
                "environment", "Environment", "environment_cards", "mixed_versions", "MixedVersions", "agent_moments",
                "AgentMoments", "agent_gradients", "drift_agents", "joint_policy",
            ],
            "testbed.environments": ["EnvironmentCard", "Parts", "ProcessEnv", "from_gymnasium", "register"],
            "testbed.drift": ["at", "apply", "measured", "kinds", "Drifted", "UnreachableError"],
        },
    ),
    "sweeps": (
        "Sweeps, claims and lessons",
        {
            "testbed": [
                "Sweep", "Choice", "default_sweep", "run_sweep", "SweepResult", "read_table", "summarise", "claim",
                "claim_names", "Claim", "verify", "Settled", "baseline_errors", "BaselineErrors", "baseline_regrets",
                "BaselineRegret", "RegretSummary", "regret_table",
            ],
            "testbed.lessons": [
                "check", "exercise_names", "solution", "Exercise", "score", "Score", "scratch", "RIVALS",
            ],
        },
    ),
    "audit": ("Audit of a loss", {"testbed": ["audit", "Audit", "Finding", "FINDINGS"]}),
    "arithmetic": ("The transformer", {"testbed.arithmetic": ["*"]}),
}  # fmt: skip
"""Page -> its title, and per module the names on it; "*" is all of them."""
