"""The two policies on the token that was drawn: its probabilities, and divergences of the binary choice it makes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from theory.weights.tokens import Tokens


class SampledToken(NamedTuple):
    """log pi(a_t|s_t) and log mu(a_t|s_t), (N, T) each.

    Where the target never takes the action its ratio is zero, and mu cannot be had from the ratio: log_mu is -inf
    there. A weight that is a multiple of the ratio is zero there, whatever mu was.
    """

    xp: Any
    log_pi: Any
    log_mu: Any

    @property
    def shift(self) -> Any:
        """pi(a_t|s_t) - mu(a_t|s_t)."""
        return self.xp.exp(self.log_pi) - self.xp.exp(self.log_mu)

    @property
    def binary_kl(self) -> Any:
        """KL(mu || pi) of "this token or another": mu log(mu / pi) + (1 - mu) log((1 - mu) / (1 - pi))."""
        xp, one, zero = self.xp, self.xp.ones_like(self.log_pi), self.xp.zeros_like(self.log_pi)
        possible = self.log_mu > -math.inf
        log_ratio = xp.where(possible, self.log_mu, zero) - xp.where(possible, self.log_pi, zero)
        # A probability that rounds to one still leaves up to half a rounding unit to the other tokens.
        unit = 0.5 * xp.finfo(self.log_pi.dtype).eps
        rest_mu, rest_pi = -xp.expm1(self.log_mu), xp.clip(-xp.expm1(self.log_pi), unit, None)
        left = rest_mu > 0
        rest = xp.where(left, rest_mu, zero) * xp.log(xp.where(left, rest_mu, one) / rest_pi)
        return xp.exp(self.log_mu) * log_ratio + rest


def sampled_token(tokens: Tokens) -> SampledToken:
    """Of a weight that needs `log_probability`."""
    xp, log_pi = tokens.xp, tokens.given["log_probability"]
    known = tokens.log_ratio > -math.inf
    log_mu = log_pi - xp.where(known, tokens.log_ratio, xp.zeros_like(log_pi))
    return SampledToken(xp, log_pi, xp.where(known, log_mu, xp.full_like(log_pi, -math.inf)))
