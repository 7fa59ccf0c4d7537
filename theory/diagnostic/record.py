"""The record of logged statistics; exact and sampled ones have the same fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import nan


@dataclass(frozen=True)
class Diagnostics:
    """One value per statistic of `theory.diagnostic_cards()`, which says what each is; NaN where it is not known.

    l = log pi(a|s) - log mu(a|s), rho = exp(l), W = product of the rho of a sequence, c = the weight's coefficient.
    Sequences without a token are left out.
    """

    ratio_mean: float = nan
    """E[rho]."""
    ratio_std: float = nan
    """Standard deviation of rho."""
    ratio_maximum: float = nan
    """Largest rho."""
    ratio_minimum: float = nan
    """Smallest rho."""
    ratio_effective_sample_size: float = nan
    """E[rho]^2 / E[rho^2], share of the tokens."""
    ratio_chi_square: float = nan
    """E[rho^2] - 1."""
    kl_k1: float = nan
    """E[-l], nats."""
    kl_k2: float = nan
    """E[l^2] / 2, nats."""
    kl_k3: float = nan
    """E[rho - 1 - l], nats."""
    log_ratio_absolute_mean: float = nan
    """E|l|, nats."""
    log_ratio_absolute_maximum: float = nan
    """Largest |l|, nats."""
    ratio_folded_mean: float = nan
    """E[exp|l|]."""
    clip_fraction: float = nan
    """Share of tokens with rho outside of the clip."""
    clip_fraction_low: float = nan
    """Share of tokens with rho below the clip."""
    clip_fraction_high: float = nan
    """Share of tokens with rho above the clip."""
    entropy_target: float = nan
    """Mean entropy of pi at the tokens of mu, nats."""
    entropy_behaviour: float = nan
    """Mean entropy of mu at its own tokens, nats."""
    cross_entropy: float = nan
    """E[-log pi(a|s)], nats."""
    sequence_ratio_mean: float = nan
    """E[W]."""
    sequence_ratio_effective_sample_size: float = nan
    """E[W]^2 / E[W^2], share of the sequences."""
    sequence_ratio_chi_square: float = nan
    """E[W^2] - 1."""
    sequence_ratio_maximum: float = nan
    """Largest W."""
    sequence_ratio_minimum: float = nan
    """Smallest W."""
    sequence_kl_k1: float = nan
    """E[-log W], nats."""
    sequence_kl_k3: float = nan
    """E[W - 1 - log W], nats."""
    geometric_ratio_mean: float = nan
    """E[W^(1/L)]."""
    geometric_chi_square: float = nan
    """E[W^(2/L)] - 1."""
    perplexity_ratio: float = nan
    """E[W^(-1/L)]: perplexity under pi over perplexity under mu, of each sequence."""
    perplexity_target: float = nan
    """Mean perplexity of a sequence under pi."""
    perplexity_behaviour: float = nan
    """Mean perplexity of a sequence under mu."""
    largest_ratio_mean: float = nan
    """E[max over t of rho_t]."""
    smallest_ratio_mean: float = nan
    """E[min over t of rho_t]."""
    length_mean: float = nan
    """E[L], tokens."""
    weight_mean: float = nan
    """E[c]."""
    weight_std: float = nan
    """Standard deviation of c."""
    weight_effective_sample_size: float = nan
    """E[c]^2 / E[c^2], share of the tokens."""
    weight_share_zero: float = nan
    """Share of tokens with c = 0: masked or clipped away."""
    weight_share_sequences_zero: float = nan
    """Share of sequences with c = 0 at every token."""

    def as_dict(self) -> dict[str, float]:
        """Name -> value."""
        return asdict(self)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The statistics, in order."""
        return tuple(field.name for field in fields(cls))
