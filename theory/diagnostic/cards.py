"""What each logged statistic is: formula, unit, what is averaged, and the names that libraries log it under."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DiagnosticCard:
    """What is known of one statistic. l = log pi(a|s) - log mu(a|s), rho = exp(l), W = product of a sequence's rho."""

    name: str
    summary: str
    """What it says, in one sentence."""
    formula: str
    unit: str
    """"1", "nats" or "tokens"."""
    over: str
    """What is averaged: "tokens" (each counts the same, over all sequences), "sequences", or "extreme": a batch's value
    moves towards the exact one as the batch grows, and is no estimate of it."""
    logged_as: tuple[str, ...] = ()
    """Library and name of the entry in its log, where one computes this formula."""
    caution: str = ""


def _tokens(
    name: str, summary: str, formula: str, unit: str = "1", *logged_as: str, caution: str = ""
) -> DiagnosticCard:
    return DiagnosticCard(name, summary, formula, unit, "tokens", logged_as, caution)


def _sequences(
    name: str, summary: str, formula: str, unit: str = "1", *logged_as: str, caution: str = ""
) -> DiagnosticCard:
    return DiagnosticCard(name, summary, formula, unit, "sequences", logged_as, caution)


def _extreme(name: str, summary: str, formula: str, unit: str = "1", *logged_as: str) -> DiagnosticCard:
    return DiagnosticCard(name, summary, formula, unit, "extreme", logged_as)


_PPO_CAUTION = "PPO's own clip fraction counts only tokens whose advantage has the sign that makes the clip active"

