"""A sum modulo m: parity with more residues and more tokens."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import fitting, whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table, point_mass
from theory import MarkovProcess


@register(
    EnvironmentCard(
        name="modular_sum",
        summary="Write T digits; rewarded if their sum is a multiple of the modulus.",
        knob="modulus",
        source="a random walk on the cyclic group (Diaconis 1988, Group Representations in Probability and Statistics)",
        reference="probability of reward = mean over the m characters of the T-th power of the token law's transform",
    )
)
def modular_sum(*, modulus: int = 5, tokens: int = 3, horizon: int = 8) -> Parts:
    """Write T digits from {0..tokens-1}; the state is the sum modulo m; the terminal reward is 1 in state 0.

    Reference: where digit a has probability p(a) in every state,
    P(sum = 0 mod m) = 1/m sum over k < m of phi(k)^T,  phi(k) = sum over a of p(a) exp(2 pi i k a / m).
    """
    m, A = whole_number("modulus", modulus, least=2), whole_number("tokens", tokens, least=2)
    fitting(f"modulus={m}", m)
    successor = (np.arange(m)[:, None] + np.arange(A)) % m
    process = MarkovProcess(
        initial=point_mass(m),
        transition=deterministic_table(successor),
        reward=np.zeros((m, A)),
        horizon=whole_number("horizon", horizon, least=1),
        terminal_reward=point_mass(m),
    )
    return Parts(process, leaning_policy(process))
