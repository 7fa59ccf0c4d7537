"""Off-policy sequence masking: sequences with a negative advantage that the policy has moved away from are dropped."""

from __future__ import annotations

import math
from typing import Any

from theory.weights.options import check_number, check_word
from theory.weights.registry import Card, register
from theory.weights.sequence_mask import WEIGHTS
from theory.weights.tokens import Tokens


def _check(threshold: float, tokens: str) -> None:
    if threshold != math.inf:
        check_number("threshold", threshold, "a bound of the mean of -l, or infinity")
    check_word("tokens", tokens, WEIGHTS)


@register(
    Card(
        name="off_policy_sequence_mask",
        summary="Drops a token of negative advantage if the policy has moved away from its whole sequence.",
        formula="c_t = x_t, but 0 where A_t < 0 and mean over t of -l_t > threshold; x_t = 1, rho_t or W for tokens "
        "'none', 'token', 'sequence'",
        source="DeepSeek-V3.2 2025, arXiv 2512.02556; TRL's off_policy_mask_threshold",
        defaults="threshold=0.5, what TRL's documentation suggests for it (the paper prints none); tokens='token': the "
        "ratio that PPO's term has where nothing is clipped.",
        aliases=("OPSM", "off-policy sequence masking", "TRL off_policy_mask_threshold=threshold"),
        caution="The mean of -l over a sequence of mu estimates KL(mu || pi) per token. A = 0 is kept, as in TRL. In "
        "the paper and in the libraries it multiplies PPO's clipped term: that is a product with `ppo_clip`, which "
        "this weight does not contain. mu is the policy that generated the data, also where the ratio of PPO's term is "
        "against another. Each token's own advantage decides, which is the sequence's where the signal is.",
    ),
    uses_advantage=True,
    baseline_invariant=lambda threshold, tokens: threshold == math.inf and tokens != "none",
    check=_check,
    parts=lambda threshold, tokens: WEIGHTS[tokens],
)
def off_policy_sequence_mask(seen: Tokens, *, threshold: float = 0.5, tokens: str = "token") -> Any:
    """c_t = 1, rho_t or W, but 0 where the advantage is negative and the mean of -l above the threshold."""
    xp, zeros = seen.xp, seen.xp.zeros_like(seen.log_ratio)
    weight = {"none": xp.ones_like(zeros), "token": seen.ratio, "sequence": seen.sequence_ratio}[tokens]
    lost = (seen.advantage < 0) & (-seen.log_sequence / seen.length > threshold)
    return xp.where(lost, zeros, weight)
