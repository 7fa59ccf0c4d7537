"""Parity of a bit string: the smallest task in which every token matters and none can be judged alone."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table, point_mass
from theory import MarkovProcess


@register(
    EnvironmentCard(
        name="parity",
        summary="Write T bits; rewarded if the number of ones is even.",
        knob="horizon",
        source="the two-state automaton of even parity (Hopcroft & Ullman 1979, chapter 2)",
        reference="probability of reward (1 + (1-2p)^T) / 2 where a one has probability p",
    )
)
def parity(*, horizon: int = 10) -> Parts:
    """Write T bits; state 0 is even so far, 1 odd; the terminal reward is 1 in state 0.

    Reference: if a one has probability p in every state, P(even) = (1 + (1-2p)^T) / 2. With p in state even and q in
    state odd, P(even) = (q + p (1-p-q)^T) / (p + q), the two-state Markov chain.
    """
    T = whole_number("horizon", horizon, least=1)
    successor = [[0, 1], [1, 0]]
    process = MarkovProcess(
        point_mass(2), deterministic_table(successor), np.zeros((2, 2)), T, terminal_reward=point_mass(2)
    )
    return Parts(process, leaning_policy(process))
