"""The recursion over cells with plain loops, as one writes it on paper: the slow twin of the engine at horizons that no
enumeration reaches.

A weight is c_t = [product over j < t of carry(rho_j)] own(stat_t, rho_t), times the product over all j of whole(rho_j).
A cell is a state and a value of the statistic. Under the per-step measure b = mu(a|s) whole(rho)^p, with p = 1 for the
mean and p = 2 for the second moment, it holds E[1], E[kappa], E[kappa^2], E[X], E[kappa X] and E|X|^2, with kappa the
product of the carries so far and X the sum so far of c_t psi_t z_t.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Form(NamedTuple):
    """A weight in the form of the recursion. Every factor is a function of one ratio; `own` of (statistic, ratio)."""

    carry: Any = lambda rho: 1.0
    own: Any = lambda stat, rho: rho
    whole: Any = lambda rho: 1.0
    minimum: bool = False
    """Whether the statistic is the running minimum of the earlier ratios; None before the first."""


def clipped(low, high):
    """MinPRO's factor: the earlier minimum (1 where there is none) times the own ratio, clipped."""
    return lambda stat, rho: min(max((1.0 if stat is None else stat) * rho, low), high)


def forms(horizon):
    """Name -> (weight, form) of every family, for episodes of `horizon` tokens."""
    return {
        "none": Form(own=lambda stat, rho: 1.0),
        "token": Form(),
        "prefix": Form(carry=lambda rho: rho),
        "suffix": Form(carry=lambda rho: 1.0 / rho, own=lambda stat, rho: 1.0, whole=lambda rho: rho),
        "sequence": Form(own=lambda stat, rho: 1.0, whole=lambda rho: rho),
        "geometric": Form(own=lambda stat, rho: 1.0, whole=lambda rho: rho ** (1.0 / horizon)),
        "v_trace": Form(carry=lambda rho: min(1.0, rho), own=lambda stat, rho: min(1.0, rho)),
        "minpro": Form(own=clipped(0.0, np.inf), minimum=True),
        "minpro clipped": Form(own=clipped(0.8, 1.28), minimum=True),
    }


class Cell:
    """What a cell holds."""

    def __init__(self, P):
        self.one = self.kappa = self.kappa2 = self.xx = 0.0
        self.x, self.kappa_x = np.zeros(P), np.zeros(P)


def forward(process, target, behaviour, form, psi, p, at_the_end):
    """(E[X], E|X|^2) under the measure b, summed over all ends of episodes, each times terminal(s)^p.

    psi(t, s, a) is the part of the signal that the token knows; at_the_end(s) multiplies the whole sum.
    """
    pi, mu, P = target.probabilities, behaviour.probabilities, target.parameter_count
    mean, second = np.zeros(P), 0.0
    cells = {}
    for s in np.flatnonzero(process.initial):
        assert not process.absorbing[s]
        cells[s, None] = Cell(P)
        cells[s, None].one = cells[s, None].kappa = cells[s, None].kappa2 = float(process.initial[s])
    for t in range(process.horizon):
        following = {}
        for (s, stat), old in cells.items():
            for a in range(process.actions):
                rho = float(pi[s, a]) / float(mu[s, a])
                z = target.score[s, a]
                carry, o = form.carry(rho), form.own(stat, rho) * psi(t, s, a)
                later = (rho if stat is None else min(stat, rho)) if form.minimum else None
                for after in range(process.states):
                    b = float(mu[s, a]) * form.whole(rho) ** p * float(process.transition[s, a, after])
                    if b == 0.0:
                        continue
                    new = following.setdefault((after, later), Cell(P))
                    new.one += b * old.one
                    new.kappa += b * carry * old.kappa
                    new.kappa2 += b * carry**2 * old.kappa2
                    new.x = new.x + b * (old.x + o * old.kappa * z)
                    new.kappa_x = new.kappa_x + b * carry * (old.kappa_x + o * old.kappa2 * z)
                    new.xx += b * (old.xx + 2 * o * float(old.kappa_x @ z) + o**2 * old.kappa2 * float(z @ z))
        cells = {}
        for (s, stat), cell in following.items():
            if process.absorbing[s] or t + 1 == process.horizon:
                mean = mean + at_the_end(s) * cell.x
                second += at_the_end(s) ** 2 * cell.xx
            else:
                cells[s, stat] = cell
    return mean, second


def moments(process, target, behaviour, form, psi, at_the_end=lambda s: 1.0):
    """(E[g_hat], E|g_hat|^2)."""
    mean, _ = forward(process, target, behaviour, form, psi, 1, at_the_end)
    _, second = forward(process, target, behaviour, form, psi, 2, at_the_end)
    return mean, second
