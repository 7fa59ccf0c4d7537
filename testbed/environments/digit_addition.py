"""Addition digit by digit with carry: the exact little sister of a transformer's arithmetic task."""

from __future__ import annotations

from itertools import product

import numpy as np

from testbed.environments.options import fitting, whole_number
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table
from theory import MarkovProcess, SoftmaxPolicy


@register(
    EnvironmentCard(
        name="digit_addition",
        summary="Add two numbers, lowest digit first, then the end token; the carry must be remembered.",
        knob="digits",
        source="Holte 1997, Amer. Math. Monthly 104(2), Carries, combinatorics, and an amazing matrix",
        reference="probability (1 - base^-n) / 2 of a carry out of n columns, hence of the longer answer",
    )
)
def digit_addition(*, digits: int = 2, base: int = 3) -> Parts:
    """The prompt is two numbers of n digits, uniform over all base^(2n); the answer is their sum and the end token.

    Tokens 0..base-1 are digits, token `base` ends the response. The answer has n digits, lowest first, one more (1) if
    a carry is left, and no other leading digit; so its length with the end token is n + 1 or n + 2 = the horizon.

    The state is what matters of prompt and answer: (columns still to add, carry), a column being a pair of digits.
    Deterministic, as appending a token is. After a wrong digit nothing can be earned, and all such responses share one
    state, from which tokens are written until the end token or the horizon. The terminal reward is 1 in the state
    reached by the end token after a right and complete answer, and 0 in the other ending.

    Reference: over uniform digits the carries form a Markov chain, and a carry comes out of n columns with probability
    c_n = (1 - base^-n) / 2 (Holte 1997, for two summands). A policy that writes the right token with
    probability p everywhere is rewarded with probability (1 - c_n) p^(n+1) + c_n p^(n+2).
    """
    n, b = whole_number("digits", digits, least=1), whole_number("base", base, least=2)
    fitting(f"digits={n} and base={b}", b ** (2 * n) + 2 * sum(b ** (2 * k) for k in range(n)) + 3)
    columns = list(product(range(b), repeat=2))
    waiting = [(rest, 0) for rest in product(columns, repeat=n)]
    waiting += [(rest, carry) for k in reversed(range(n)) for rest in product(columns, repeat=k) for carry in (0, 1)]
    number = {state: i for i, state in enumerate(waiting)}
    wrong, right, failed = (len(waiting) + i for i in range(3))
    S, A, end = failed + 1, b + 1, b
    successor = np.full((S, A), wrong)
    successor[:, end] = failed
    correct = np.full(S, end)
    for (rest, carry), s in number.items():
        total = sum(rest[0]) + carry if rest else carry
        if rest or carry:
            correct[s] = total % b
            successor[s, total % b] = number[rest[1:], total // b]
        else:
            successor[s, end] = right
    process = MarkovProcess(
        initial=np.where(np.arange(S) < b ** (2 * n), float(b) ** (-2 * n), 0.0),
        transition=deterministic_table(successor),
        reward=np.zeros((S, A)),
        horizon=n + 2,
        terminal_reward=np.arange(S) == right,
        absorbing=np.arange(S) >= right,
    )
    return Parts(process, _half_trained(waiting, correct, A))


def _half_trained(waiting: list[tuple[tuple[tuple[int, ...], ...], int]], correct: np.ndarray, A: int) -> SoftmaxPolicy:
    """The right token has 2 nats over the others, 1 with a carry: what is learnt last is the carry.

    The sine breaks the symmetry between tokens, as in `leaning_policy`.
    """
    S = correct.size
    logits = 0.5 * np.sin(1.0 + np.arange(S * A)).reshape(S, A)
    carry = np.array([carry for _, carry in waiting] + [0, 0, 0])
    logits[np.arange(S), correct] += 2.0 - carry
    return SoftmaxPolicy(logits)
