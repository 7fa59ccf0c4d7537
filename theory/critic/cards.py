"""What is known of each method that uses a critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class CriticCard:
    """One method. q, v are the critic, dq its gradient; without time index, of the current step.

    D is a value estimate, G the gradient's, both of the rest of the episode and in units of their own step; D is the
    terminal reward and G is zero where the episode has ended. The estimator is G_0. rho is the token ratio, z the
    score, r the reward of the step, D' and G' those of the next step.
    """

    name: str
    summary: str
    formula: str
    source: str
    unbiased: str
    """When its mean is the true gradient."""
    options: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """The options it takes beside the critic, and their defaults; inf is no cap."""
    defaults: str = ""
    """Where the defaults come from."""
    needs: str = "action values"
    """"nothing", "state values" or "action values": what it looks at of the critic."""
    takes_gradient: bool = False
    """Whether it looks at the gradient of the critic."""


_ANY = "for every critic"
_SUFFICES = (
    "; this suffices, and elsewhere there is bias in general, even with exact values: the states are those of mu"
)
_TRACES = (
    "for every critic where target = behaviour, caps are at least 1 and trace_decay=1, or T = 1 and cap=inf; with "
    "exact values where target = behaviour and cap is at least 1, or there is one state and cap=inf" + _SUFFICES
)
_CORRECTED = (
    "for every critic where target = behaviour, caps are at least 1 and trace_decay=1, or T = 1 and cap=inf; with "
    "exact values where target = behaviour, T = 1 or there is one state" + _SUFFICES
)

_CARDS = (
    CriticCard(
        "per_decision",
        "Importance sampling per decision, without a critic.",
        "D = rho (r + discount D');  G = rho z (r + discount D') + rho discount G'",
        "Precup, Sutton & Singh 2000; as a gradient it is the derivative of D",
        "always",
        needs="nothing",
    ),
    CriticCard(
        "state_baseline",
        "Per decision, with a baseline of the state.",
        "D = rho (r + discount D');  G = rho z (r + discount D' - v) + rho discount G'",
        "Greensmith, Bartlett & Baxter 2004, carried to data of mu",
        _ANY,
        needs="state values",
    ),
    CriticCard(
        "action_baseline",
        "Per decision, with a control variate of state and action for the step's own score.",
        "D = rho (r + discount D');  G = E_pi[z q] + rho z (r + discount D' - q) + rho discount G'",
        "Gu et al. 2017 (arXiv 1611.02247) and Wu et al. 2018 (arXiv 1803.07246), carried to data of mu",
        _ANY,
    ),
    CriticCard(
        "trajectory_baseline",
        "Control variates for all later steps as well: the doubly robust value in the place of the return.",
        "D = E_pi[q] + rho (r + discount D' - q);  G = E_pi[z q] + rho z (r + discount D' - q) + rho discount G'",
        "Cheng, Yan & Boots 2019 (arXiv 1908.03263), carried to data of mu",
        _ANY,
    ),
    CriticCard(
        "doubly_robust",
        "The derivative of the doubly robust value: a control variate for the gradient of later values too.",
        "D = E_pi[q] + rho (r + discount D' - q);  "
        "G = E_pi[z q + dq] + rho z (r + discount D' - q) + rho (discount G' - dq)",
        "Huang & Jiang 2020 (arXiv 1910.09066), from the value of Jiang & Li 2016 (arXiv 1511.03722); off policy the "
        "same derivative, with the ratios kept",
        "for every critic and every gradient of it, also zero",
        takes_gradient=True,
    ),
    CriticCard(
        "marginal",
        "Efficient in the Markov model: ratios of state occupancies, exact, in the place of products of ratios.",
        "dv_0 + sum over t of discount^t [dw (r + discount v' - q) + w (discount dv' - dq)] with v = E_pi[q], "
        "dv = E_pi[z q + dq], w = P_pi(s_t = s) pi(a|s) / (P_mu(s_t = s) mu(a|s)), dw its gradient",
        "Kallus & Uehara 2020 (arXiv 2002.04014), the efficient influence function, here with exact w and dw",
        "for every critic and every gradient of it, as w and dw are exact",
        takes_gradient=True,
    ),
    CriticCard(
        "v_trace",
        "The policy gradient of IMPALA with the value target V-trace.",
        "D = v + min(cap, rho) (r + discount v' - v) + discount trace_decay min(trace_cap, rho) (D' - v');  "
        "G = min(cap, rho) (r + discount D' - v) z + discount G'",
        "Espeholt et al. 2018 (arXiv 1802.01561), equation 1 and its policy gradient; here discount^t is kept",
        _TRACES,
        options=MappingProxyType({"cap": 1.0, "trace_cap": 1.0, "trace_decay": 1.0}),
        defaults="cap=1, trace_cap=1 and trace_decay=1: the paper's.",
        needs="state values",
    ),
    CriticCard(
        "retrace",
        "The token ratio times an advantage whose action value is the target Retrace.",
        "D = E_pi[q] + c (r + discount D' - q), c = trace_decay min(trace_cap, rho);  "
        "G = min(cap, rho) (r + discount D' - E_pi[q]) z + discount G'",
        "Munos et al. 2016 (arXiv 1606.02647) for r + discount D', the target of Q; the paper has no policy gradient",
        _TRACES,
        options=MappingProxyType({"cap": float("inf"), "trace_cap": 1.0, "trace_decay": 1.0}),
        defaults="trace_cap=1 and trace_decay=1: the paper's. cap=inf: here, no cap.",
    ),
    CriticCard(
        "acer",
        "Retrace with a capped ratio, and what the cap takes away put back by the critic.",
        "D as for retrace;  G = min(cap, rho) (r + discount D' - E_pi[q]) z "
        "+ sum over a of max(0, pi(a|s) - cap mu(a|s)) (q - E_pi[q]) z + discount G'",
        "Wang et al. 2017 (arXiv 1611.01224), equation 7, before the trust region",
        _CORRECTED,
        options=MappingProxyType({"cap": 10.0, "trace_cap": 1.0, "trace_decay": 1.0}),
        defaults="cap=10, trace_cap=1 and trace_decay=1: the paper's.",
    ),
)
CARDS = {card.name: card for card in _CARDS}


def critic_cards() -> dict[str, CriticCard]:
    """Every method of `theory.critic_moments`: name -> card.

    >>> sorted(theory.critic_cards())[:3]
    ['acer', 'action_baseline', 'doubly_robust']
    """
    return dict(CARDS)
