"""Balanced brackets with an end token: responses of variable length."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table, point_mass
from theory import MarkovProcess

OPEN, CLOSE, END = 0, 1, 2


@register(
    EnvironmentCard(
        name="brackets",
        summary="Write brackets and then the end token; rewarded if they are balanced. Variable length.",
        knob="depth",
        source="Dyck language of one bracket pair (Chomsky & Schutzenberger 1963)",
        reference="Catalan numbers: C_n of the responses with n pairs are rewarded, where depth >= n",
    )
)
def brackets(*, depth: int = 4, horizon: int = 10) -> Parts:
    """Tokens are open (0), close (1) and end (2); state 0 is the empty response, state 1 + d has d brackets open.

    The episode ends when `end` is written, or at once when nothing can save it: a bracket is closed that was never
    opened, or more than `depth` are open. The terminal reward is 1 in state depth + 2, reached by writing `end` with
    no bracket open and at least one pair written; state depth + 3 is the other ending. A response cut off by the
    horizon is not rewarded.

    Reference: of the responses of length 2n + 1, C_n = (2n)! / (n! (n+1)!) are rewarded if depth >= n (Stanley 1999,
    Enumerative Combinatorics 2, ex. 6.19); 1 for depth 1, and 2^(n-1) for depth 2. So a uniform policy is rewarded with
    probability sum over n >= 1 with 2n + 1 <= T of C_n 3^-(2n+1).
    """
    D = whole_number("depth", depth, least=1)
    balanced, wrong, S = D + 2, D + 3, D + 4
    successor = np.full((S, 3), wrong)
    level = np.arange(D + 1)
    successor[1 + level[:-1], OPEN] = 2 + level[:-1]
    successor[1 + level[1:], CLOSE] = level[1:]
    successor[0, OPEN], successor[1, END] = 2, balanced
    successor[balanced] = balanced
    process = MarkovProcess(
        initial=point_mass(S),
        transition=deterministic_table(successor),
        reward=np.zeros((S, 3)),
        horizon=whole_number("horizon", horizon, least=1),
        terminal_reward=point_mass(S, balanced),
        absorbing=np.arange(S) >= balanced,
    )
    return Parts(process, leaning_policy(process))
