"""How far two policies are from each other in a process: exact divergences per token and per sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.policy import SoftmaxPolicy, ratios
from theory.process import MarkovProcess
from theory.value_functions import check_policy, occupancies

Array = NDArray[np.float64]

# Sums of the same log-ratios in another order differ by a few units in the last place; distinct ones by far more.
_SAME_PRODUCT = 1e-12


@dataclass(frozen=True)
class TokenDivergences:
    """Divergences of d_mu(s) pi(a|s) and d_mu(s) mu(a|s), where d_mu is the law of the state of a token drawn by mu.

    The average of a statewise f is therefore E_mu[sum over t < L of f(s_t)] / E_mu[L]; `renyi` and
    `effective_sample_size` are of the average E_mu[rho^2], not averages of their statewise values. Every field is NaN
    where no episode takes a step (E_mu[L] = 0).
    """

    kl_behaviour_target: float
    """KL(mu || pi), in nats; inf where the target never takes an action that mu takes."""
    kl_target_behaviour: float
    """KL(pi || mu), in nats, still at the states of mu; inf where mu never takes an action that the target takes."""
    total_variation: float
    """TV, in [0, 1]."""
    maximum_total_variation: float
    """Dmax: the largest TV of any state in which mu acts with positive probability, in [0, 1]."""
    chi_square: float
    """E_mu[rho^2] - 1, chi-square of pi from mu; inf where support is lost."""
    renyi: float
    """log E_mu[rho^2], Renyi divergence of order 2 of pi from mu, in nats; inf where support is lost."""
    effective_sample_size: float
    """1 / E_mu[rho^2], as a fraction of the tokens drawn: in (0, 1], and 0 where support is lost."""


@dataclass(frozen=True)
class SequenceDivergences:
    """Divergences of the law of the whole trajectory (s_0, a_0, ..., s_L)."""

    kl_behaviour_target: float
    """KL(mu || pi) = E_mu[-log W], in nats; equals E_mu[L] times the token's. inf as there."""
    kl_target_behaviour: float
    """KL(pi || mu) = E_pi[log W], in nats, at the states of pi; inf where mu cannot generate what the target does."""
    total_variation: float
    """TV = E_mu[max(0, 1 - W)], in [0, 1]; NaN where the exact value takes more moves than allowed."""
    chi_square: float
    """E_mu[W^2] - 1, chi-square of pi from mu; inf where support is lost, or where only `renyi` fits into a float."""
    renyi: float
    """log E_mu[W^2], Renyi divergence of order 2 of pi from mu, in nats; inf where support is lost."""
    effective_sample_size: float
    """1 / E_mu[W^2], as a fraction of the trajectories drawn: in (0, 1], and 0 where support is lost or exp(-renyi)
    underflows."""
    lost_mass: float
    """Probability under pi of the trajectories that mu cannot generate, in [0, 1]."""


@dataclass(frozen=True)
class Divergences:
    """Exact divergences of a target and a behaviour policy in one process."""

    token: TokenDivergences
    sequence: SequenceDivergences
    expected_length: float
    """E_mu[L], in tokens."""


def divergences(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, *, moves: int = 2_000_000
) -> Divergences:
    """KL both ways, total variation, chi-square, Renyi divergence of order 2 and effective sample size, exactly.

    All are linear in T but the sequence's total variation, which depends on the whole law of W. It is propagated over
    cells (state, log W) with equal products merged, and takes few moves only where W takes few values.

    Args:
        process: the process both policies act in.
        target: pi.
        behaviour: mu; it need not have the target's support.
        moves: how many moves (cell, action, next state) the sequence's total variation may take; beyond it that
            field is NaN, and 0 skips it.

    Raises:
        ValueError: a policy's shape is not (S, A) of the process.

    >>> coin = theory.MarkovProcess([1.0], [[[1.0], [1.0]]], [[0.0, 0.0]], horizon=2)
    >>> d = theory.divergences(coin, theory.SoftmaxPolicy([[0.0, 0.0]]), theory.SoftmaxPolicy(np.log([[0.8, 0.2]])))
    >>> round(d.token.kl_behaviour_target, 6), round(d.sequence.kl_behaviour_target, 6)  # 0.8 log 1.6 + 0.2 log 0.4
    (0.192745, 0.38549)
    >>> round(d.sequence.total_variation, 6)  # 0.8^2 - 0.5^2
    0.39
    """
    check_policy(process, target, "target")
    check_policy(process, behaviour, "behaviour")
    visits = _visits(process, behaviour)
    renyi = renyi_divergence(process, target, behaviour, order=2.0)
    with np.errstate(over="ignore"):
        chi_square = float(np.expm1(renyi))
    sequence = SequenceDivergences(
        kl_behaviour_target=_total(visits, statewise_kl(behaviour, target)),
        kl_target_behaviour=_total(_visits(process, target), statewise_kl(target, behaviour)),
        total_variation=_sequence_total_variation(process, target, behaviour, moves),
        chi_square=chi_square,
        renyi=renyi,
        effective_sample_size=float(np.exp(-renyi)),
        lost_mass=lost_mass(process, target, behaviour),
    )
    return Divergences(_token_divergences(visits, target, behaviour), sequence, float(visits.sum()))


