"""The full prefix tree: one state, and one logit row, per sequence of tokens."""

from __future__ import annotations

import numpy as np

from testbed.environments.options import fitting, whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from testbed.environments.tables import deterministic_table, point_mass
from theory import MarkovProcess


@register(
    EnvironmentCard(
        name="token_tree",
        summary="Every prefix is a state of its own, as for a language model; rewards are drawn per leaf.",
        knob="depth",
        source="the token-level view of a language model: s_t = (prompt, tokens so far), deterministic transitions",
        reference="under the uniform policy, expected return = share of rewarded leaves",
    )
)
def token_tree(*, depth: int = 5, vocabulary: int = 3, seed: int = 0) -> Parts:
    """V tokens, T = depth of them; S = (V^(T+1) - 1) / (V - 1) states, numbered level by level.

    Token a leads from state s to state V s + 1 + a. Each leaf pays a terminal reward of 0 or 1, drawn with the seed; at
    least one leaf pays 1 and one pays 0. Nothing is merged, so the occupancy of a prefix is the product of its
    token probabilities.

    Reference: J = sum over leaves of reward times that product; the share of rewarded leaves if pi is uniform.
    """
    T, V = whole_number("depth", depth, least=1), whole_number("vocabulary", vocabulary, least=2)
    fitting(f"depth={T} and vocabulary={V}", (V ** (T + 1) - 1) // (V - 1))
    rng = np.random.default_rng(whole_number("seed", seed, least=0))
    leaves = V**T
    inner = (leaves - 1) // (V - 1)
    S = inner + leaves
    # Leaves never act: a loop stands in for their rows.
    successor = np.repeat(np.arange(S)[:, None], V, axis=1)
    successor[:inner] = V * np.arange(inner)[:, None] + 1 + np.arange(V)
    terminal = np.zeros(S)
    terminal[inner:] = rng.integers(0, 2, size=leaves)
    zero, one = inner + rng.choice(leaves, size=2, replace=False)
    terminal[zero], terminal[one] = 0.0, 1.0
    process = MarkovProcess(point_mass(S), deterministic_table(successor), np.zeros((S, V)), T, terminal)
    return Parts(process, leaning_policy(process))
