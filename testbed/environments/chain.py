"""A river-swim chain: the current carries left, the large reward is far to the right."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import point_mass
from theory import MarkovProcess


@register(
    EnvironmentCard(
        name="chain",
        summary="River swim: left is certain and pays little, right is against the current and pays at the end.",
        knob="states",
        source="Strehl & Littman 2008, JCSS 74(8); probabilities of Osband, Russo & Van Roy 2013, fig. 1",
        reference="detailed balance: swimming right earns 7203/16805 = 0.4286 per step in the long run, for 6 states",
    )
)
def chain(*, states: int = 4, horizon: int = 8) -> Parts:
    """River swim with n states; action 0 is left, 1 is right.

    Left moves one state down with certainty (state 0 stays). Right: from state 0, up with 0.6, else stay; from the top,
    down with 0.4, else stay; between, up 0.35, stay 0.6, down 0.05. Left in state 0 pays 0.005, right in the top state
    pays 1. An episode starts in state 0.

    Reference: under any policy this is a birth-death chain, so its stationary law d obeys detailed balance,
    d(s+1)/d(s) = P(s -> s+1) / P(s+1 -> s). Always right with n = 6: ratios 12, 7, 7, 7, 7/8, so that
    d(5) = 7203/16805 = 0.42862, the reward per step.
    """
    n = whole_number("states", states, least=2)
    transition = np.zeros((n, 2, n))
    s = np.arange(n)
    transition[s, 0, np.maximum(s - 1, 0)] = 1.0
    for step, probability in ((1, 0.35), (0, 0.6), (-1, 0.05)):
        transition[s[1:-1], 1, s[1:-1] + step] = probability
    transition[0, 1, :2] = 0.4, 0.6
    transition[n - 1, 1, n - 2 :] = 0.4, 0.6
    reward = np.zeros((n, 2))
    reward[0, 0], reward[n - 1, 1] = 0.005, 1.0
    process = MarkovProcess(point_mass(n), transition, reward, whole_number("horizon", horizon, least=1))
    return Parts(process, leaning_policy(process))