def kl_behaviour_target(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, per: str = "token"
) -> float:
    """KL(mu || pi) alone, in nats: `divergences(...).token.kl_behaviour_target`, or `.sequence` with per="sequence".

    KL(mu || pi) of the sequence = E_mu[sum over t < L of KL(mu(.|s_t) || pi(.|s_t))] (chain rule,
    Cover & Thomas 2006, theorem 2.5.3); per token it is divided by E_mu[L], and NaN where that is zero.

    Raises:
        ValueError: a policy's shape is not (S, A) of the process, or `per` is neither "token" nor "sequence".
    """
    check_policy(process, target, "target")
    check_policy(process, behaviour, "behaviour")
    visits, statewise = _visits(process, behaviour), statewise_kl(behaviour, target)
    if checks.known_name("per", per, ("token", "sequence")) == "token":
        return _average(visits, statewise)
    return _total(visits, statewise)


def renyi_divergence(process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, order: float) -> float:
    """Renyi divergence of the trajectory's law under pi from that under mu, in nats.

    D_order(pi || mu) = log E_mu[W^order] / (order - 1), by the backward recursion
    M_t(s) = sum over a of mu(a|s) rho(s,a)^order sum over s' of P(s'|s,a) M_{t+1}(s'), M = 1 where the episode ends,
    kept as log M_t(s) so that no product of T ratios can overflow. Order 1 is its limit, KL(pi || mu)
    (van Erven & Harremoes 2014, definition 2 and theorem 5). From order 1 on it is inf where support is lost.

    Args:
        process: the process both policies act in.
        target: pi.
        behaviour: mu; it need not have the target's support.
        order: at least 0, finite.

    Raises:
        ValueError: a policy's shape is not (S, A) of the process, or the order is negative or not finite.
    """
    check_policy(process, target, "target")
    check_policy(process, behaviour, "behaviour")
    order = checks.non_negative("order", order)
    if order == 1.0:
        return _total(_visits(process, target), statewise_kl(target, behaviour))
    log_ratio, lost = ratios(target, behaviour)[:2]
    log_mu = np.where(behaviour.probabilities > 0.0, behaviour.log_probabilities, -np.inf)
    log_power = np.where(np.isneginf(log_ratio), -np.inf, order * np.where(np.isneginf(log_ratio), 0.0, log_ratio))
    log_weight = np.where(lost, np.inf if order > 1.0 else -np.inf, log_mu + log_power)
    # Dividing by E_mu[1], which is one, removes what rounded transition rows do to both, and gives zero where pi = mu.
    log_moment = _log_expected_product(process, log_weight) - _log_expected_product(process, log_mu)
    return max(0.0, log_moment / (order - 1.0))


def _log_expected_product(process: MarkovProcess, log_weight: Array) -> float:
    """Log of the sum over trajectories of initial(s_0) times the product of weight(s_t, a_t) P(s_{t+1}|s_t, a_t)."""
    edges = process.edges
    log_edge = log_weight[edges.state, edges.action] + np.log(edges.probability)
    possible = log_edge > -np.inf
    log_edge, next_state = log_edge[possible], edges.next_state[possible]
    acting, first = np.unique(edges.state[possible], return_index=True)
    log_moment = np.zeros(process.states)
    stuck = ~process.absorbing  # states without a common action, where no product is left; not where support is lost
    stuck[acting] = False
    for _ in range(process.horizon):
        if acting.size:
            log_moment[acting] = np.logaddexp.reduceat(log_edge + log_moment[next_state], first)
        log_moment[stuck] = -np.inf
    start = process.initial > 0.0
    return float(np.logaddexp.reduce(np.log(process.initial[start]) + log_moment[start]))


