"""Values by naive recursion over the tree of futures: the slow twin of `theory.values`."""

import numpy as np


def outgoing(process, s, a):
    """(next state, probability, reward) of an action, for a process with a dense transition."""
    for after in range(process.states):
        reward = process.reward[s, a, after] if process.reward.ndim == 3 else process.reward[s, a]
        yield after, float(process.transition[s, a, after]), float(reward)


def state_value(process, probabilities, t, s):
    """V_t(s), from t on, not discounted back to the start."""
    if t == process.horizon or process.absorbing[s]:
        return float(process.terminal_reward[s])
    return sum(
        float(probabilities[s, a]) * action_value(process, probabilities, t, s, a) for a in range(process.actions)
    )


def action_value(process, probabilities, t, s, a):
    """Q_t(s, a) of a state that is not absorbing."""
    return sum(
        p * (reward + process.discount * state_value(process, probabilities, t + 1, after))
        for after, p, reward in outgoing(process, s, a)
        if p > 0.0
    )


def expected_return(process, probabilities):
    """J, for any table of probabilities."""
    return sum(float(process.initial[s]) * state_value(process, probabilities, 0, s) for s in range(process.states))


def occupancy(process, probabilities, t):
    """P(s_t = s), (S,): an episode that ended stays where it ended."""
    now = {s: float(p) for s, p in enumerate(process.initial)}
    for _ in range(t):
        later = dict.fromkeys(now, 0.0)
        for s, mass in now.items():
            if process.absorbing[s]:
                later[s] += mass
                continue
            for a in range(process.actions):
                for after, p, _ in outgoing(process, s, a):
                    later[after] += mass * float(probabilities[s, a]) * p
        now = later
    return np.array([now[s] for s in range(process.states)])


def largest_return(process):
    """A bound of |return|, at least 1: what rounding errors are measured against."""
    return max(
        1.0, process.horizon * float(np.abs(process.reward).max()) + float(np.abs(process.terminal_reward).max())
    )
