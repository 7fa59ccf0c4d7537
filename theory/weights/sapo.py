"""SAPO: a soft gate in the place of PPO's clip."""

from __future__ import annotations

from typing import Any

from theory.weights.options import check_positive
from theory.weights.registry import Card, register
from theory.weights.tokens import Tokens


def _check(tau_positive: float, tau_negative: float) -> None:
    check_positive("tau_positive", tau_positive, "how fast the gate closes")
    check_positive("tau_negative", tau_negative, "how fast the gate closes")


@register(
    Card(
        name="sapo",
        summary="The token's own ratio, faded out smoothly as it leaves 1, a little faster for negative advantages.",
        formula="c_t = 4 p (1 - p) rho_t, p = sigmoid(tau (rho_t - 1)), tau = tau_positive where A_t > 0, else "
        "tau_negative: the gradient of (4 / tau) sigmoid(tau (rho - 1)) A",
        source="SAPO, arXiv 2511.20347",
        defaults="tau_positive=1.0, tau_negative=1.05: the paper's, and those of TRL, verl and AReaL.",
        aliases=(
            "soft adaptive policy optimization",
            "TRL loss_type=sapo, sapo_temperature_pos=tau_positive, sapo_temperature_neg=tau_negative",
            "verl policy_loss=sapo",
            "AReaL sapo_loss_fn",
        ),
        caution="The gate closes on both sides of 1, whatever the sign of the advantage: unlike PPO's clip it also "
        "fades tokens that the update would bring back. It is 1 at rho = 1 but largest near rho = 2 (1.57 at 2.06 for "
        "tau = 1), so moderate ratios above 1 are not held back. The name is the paper's temperature, but tau "
        "multiplies: a larger tau is a narrower gate. TRL and verl take the mean of a sequence's tokens, AReaL that of "
        "all tokens: the reduction's.",
    ),
    uses_advantage=True,
    local=True,
    check=_check,
)
def sapo(tokens: Tokens, *, tau_positive: float = 1.0, tau_negative: float = 1.05) -> Any:
    """c_t = 4 p (1 - p) rho_t with p = sigmoid(tau (rho_t - 1))."""
    xp, ratio = tokens.xp, tokens.ratio
    one = xp.ones_like(ratio)
    tau = xp.where(tokens.advantage > 0, tau_positive * one, tau_negative * one)
    # p (1 - p) is even in its argument, and e^-|x| cannot overflow; rho in the exponent, as inf times zero is not zero.
    x = xp.abs(tau * (ratio - 1.0))
    return (2.0 / (1.0 + xp.exp(-x))) ** 2 * xp.exp(tokens.log_ratio - x)
