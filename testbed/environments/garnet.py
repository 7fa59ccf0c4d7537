"""Garnet: random processes with a given number of successors."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import fitting, whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import point_mass
from theory import MarkovProcess


@register(
    EnvironmentCard(
        name="garnet",
        summary="A random process: every state and action leads to a few states drawn at random.",
        knob="branching",
        source="Archibald, McKinnon & Thomas 1995, JORS 46(3); as in Bhatnagar et al. 2009, Automatica 45(11)",
        reference="expected return by the resolvent, start (I - discount P)^-1 (I - (discount P)^T) r",
    )
)
def garnet(
    *, branching: int = 2, states: int = 6, actions: int = 2, horizon: int = 6, discount: float = 1.0, seed: int = 0
) -> Parts:
    """Garnet(S, A, b): each (s, a) has b different successors, drawn uniformly without replacement.

    Their probabilities are the lengths of the pieces into which b - 1 uniform points cut [0, 1]; the reward of each
    (s, a) is standard normal. An episode starts in state 0.

    Reference: with P and r those of the policy, J = sum over t < T of discount^t start P^t r
    = start (I - discount P)^-1 (I - (discount P)^T) r for discount < 1.
    """
    S, A = whole_number("states", states, least=1), whole_number("actions", actions, least=1)
    b = whole_number("branching", branching, least=1, most=S)
    fitting(f"states={S} and actions={A}", S, most=2_000)  # a dense table of S^2 A numbers
    rng = np.random.default_rng(whole_number("seed", seed, least=0))
    transition = np.zeros((S, A, S))
    for s, a in np.ndindex(S, A):
        cuts = np.sort(rng.uniform(size=b - 1))
        transition[s, a, rng.choice(S, size=b, replace=False)] = np.diff(cuts, prepend=0.0, append=1.0)
    reward = rng.normal(size=(S, A))
    T = whole_number("horizon", horizon, least=1)
    process = MarkovProcess(point_mass(S), transition, reward, T, discount=discount)
    return Parts(process, leaning_policy(process))
