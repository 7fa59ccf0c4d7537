"""Objectives as their papers state them, differentiated: the gradient in the token log-probabilities is c_t A_t."""

import math

import numpy as np
import pytest
import torch

import theory

SHAPE = (6, 9)


class Batch:
    """Log-probabilities of three policies, advantages of sequences, lengths that differ."""

    def __init__(self, seed=0, scale=0.3):
        rng = np.random.default_rng(seed)

        def numbers(size):
            return torch.tensor(rng.normal(size=size))

        self.logp = (scale * numbers(SHAPE) - 1.0).requires_grad_()
        self.old = self.logp.detach() + 0.5 * scale * numbers(SHAPE)
        self.rollout = self.old + scale * numbers(SHAPE)
        self.A = numbers((SHAPE[0], 1)) + torch.zeros(SHAPE)
        self.mask = torch.arange(SHAPE[1]) < torch.tensor(rng.integers(1, SHAPE[1] + 1, size=(SHAPE[0], 1)))
        self.t = torch.arange(1, SHAPE[1] + 1, dtype=torch.float64)
        self.distance = torch.tensor(rng.uniform(0.0, 0.3, size=SHAPE))
        self.lag = torch.tensor(rng.integers(0, 5, size=SHAPE), dtype=torch.float64)

    def gradient(self, terms):
        """Of the sum of an objective's terms over the tokens that count."""
        (found,) = torch.autograd.grad(torch.where(self.mask, terms, torch.zeros_like(terms)).sum(), self.logp)
        return found

    def ours(self, weight, **given):
        return weight.coefficients(self.logp - self.rollout, self.mask, self.A, **given) * self.A

    def assert_same(self, weight, terms, **given):
        """The check, on a gradient that is not all zero."""
        theirs, ours = self.gradient(terms), self.ours(weight, **given)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
        assert (theirs.abs() > 1e-3).sum() > 5

    def assert_other(self, weight, terms, **given):
        assert (self.gradient(terms) - self.ours(weight, **given)).abs().max() > 1e-3


def ppo(ratio, A, low, high, dual=None):
    kept = torch.minimum(ratio * A, torch.minimum(torch.maximum(ratio, low), high) * A)
    return kept if dual is None else torch.where(A < 0, torch.maximum(kept, dual * A), kept)


def ctpo_objective(b, low, high, power, dual, cap, normalised):
    log_ratio = torch.clamp(b.logp - b.rollout, -20.0, 20.0)
    total = torch.cumsum(log_ratio, dim=1) / (b.t if normalised else 1.0)
    log_weight = total.detach() + b.logp - b.logp.detach()
    ratio = torch.exp(torch.clamp(log_weight, max=math.log(cap)))
    width = b.t**power + torch.zeros(SHAPE)
    return ppo(ratio, b.A, torch.exp(-low * width), torch.exp(high * width), torch.exp(dual * width))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("normalised", [False, True])
def test_ctpo(seed, normalised):
    b = Batch(seed)
    for low, high, power, dual, cap in [(0.025, 0.05, 0.5, 0.05, math.exp(10)), (0.3, 0.5, 0.2, 0.9, 1.7)]:
        options = {"epsilon_low": low, "epsilon_high": high, "power": power, "epsilon_dual": dual, "cap": cap}
        weight = theory.weight("ctpo", normalised=normalised, **options)
        terms = ctpo_objective(b, low, high, power, dual, cap, normalised)
        np.testing.assert_allclose(b.ours(weight), b.gradient(terms), rtol=0, atol=1e-12)
    b.assert_same(weight, ctpo_objective(b, low, high, power, dual, cap, normalised))
    b.assert_other(weight, ctpo_objective(b, low, high, power, dual, cap, not normalised))
    b.assert_other(weight, ctpo_objective(b, low, high, -2.0, dual, cap, normalised))


def test_the_defaults_of_ctpo_bind():
    b = Batch(0, scale=0.03)
    terms = ctpo_objective(b, 0.025, 0.05, 0.5, 0.05, math.exp(10), False)
    b.assert_same(theory.weight("ctpo"), terms)
    b.assert_other(theory.weight("prefix"), ctpo_objective(b, 0.025, 0.05, 0.5, 0.05, math.exp(10), False))


def test_the_gradient_of_ctpo_is_not_that_of_the_whole_cumulative_ratio():
    """Through all tokens up to t it would be the cumulative score's: another estimator."""
    b = Batch(1)
    whole = torch.exp(torch.cumsum(b.logp - b.rollout, dim=1)) * b.A
    b.assert_other(theory.weight("ctpo", epsilon_low=99.0, epsilon_high=99.0, epsilon_dual=None), whole)


