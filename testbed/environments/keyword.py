"""Say the keyword somewhere in the response: sparse, and order matters."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table, point_mass
from theory import MarkovProcess

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@register(
    EnvironmentCard(
        name="keyword",
        summary="Write T letters; rewarded if the keyword occurs among them.",
        knob="keyword",
        source="Guibas & Odlyzko 1981, J. Combin. Theory A 30(2); automaton of Knuth, Morris & Pratt 1977",
        reference="the number of texts without the keyword, from its autocorrelation polynomial",
    )
)
def keyword(*, keyword: str = "abab", horizon: int = 10) -> Parts:
    """Write T letters of the alphabet a, b, ... up to the keyword's last letter (at least a and b).

    State k < m: the longest end of the text so far that begins the keyword has k letters (Knuth, Morris & Pratt 1977).
    State m: the keyword has occurred; it stays. The terminal reward is 1 in state m.

    Reference: with q letters and c(z) = sum of z^k over the shifts k at which the keyword overlaps itself, the number
    of texts of length n without the keyword has the generating function c(z) / (z^m + (1 - q z) c(z))
    (Guibas & Odlyzko 1981).
    """
    if not isinstance(keyword, str) or not keyword or set(keyword) - set(LETTERS):
        raise ValueError(f"keyword is {keyword!r}; expected one or more of the letters a to z")
    m, q = len(keyword), max(2, LETTERS.index(max(keyword)) + 1)
    successor = np.full((m + 1, q), m)
    for k, a in np.ndindex(m, q):
        text = keyword[:k] + LETTERS[a]
        successor[k, a] = next(n for n in range(k + 1, -1, -1) if keyword[:n] == text[len(text) - n :])
    process = MarkovProcess(
        initial=point_mass(m + 1),
        transition=deterministic_table(successor),
        reward=np.zeros((m + 1, q)),
        horizon=whole_number("horizon", horizon, least=1),
        terminal_reward=point_mass(m + 1, m),
    )
    return Parts(process, leaning_policy(process))
