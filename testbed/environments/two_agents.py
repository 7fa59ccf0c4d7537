"""Two agents take turns: one says a token, the other has to answer it."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import share, whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table, point_mass
from theory import MarkovProcess

SPEAKER, LISTENER = 0, 1


@register(
    EnvironmentCard(
        name="two_agents",
        summary="A speaker says a token, a listener answers, for some rounds; rewarded for matching answers.",
        knob="coordination",
        source="a signalling game played in turns with a common payoff (Lewis 1969, Convention, ch. 4)",
        reference="expected return = (1 - c) m + c m^rounds, m the probability that an answer matches",
    )
)
def two_agents(*, coordination: float = 0.5, rounds: int = 4, tokens: int = 2) -> Parts:
    """R rounds of two tokens from {0..A-1}: the speaker's (agent 0), then the listener's (agent 1); T = 2R.

    State (A + 1) k + h: k answers matched so far, and h = 0 if the speaker is to move or h = 1 + a if the listener is
    to answer token a; so each agent has parameters of its own, the logits of the states in which it moves
    (`Environment.acting`, (S,)). The terminal reward is common to both, (1 - c) k / R + c 1{k = R}: with coordination
    c = 0 every round counts by itself, with c = 1 nothing is paid for less than all of them.

    Reference: if neither looks at k, the rounds are independent and an answer matches with probability
    m = sum over a of p(a) q(a|a), for the speaker's p and the listener's q; so J = (1 - c) m + c m^R.
    """
    c = share("coordination", coordination)
    R, A = whole_number("rounds", rounds, least=1), whole_number("tokens", tokens, least=2)
    matched, heard = np.divmod(np.arange((R + 1) * (A + 1)), A + 1)
    said = np.arange(A)
    # After R rounds nothing acts; the clamp only gives the rows of k = R, reached by then alone, somewhere to go.
    answered = (A + 1) * np.minimum(matched[:, None] + (said == heard[:, None] - 1), R)
    successor = np.where(heard[:, None] == 0, (A + 1) * matched[:, None] + 1 + said, answered)
    process = MarkovProcess(
        initial=point_mass(matched.size),
        transition=deterministic_table(successor),
        reward=np.zeros((matched.size, A)),
        horizon=2 * R,
        terminal_reward=(1.0 - c) * matched / R + c * (matched == R),
    )
    return Parts(process, leaning_policy(process), acting=np.where(heard == 0, SPEAKER, LISTENER))
