"""Random instances: a hypothesis strategy that shrinks to small ones, and a seeded one for single examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import theory


class Instance(NamedTuple):
    process: theory.MarkovProcess
    target: theory.SoftmaxPolicy
    behaviour: theory.SoftmaxPolicy


def _array(draw, shape, low=-4, high=4, scale=0.5):
    """Small multiples of `scale`, which shrink to zero one by one."""
    size = int(np.prod(shape))
    return np.array(draw(st.lists(st.integers(low, high), min_size=size, max_size=size)), float).reshape(shape) * scale


def _distributions(draw, shape):
    """Rows of small whole numbers, normalised; the first entry is never zero, so that rows shrink to a point mass."""
    counts = _array(draw, shape, 0, 3, 1.0)
    counts[..., 0] += counts.sum(axis=-1) == 0
    return counts / counts.sum(axis=-1, keepdims=True)


@st.composite
def instances(draw, max_states=3, max_actions=3, max_horizon=3, step_rewards=None, same_policy=None, features=None):
    """Processes with absorbing states, stochastic transitions, discounts, features, T = 1, A = 1 and one state."""
    S, A, T = draw(st.integers(1, max_states)), draw(st.integers(1, max_actions)), draw(st.integers(1, max_horizon))
    absorbing = np.array(draw(st.lists(st.booleans(), min_size=S, max_size=S)))
    absorbing[0] = False
    with_reward = draw(st.booleans()) if step_rewards is None else step_rewards
    reward_shape = draw(st.sampled_from([(S, A), (S, A, S)]))
    process = theory.MarkovProcess(
        initial=_distributions(draw, (S,)),
        transition=_distributions(draw, (S, A, S)),
        reward=_array(draw, reward_shape, -2, 2, 1.0) if with_reward else np.zeros(reward_shape),
        horizon=T,
        terminal_reward=_array(draw, (S,), -2, 2, 1.0),
        absorbing=absorbing,
        discount=draw(st.sampled_from([1.0, 0.5])),
    )
    if draw(st.booleans()) if features is None else features:
        P = draw(st.integers(1, 3))
        table = _array(draw, (S, A, P), -2, 2, 1.0)
        target = theory.SoftmaxPolicy.from_features(table, _array(draw, (P,)))
    else:
        target = theory.SoftmaxPolicy(_array(draw, (S, A)))
    same = draw(st.booleans()) if same_policy is None else same_policy
    behaviour = target if same else theory.SoftmaxPolicy(target.logits + _array(draw, (S, A), -3, 3))
    return Instance(process, target, behaviour)


def random_instance(seed=0, S=4, A=3, T=4, step_rewards=True, absorbing=True, discount=0.9, drift=0.7, features=0):
    """One dense instance with nothing special about it: every generic identity that fails, fails here."""
    rng = np.random.default_rng(seed)
    ended = np.zeros(S, bool)
    ended[-1] = absorbing
    initial = rng.dirichlet(np.ones(S))
    process = theory.MarkovProcess(
        initial=initial,
        transition=rng.dirichlet(np.ones(S), size=(S, A)),
        reward=rng.normal(size=(S, A, S)) if step_rewards else np.zeros((S, A)),
        horizon=T,
        terminal_reward=rng.normal(size=S),
        absorbing=ended,
        discount=discount,
    )
    if features:
        table = rng.normal(size=(S, A, features))
        target = theory.SoftmaxPolicy.from_features(table, rng.normal(size=features))
    else:
        target = theory.SoftmaxPolicy(rng.normal(size=(S, A)))
    return Instance(process, target, theory.SoftmaxPolicy(target.logits + drift * rng.normal(size=(S, A))))