_CARDS = (
    _tokens("ratio_mean", "Mean importance ratio of a token.",
        "E[rho]", "1",
        "TRL sampling/importance_sampling_ratio/mean", "AReaL importance_weight", "NeMo-RL probs_ratio",
        caution="one minus the target's probability, at the states of mu, of actions that mu never takes"),
    _tokens("ratio_std", "Standard deviation of the importance ratio of a token.",
        "sqrt(E[rho^2] - E[rho]^2)", "1", caution="verl's rollout_is_std is of truncated weights"),
    _extreme("ratio_maximum", "Largest importance ratio of a token.",
        "largest rho of a token that mu can generate", "1",
        "TRL sampling/importance_sampling_ratio/max", "NeMo-RL probs_ratio_max"),
    _extreme("ratio_minimum", "Smallest importance ratio of a token.",
        "smallest rho of a token that mu can generate", "1",
        "TRL sampling/importance_sampling_ratio/min", "NeMo-RL probs_ratio_min"),
    _tokens("ratio_effective_sample_size", "Effective sample size of token ratios, over the tokens.",
        "E[rho]^2 / E[rho^2]", "1",
        caution="as a share of the tokens; it does not see what mu never generates, and nothing of later tokens"),
    _tokens("ratio_chi_square", "Second moment of the token ratio less one: chi-square where no support is lost.",
        "E[rho^2] - 1", "1", "verl rollout_corr/chi2_token", "ms-swift chi2_token"),
    _tokens("kl_k1", "Mean of minus the log-ratio of a token: the divergence KL(mu || pi) per token.",
        "E[-l] = KL(mu || pi)", "nats",
        "verl rollout_corr/kl", "verl actor/ppo_kl", "OpenRLHF ppo_kl", "AReaL approx_kl (with the other sign)"),
    _tokens("kl_k2", "Half of the mean squared log-ratio of a token: the k2 estimate of KL per token.",
        "E[l^2] / 2", "nats", caution="equals KL(mu || pi) to second order in l only"),
    _tokens("kl_k3", "Mean of rho - 1 - log rho of a token: the k3 estimate of KL per token, never negative.",
        "E[rho - 1 - l]", "nats", "verl rollout_corr/k3_kl",
        caution="equals KL(mu || pi) where no support is lost"),
    _tokens("log_ratio_absolute_mean", "Mean absolute difference of the two log-probabilities of a token.",
        "E|l|", "nats", "TRL sampling/sampling_logp_difference/mean"),
    _extreme("log_ratio_absolute_maximum", "Largest absolute difference of the two log-probabilities of a token.",
        "largest |l| of a token that mu can generate", "nats",
        "TRL sampling/sampling_logp_difference/max"),
    _tokens("ratio_folded_mean", "Mean of the token ratio or its inverse, whichever is larger: 1 where pi = mu.",
        "E[exp|l|]", "1", "NeMo-RL token_mult_prob_error"),
    _tokens("clip_fraction", "Share of the tokens whose ratio lies outside of the clip, on either side.",
        "P(rho outside of the clip)", "1", caution=_PPO_CAUTION),
    _tokens("clip_fraction_low", "Share of the tokens whose ratio lies below the clip.",
        "P(rho < low)", "1", caution=_PPO_CAUTION),
    _tokens("clip_fraction_high", "Share of the tokens whose ratio lies above the clip.",
        "P(rho > high)", "1", caution=_PPO_CAUTION),
    _tokens("entropy_target", "Mean entropy of pi at the states that mu visits.",
        "E[entropy of pi(.|s)]", "nats", "verl actor/entropy", "TRL entropy", "AReaL entropy",
        caution="at the states of mu"),
    _tokens("entropy_behaviour", "Mean entropy of mu at the states that it visits.",
        "E[entropy of mu(.|s)]", "nats"),
    _tokens("cross_entropy", "Mean of minus the log-probability that pi gives to a token of mu.",
        "E[-log pi(a|s)]", "nats",
        caution="of tokens of mu: entropy_behaviour + kl_k1, though some dashboards call it the target's entropy"),
    _sequences("sequence_ratio_mean", "Mean importance ratio of a sequence.",
        "E[W]", "1", caution="one minus the lost mass; its batch value is heavy-tailed"),
    _sequences("sequence_ratio_effective_sample_size", "Effective sample size of sequence ratios, over the sequences.",
        "E[W]^2 / E[W^2]", "1"),
    _sequences("sequence_ratio_chi_square", "Second moment of W less one: chi-square where no support is lost.",
        "E[W^2] - 1", "1", "verl rollout_corr/chi2_seq"),
    _extreme("sequence_ratio_maximum", "Largest importance ratio of a sequence.",
        "largest W of a sequence that mu can generate"),
    _extreme("sequence_ratio_minimum", "Smallest importance ratio of a sequence.",
        "smallest W of a sequence that mu can generate"),
    _sequences("sequence_kl_k1", "Mean of minus the log-ratio of a sequence: the divergence KL(mu || pi) per sequence.",
        "E[-log W]", "nats"),
    _sequences("sequence_kl_k3", "Mean of W - 1 - log W of a sequence: the k3 estimate of its KL, never negative.",
        "E[W - 1 - log W]", "nats"),
    _sequences("geometric_ratio_mean", "Mean over sequences of the geometric mean of their token ratios.",
        "E[W^(1/L)]", "1"),
    _sequences("geometric_chi_square", "Second moment of a sequence's geometric mean ratio less one.",
        "E[W^(2/L)] - 1", "1", "ms-swift chi2_seq",
        caution="the same name in another library is of W itself"),
    _sequences("perplexity_ratio", "Mean over sequences of the perplexity under pi over that under mu.",
        "E[W^(-1/L)]", "1", "verl rollout_corr/ppl_ratio", "ms-swift ppl_ratio"),
    _sequences("perplexity_target", "Mean perplexity under pi of a sequence that mu generates.",
        "E[(product of pi(a|s))^(-1/L)]", "1", "verl rollout_corr/training_ppl"),
    _sequences("perplexity_behaviour", "Mean perplexity under mu of a sequence that it generates.",
        "E[(product of mu(a|s))^(-1/L)]", "1", "verl rollout_corr/rollout_ppl"),
    _sequences("largest_ratio_mean", "Mean over sequences of their largest token ratio.",
        "E[max over t of rho_t]"),
    _sequences("smallest_ratio_mean", "Mean over sequences of their smallest token ratio.",
        "E[min over t of rho_t]"),
    _sequences("length_mean", "Mean number of tokens of a sequence.",
        "E[L]", "tokens", "TRL completions/mean_length", "verl response_length/mean"),
    _tokens("weight_mean", "Mean coefficient c that the estimator's weight gives to a token.",
        "E[c]", "1", "verl rollout_corr/rollout_is_mean", "AReaL behave_imp_weight",
        caution="of the estimator's weight c, whatever its name"),
    _tokens("weight_std", "Standard deviation of the tokens' coefficients c.",
        "sqrt(E[c^2] - E[c]^2)", "1", "verl rollout_corr/rollout_is_std"),
    _tokens("weight_effective_sample_size", "Effective sample size of the tokens' coefficients c, over the tokens.",
        "E[c]^2 / E[c^2]", "1", "verl rollout_corr/rollout_is_eff_sample_size",
        caution="the library clamps c to its thresholds before: the weight `truncated` says the same"),
    _tokens("weight_share_zero", "Share of the tokens whose coefficient is zero: masked, or clipped away.",
        "P(c = 0), the mask fraction", "1",
        "verl actor/pg_clipfrac (weight ppo_clip)", "TRL clip_ratio/region_mean (weight ppo_clip)"),
    _sequences("weight_share_sequences_zero", "Share of the sequences with no token left: every coefficient is zero.",
        "P(c_t = 0 at all t)"),
)  # fmt: skip
CARDS = {card.name: card for card in _CARDS}


def diagnostic_cards() -> dict[str, DiagnosticCard]:
    """Every statistic of `theory.diagnostics`: name -> card."""
    return dict(CARDS)