def pnpo_objective(b, low, high):
    length = b.mask.sum(dim=1, keepdim=True)
    mean = torch.exp(torch.cumsum(b.logp - b.rollout, dim=1) / b.t)
    h = torch.sqrt(length / b.t)
    gate = (1 - low * h <= mean) & (mean <= 1 + high * h)
    return (gate * mean * b.A).detach() * b.logp


@pytest.mark.parametrize("seed", range(4))
def test_pnpo(seed):
    b = Batch(seed)
    weight = theory.weight("pnpo", epsilon_low=0.1, epsilon_high=0.15)
    b.assert_same(weight, pnpo_objective(b, 0.1, 0.15))
    b.assert_other(weight, pnpo_objective(b, 0.15, 0.05))
    b.assert_other(theory.weight("pnpo", gate=False), pnpo_objective(b, 0.1, 0.15))
    # At the paper's width the policies must be close for anything to be kept.
    close = Batch(seed, scale=0.002)
    close.assert_same(theory.weight("pnpo"), pnpo_objective(close, 7e-4, 9.5e-4))


def cppo_objective(b, delta=0.15, w_min=0.8, least=0.02, soft=False):
    """E_mu[sum of M_t rho_t A], rho differentiated and M not."""
    ratio, mask = torch.exp(b.logp - b.rollout), torch.zeros(SHAPE, dtype=torch.float64)
    for n, length in enumerate(b.mask.sum(dim=1).tolist()):
        D = b.distance[n, :length]
        budget = float(torch.clamp(torch.quantile(D, 0.9), least, 2 * least))
        for t in range(1, length + 1):
            w = [1 - (1 - w_min) * (j - 1) / max(length - 1, 1) for j in range(1, t + 1)]
            S, W = sum(x * float(d) for x, d in zip(w, D, strict=False)), sum(w[:-1])
            x = max(w[-1] * float(D[t - 1]) / delta, S / (delta + budget * W))
            inside = min(1.0, 1.0 / x) if soft else float(x <= 1.0)
            mask[n, t - 1] = 1.0 if b.A[n, 0] * (ratio[n, t - 1].item() - 1) <= 0 else inside
    return mask * ratio * b.A


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("soft", [False, True])
def test_cppo(seed, soft):
    b = Batch(seed)
    given = {"total_variation": b.distance}
    b.assert_same(theory.weight("cppo", soft=soft), cppo_objective(b, soft=soft), **given)
    b.assert_other(theory.weight("cppo", soft=soft), cppo_objective(b, soft=not soft), **given)
    b.assert_other(theory.weight("token"), cppo_objective(b, soft=soft))


def decoupled_objective(b, old, behaviour, low=0.8, high=1.2):
    """sg[behaviour weight of pi_old / mu] x PPO's clipped term of pi / pi_old."""
    ratio = torch.exp(b.logp - old)
    one = torch.ones(SHAPE, dtype=torch.float64)
    return behaviour(old - b.rollout).detach() * ppo(ratio, b.A, low * one, high * one)


BEHAVIOURS = {
    "token": (theory.weight("token"), torch.exp),
    "AReaL": (theory.weight("masked", interval=(0.0, 1.3)), lambda x: torch.exp(x) * (torch.exp(x) <= 1.3)),
    "verl, token": (theory.weight("truncated", cap=1.2), lambda x: torch.exp(x).clamp(max=1.2)),
    "reinforce_pro": (
        theory.weight("prefix_mask", interval=(0.75, 1.25)),
        lambda x: torch.exp(x) * ((torch.exp(x.cumsum(1) / torch.arange(1, 10)) - 1).abs() <= 0.25),
    ),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_decoupled_ppo(seed, name):
    b = Batch(seed)
    behaviour, function = BEHAVIOURS[name]
    weight = theory.weight("decoupled", behaviour=behaviour)
    given = {"old_log_ratio": b.old - b.rollout}
    b.assert_same(weight, decoupled_objective(b, b.old, function), **given)
    b.assert_other(weight, decoupled_objective(b, b.rollout, function), **given)
    b.assert_other(theory.weight("ppo_clip"), decoupled_objective(b, b.old, function))


@pytest.mark.parametrize("seed", range(4))
def test_an_interpolated_anchor_is_a_constant(seed):
    """A-3PO: log pi_old = log mu + alpha (log pi - log mu), without a gradient."""
    b = Batch(seed, scale=0.5)
    alpha = 1.0 - 1.0 / torch.clamp(b.lag, min=1.0)
    for anchor, share, given in ((0.3, 0.3, {}), ("lag", alpha, {"lag": b.lag})):
        old = (b.rollout + share * (b.logp - b.rollout)).detach()
        b.assert_same(theory.weight("decoupled", anchor=anchor), decoupled_objective(b, old, torch.exp), **given)
        b.assert_other(theory.weight("decoupled", anchor=0.9), decoupled_objective(b, old, torch.exp))
