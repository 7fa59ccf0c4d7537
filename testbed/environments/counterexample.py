"""Two tokens for which a correction of the prefix alone points the wrong way."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import number_between
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table, point_mass
from theory import MarkovProcess, SoftmaxPolicy

START, AFTER_0, AFTER_1, END_0, END_1 = range(5)


@register(
    EnvironmentCard(
        name="two_token_counterexample",
        summary="The policies agree on the first token and disagree on what follows: its gradient changes sign.",
        knob="epsilon",
        source="the continuation example of the repository 33modeling/offpolicy-misranking, scripts/verify_theory.py",
        reference="first token: g = -epsilon/2, but prefix x outcome and no correction give +epsilon/2",
    )
)
def two_token_counterexample(*, epsilon: float = 0.1) -> Parts:
    """A_1 is a fair coin under both policies; the terminal reward is A_2.

    mu(A_2 = 1 | A_1 = 1) = 1/2 + eps and mu(A_2 = 1 | A_1 = 0) = 1/2 - eps; the target has them the other way round.

    Reference, in the logit of A_1 = 1 (score A_1 - 1/2): the truth is 1/4 (pi(1|1) - pi(1|0)) = -eps/2. With the
    outcome as signal, the first token's prefix ratio and token ratio are 1, so no correction and the prefix correction
    both give 1/4 (mu(1|1) - mu(1|0)) = +eps/2. The KL divergence of the two sequence laws, either way round, is
    2 eps log((1/2 + eps) / (1/2 - eps)).
    """
    eps = number_between("epsilon", epsilon, 0.0, 0.5)
    successor = np.array([[AFTER_0, AFTER_1], [END_0, END_1], [END_0, END_1], [END_0, END_0], [END_1, END_1]])
    process = MarkovProcess(
        point_mass(5), deterministic_table(successor), np.zeros((5, 2)), horizon=2, terminal_reward=point_mass(5, END_1)
    )
    # Half of the log odds on each action.
    tilt = 0.5 * np.log((0.5 + eps) / (0.5 - eps))
    logits = np.zeros((5, 2))
    logits[AFTER_1], logits[AFTER_0] = (-tilt, tilt), (tilt, -tilt)
    return Parts(process, target=SoftmaxPolicy(-logits), behaviour=SoftmaxPolicy(logits))