def _token_divergences(visits: Array, target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> TokenDivergences:
    total_variation = 0.5 * np.abs(target.probabilities - behaviour.probabilities).sum(axis=1)
    chi_square = _average(visits, _statewise_chi_square(target, behaviour))
    return TokenDivergences(
        kl_behaviour_target=_average(visits, statewise_kl(behaviour, target)),
        kl_target_behaviour=_average(visits, statewise_kl(target, behaviour)),
        total_variation=_average(visits, total_variation),
        maximum_total_variation=float(total_variation[visits > 0.0].max(initial=0.0)) if visits.any() else np.nan,
        chi_square=chi_square,
        renyi=float(np.log1p(chi_square)),
        effective_sample_size=1.0 / (1.0 + chi_square),
    )


def statewise_kl(first: SoftmaxPolicy, second: SoftmaxPolicy) -> Array:
    """KL(first(.|s) || second(.|s)), (S,), in nats.

    Summed as p (e^l - 1 - l) + the mass that p misses, with l = log q - log p: no term is negative, so that
    divergences far below the float spacing of one are still right.
    """
    p, q = first.probabilities, second.probabilities
    l, lost = ratios(second, first)[:2]  # noqa: E741
    near = np.clip(l, -1.0, 1.0)
    term = np.where(np.abs(l) < 1.0, p * (np.expm1(near) - near), q - p - p * l)
    return np.asarray((term + np.where(lost, q, 0.0)).sum(axis=1))


def _statewise_chi_square(target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> Array:
    """Sum over a of mu(a|s) (rho - 1)^2, (S,); inf where support is lost."""
    pi, mu = target.probabilities, behaviour.probabilities
    log_ratio, lost = ratios(target, behaviour)[:2]
    near = np.clip(log_ratio, -1.0, 1.0)
    with np.errstate(over="ignore"):
        far = (pi - mu) * np.expm1(log_ratio)
    term = np.where(np.abs(log_ratio) < 1.0, mu * np.expm1(near) ** 2, far)
    return np.asarray(np.where(lost, np.inf, term).sum(axis=1))


def _visits(process: MarkovProcess, policy: SoftmaxPolicy) -> Array:
    """E[number of tokens in s], (S,)."""
    return np.where(process.absorbing, 0.0, occupancies(process, policy)[:-1].sum(axis=0))


def _total(visits: Array, statewise: Array) -> float:
    """E[sum over t < L of f(s_t)], where an infinite f in a state that is never visited does not count."""
    visited = visits > 0.0
    return float(visits[visited] @ statewise[visited])


def _average(visits: Array, statewise: Array) -> float:
    return _total(visits, statewise) / float(visits.sum()) if visits.any() else np.nan


def lost_mass(process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy) -> float:
    """Probability under pi of the trajectories that mu cannot generate: those with an action that mu never takes."""
    lost = ratios(target, behaviour).lost
    if not lost.any():
        return 0.0
    acting = np.where(process.absorbing[:, None], 0.0, target.probabilities)
    common, lost_now = np.where(lost, 0.0, acting), np.where(lost, acting, 0.0).sum(axis=1)
    ever = np.zeros(process.states)
    for _ in range(process.horizon):
        ever = lost_now + (common * np.asarray(process.transition_matrix @ ever).reshape(common.shape)).sum(axis=1)
    return float(process.initial @ ever)


def _sequence_total_variation(
    process: MarkovProcess, target: SoftmaxPolicy, behaviour: SoftmaxPolicy, moves: int
) -> float:
    """E_mu[max(0, 1 - W)], which counts lost support as well; NaN where it takes more than `moves`."""
    edges = process.edges
    mu = behaviour.probabilities[edges.state, edges.action] * edges.probability
    log_ratio = ratios(target, behaviour).log_ratio[edges.state, edges.action]
    used = mu > 0.0
    mu, log_ratio, next_state = mu[used], log_ratio[used], edges.next_state[used]
    first = np.searchsorted(edges.state[used], np.arange(process.states + 1))
    state = np.flatnonzero((process.initial > 0.0) & ~process.absorbing)
    mass, log_w, result = process.initial[state], np.zeros(state.size), 0.0
    for _ in range(process.horizon):
        successors = first[state + 1] - first[state]
        moves -= int(successors.sum())
        if moves < 0:
            return np.nan
        cell = np.repeat(np.arange(state.size), successors)
        edge = first[state][cell] + np.arange(cell.size) - (np.cumsum(successors) - successors)[cell]
        mass, log_w, state = mass[cell] * mu[edge], log_w[cell] + log_ratio[edge], next_state[edge]
        # W = 0 stays zero whatever follows, and an underflown mass stays zero: neither needs a cell any more.
        ended = process.absorbing[state] | np.isneginf(log_w)
        result += _missed(mass[ended], log_w[ended])
        going = ~ended & (mass > 0.0)
        state, log_w, mass = _merge(state[going], log_w[going], mass[going])
    return result + _missed(mass, log_w)


def _missed(mass: Array, log_w: Array) -> float:
    """Sum of mass times max(0, 1 - W)."""
    return float(mass @ -np.expm1(np.minimum(log_w, 0.0)))


def _merge(state: NDArray[np.int64], log_w: Array, mass: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """Cells of one state with equal products become one."""
    if not state.size:
        return state, log_w, mass
    order = np.lexsort((log_w, state))
    state, log_w, mass = state[order], log_w[order], mass[order]
    apart = np.diff(log_w) > _SAME_PRODUCT * np.maximum(1.0, np.abs(log_w[1:]))
    start = np.flatnonzero(np.concatenate([[True], (np.diff(state) != 0) | apart]))
    return state[start], log_w[start], np.add.reduceat(mass, start)
