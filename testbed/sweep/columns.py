"""The columns of a table of results, each with its unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    type: str
    """"string", "int64" or "float64"."""
    unit: str
    """"" where a column is text; "1" for a pure number."""
    description: str


def _texts() -> list[Column]:
    return [
        Column("environment", "string", "", "Name of the environment"),
        Column("environment_options", "string", "", "Options of the environment; empty for its defaults"),
        Column("drift", "string", "", "Kind of drift that moved the behaviour policy away from the target"),
        Column("drift_options", "string", "", "Options of the drift, seed left out; empty for its defaults"),
        Column("weight", "string", "", "Importance weight, with the options that differ from its defaults"),
        Column("signal", "string", "", "What a token's score is multiplied with, beside the weight"),
        Column("score", "string", "", "own: of the token; cumulative: summed over the tokens so far"),
        Column("reduction", "string", "", "How the tokens of a trajectory are brought together"),
        Column("seed", "int64", "1", "Seed of a random drift; empty where nothing is drawn"),
        Column(
            "status", "string", "", "ok, or unreachable: this drift cannot give this divergence here, numbers are NaN"
        ),
        Column("engine", "string", "", "The engine that computed the moments"),
        Column("old", "string", "", "What stands for the policy of the start of the update; empty where nothing does"),
    ]


def _pair() -> list[Column]:
    reverse = "KL(mu || pi) = E_mu[log mu - log pi]"
    return [
        Column("horizon", "int64", "steps", "T, the most steps of an episode"),
        Column("states", "int64", "1", "S, number of states"),
        Column("actions", "int64", "1", "A, number of actions"),
        Column("parameters", "int64", "1", "P, number of parameters of the target policy"),
        Column("kl_target", "float64", "nats", "Divergence asked for; NaN where the settings say the drift's strength"),
        Column(
            "kl_maximum", "float64", "nats", "Largest divergence this drift can give; NaN where one above is in reach"
        ),
        Column("kl_below", "float64", "nats", "Nearest divergence below it that this drift can give, if unreachable"),
        Column(
            "kl_above", "float64", "nats", "Nearest divergence above it that this drift can give; NaN where none is"
        ),
        Column("kl_token", "float64", "nats", f"{reverse} per token, as it came out"),
        Column("kl_sequence", "float64", "nats", f"{reverse} per sequence, as it came out"),
        Column("strength", "float64", "1", "Strength of the drift that gives the divergence, in the unit of its kind"),
        Column("expected_return_target", "float64", "return", "J(pi) = E_pi[return]"),
        Column("expected_return_behaviour", "float64", "return", "J(mu) = E_mu[return]"),
        Column("total_variation_sequence", "float64", "1", "Total variation of the two laws of a trajectory"),
        Column("chi_square_token", "float64", "1", "E_mu[rho^2] - 1 per token"),
        Column("chi_square_sequence", "float64", "1", "E_mu[W^2] - 1, the variance of the sequence ratio"),
        Column("ess_token", "float64", "1", "Effective sample size of token ratios, as a share of the sample"),
        Column("ess_sequence", "float64", "1", "Effective sample size of sequence ratios, as a share of the sample"),
    ]


def _moments() -> list[Column]:
    return [
        Column("gradient_norm", "float64", "return", "|g|, norm of the true gradient of the expected return"),
        Column("mean_norm", "float64", "return", "|E[g_hat]|, norm of the expected estimator"),
        Column("bias_norm", "float64", "return", "|E[g_hat] - g|"),
        Column("relative_bias", "float64", "1", "|E[g_hat] - g| / |g|"),
        Column("cosine", "float64", "1", "Cosine of the angle between E[g_hat] and g"),
        Column("effective_step", "float64", "1", "|E[g_hat]| / |g|, the step taken over the step asked for"),
        Column("variance", "float64", "return^2", "Trace of the covariance of g_hat, one draw"),
        Column("relative_standard_deviation", "float64", "1", "sqrt(variance) / |g|, one draw"),
        Column("trajectories_per_draw", "int64", "1", "Trajectories that one draw takes: 1, a group, or a batch"),
        Column(
            "mean_weight",
            "float64",
            "1",
            "E_mu[sum of c_t] / E_mu[L]; NaN where no exact engine can take it, or a draw couples several trajectories",
        ),
        Column(
            "median_weight",
            "float64",
            "1",
            "Median of c_t over the tokens of mu; NaN in trees of over 50,000 and as for mean_weight",
        ),
        Column("share_zero_weight", "float64", "1", "Share of the tokens of mu with c_t = 0; NaN as for mean_weight"),
        Column(
            "lost_mass", "float64", "1", "Probability, under the target, of what the behaviour policy cannot generate"
        ),
        Column(
            "support_bias",
            "float64",
            "1",
            "Relative bias that true prefix ratios keep with target advantages, for want of what the behaviour policy "
            "cannot generate (term support of theory.decompose)",
        ),
        Column("standard_error", "float64", "return", "Norm of the mean's standard error; 0 where the engine is exact"),
        Column("draws", "int64", "1", "Draws of the estimator that were sampled; empty where the engine is exact"),
    ]


def mse_column(trajectories: int) -> str:
    """Name of the column of the error of a batch."""
    return f"relative_mse_at_{trajectories}"


def columns(trajectories: tuple[int, ...]) -> list[Column]:
    """All columns of a sweep that tables the error at these batch sizes."""
    errors = [
        Column(
            mse_column(n),
            "float64",
            "1",
            f"E|mean of a batch - g|^2 / |g|^2 for {n} trajectories; NaN unless they are a whole number of draws",
        )
        for n in trajectories
    ]
    return [*_texts(), *_pair(), *_moments(), *errors]
