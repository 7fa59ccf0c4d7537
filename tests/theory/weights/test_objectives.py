"""Weights of methods that are stated as objectives, against autograd of the objective as the paper writes it.

The objectives below know nothing of coefficients: they are written with exponentials, minima and clamps, and PyTorch
differentiates them in the log-probabilities. A mean over a sequence stands in them where the paper has one: the weight
then goes with reduction 'length_mean'.
"""

import numpy as np
import pytest
import torch

import theory

SEEDS = range(5)
COUNT, LENGTH = 12, 9


def batch(seed):
    """Log-probabilities of both policies (N, T), a mask that ends each sequence, and one advantage a sequence."""
    rng = np.random.default_rng(seed)
    log_mu = np.log(rng.uniform(0.05, 0.9, size=(COUNT, LENGTH)))
    log_pi = np.log(np.clip(np.exp(log_mu) * np.exp(rng.normal(scale=0.8, size=log_mu.shape)), None, 0.98))
    mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, size=(COUNT, 1))
    advantage = rng.normal(size=(COUNT, 1)) * np.ones_like(log_mu)
    return tuple(torch.tensor(x, dtype=torch.float64) for x in (log_pi, log_mu, mask, advantage))


def by_token(seed):
    """The same with an advantage for each token."""
    log_pi, log_mu, mask, _ = batch(seed)
    return log_pi, log_mu, mask, torch.tensor(np.random.default_rng(100 + seed).normal(size=mask.shape))


def of_sequences(values, mask):
    """Mean over a sequence's tokens, (N, 1)."""
    return (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)


# Objectives, to be maximised, as (N, T) terms whose sum over the tokens that count is differentiated.


def ppo(log_pi, log_mu, mask, A, low=0.8, high=1.28):
    rho = (log_pi - log_mu).exp()
    return torch.minimum(rho * A, rho.clamp(low, high) * A)


def dual_ppo(log_pi, log_mu, mask, A, dual=1.5):
    clipped = ppo(log_pi, log_mu, mask, A)
    return torch.where(A < 0, torch.maximum(clipped, dual * A), clipped)


def sequence_ppo(log_pi, log_mu, mask, A, low=0.7, high=1.5):
    """One term a sequence, spread over its tokens so that their sum is the term."""
    W = ((log_pi - log_mu) * mask).sum(1, keepdim=True).exp()
    return torch.minimum(W * A, W.clamp(low, high) * A) / mask.sum(1, keepdim=True) * torch.ones_like(A)


def cispo_masked(log_pi, log_mu, mask, A, low=0.6, high=1.4):
    """M sg[clip(rho)] A log pi, M the mask of MiniMax-M1's unified form."""
    rho = (log_pi - log_mu).exp().detach()
    lost = ((A > 0) & (rho > high)) | ((A < 0) & (rho < low))
    return torch.where(lost, 0.0, 1.0) * rho.clamp(low, high) * A * log_pi


def opsm(log_pi, log_mu, mask, A, delta=0.1):
    """M rho A, M = 0 where A < 0 and the mean of log(mu / pi) over the sequence is above delta."""
    far = of_sequences(log_mu - log_pi.detach(), mask) > delta
    return torch.where((A < 0) & far, 0.0, 1.0) * (log_pi - log_mu).exp() * A


def sapo(log_pi, log_mu, mask, A):
    rho = (log_pi - log_mu).exp()
    tau = 1.0 + 0.05 * (A <= 0).double()
    return 4 / tau * torch.sigmoid(tau * (rho - 1)) * A


def aspo(log_pi, log_mu, mask, A, low=0.8, high=1.2, cap=1.7, dual=1.5):
    """One value per sign; where a bound of the weight holds, a constant times A log pi is what is differentiated."""
    rho = (log_pi - log_mu).exp()
    from_below = rho.clamp(min=low)
    negative = torch.where(from_below > dual, dual * log_pi, from_below) * A
    from_above = rho.clamp(max=high)
    flipped = from_above / from_above.detach() ** 2
    positive = torch.where(1 / from_above > cap, cap * log_pi, flipped) * A
    return torch.where(A < 0, negative, positive)


def drpo(log_pi, log_mu, mask, A, epsilon=0.6):
    rho, mu = (log_pi - log_mu).exp(), log_mu.exp()
    return rho * A - A.abs() * mu * (rho - 1) ** 2 / (2 * epsilon)


def dppo(log_pi, log_mu, mask, A, delta=0.15):
    """M_t rho_t A with a constant mask."""
    rho = (log_pi - log_mu).exp()
    far = (log_pi.exp() - log_mu.exp()).abs().detach() > delta
    outward = ((A > 0) & (rho > 1)) | ((A < 0) & (rho < 1))
    return torch.where(far & outward, 0.0, 1.0) * rho * A


def dppo_kl(log_pi, log_mu, mask, A, delta=0.05):
    rho, pi, mu = (log_pi - log_mu).exp(), log_pi.exp().detach(), log_mu.exp()
    far = mu * (mu / pi).log() + (1 - mu) * ((1 - mu) / (1 - pi)).log() > delta
    outward = ((A > 0) & (rho > 1)) | ((A < 0) & (rho < 1))
    return torch.where(far & outward, 0.0, 1.0) * rho * A


def gspo(log_pi, log_mu, mask, A, low=0.9, high=1.1):
    """min(s A, clip(s) A), once a sequence: as a mean over its tokens of the same number."""
    s = of_sequences(log_pi - log_mu, mask).exp()
    return torch.minimum(s * A, s.clamp(low, high) * A) / mask.sum(1, keepdim=True)


def gspo_token(log_pi, log_mu, mask, A, low=0.9, high=1.1):
    """s_t = sg[s] pi / sg[pi], and the mean over tokens of min(s_t A_t, clip(s_t) A_t)."""
    s = of_sequences(log_pi - log_mu, mask).exp().detach() * (log_pi - log_pi.detach()).exp()
    return torch.minimum(s * A, s.clamp(low, high) * A) / mask.sum(1, keepdim=True)


def gmpo(log_pi, log_mu, mask, A, low=-0.4, high=0.4):
    """A (product of r)^(1/L), r the smaller of rho^sign and its clip, as the paper's |min|: in logs."""
    log_rho, sign = log_pi - log_mu, A.sign()
    smaller = sign * torch.minimum(sign * log_rho, sign * log_rho.clamp(low, high))
    return of_sequences(smaller, mask).exp() * A / mask.sum(1, keepdim=True)


def vespo(log_pi, log_mu, mask, A):
    """sg[phi(W)] A log pi."""
    W = ((log_pi - log_mu) * mask).sum(1, keepdim=True).exp().detach()
    k, decay = 2.0 + (A < 0).double(), 3.0 - (A < 0).double()
    return decay.exp() * W**k * (-decay * W).exp() * A * log_pi


def pspo(log_pi, log_mu, mask, A, alpha=0.1):
    """The smoothed ratio, differentiated through."""
    return ((1 - alpha) * (log_pi - log_mu).exp() + alpha) * A


LOG_PI = {"log_probability": lambda log_pi: log_pi}
CASES = {
    "ppo": (ppo, theory.weight("ppo_clip", clip=(0.8, 1.28)), "sum", by_token),
    "sequence ppo": (
        sequence_ppo,
        theory.weight("ppo_clip", clip=(0.7, 1.5), level="sequence"),
        "sum",
        batch,
    ),
    "dual clip": (dual_ppo, theory.weight("ppo_clip", clip=(0.8, 1.28), dual=1.5), "sum", by_token),
    "cispo with its mask": (cispo_masked, theory.weight("cispo", clip=(0.6, 1.4), mask=True), "sum", by_token),
    "opsm": (opsm, theory.weight("off_policy_sequence_mask", threshold=0.1), "sum", batch),
    "sapo": (sapo, theory.weight("sapo"), "sum", by_token),
    "aspo": (aspo, theory.weight("aspo", cap=1.7, dual=1.5), "sum", by_token),
    "drpo": (drpo, theory.weight("drpo", epsilon=0.6), "sum", by_token),
    "dppo": (dppo, theory.weight("dppo"), "sum", by_token),
    "dppo, binary KL": (dppo_kl, theory.weight("dppo", divergence="binary_kl"), "sum", by_token),
    "gspo": (gspo, theory.weight("gspo", clip=(0.9, 1.1)), "length_mean", batch),
    "gspo-token": (gspo_token, theory.weight("gspo", clip=(0.9, 1.1)), "length_mean", by_token),
    "gmpo": (gmpo, theory.weight("gmpo"), "length_mean", batch),
    "vespo": (vespo, theory.weight("vespo"), "sum", batch),
}


def gradient(objective, log_pi, log_mu, mask, advantage):
    """Of the sum of the tokens that count, in the log-probabilities."""
    log_pi = log_pi.clone().requires_grad_()
    (objective(log_pi, log_mu, mask, advantage) * mask).sum().backward()
    return log_pi.grad


def ours(weight, reduction, log_pi, log_mu, mask, advantage):
    given = {name: LOG_PI[name](log_pi) for name in weight.needs}
    c = weight.coefficients(log_pi - log_mu, mask, advantage, **given)
    return c * advantage * mask / (mask.sum(1, keepdim=True) if reduction == "length_mean" else 1)


def distance(objective, weight, reduction, data):
    expected = gradient(objective, *data)
    return float((ours(weight, reduction, *data) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_weight_is_the_gradient_of_the_objective(name, seed):
    objective, weight, reduction, data = CASES[name]
    assert distance(objective, weight, reduction, data(seed)) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_of_no_other_objective(name):
    """Negative control: each weight misses the gradient of all objectives but its own."""
    _, weight, reduction, data = CASES[name]
    for other, (objective, *_) in CASES.items():
        if other != name and {name, other} != {"gspo", "gspo-token"}:
            assert max(distance(objective, weight, reduction, data(seed)) for seed in SEEDS) > 1e-2, other


def test_gspo_with_an_advantage_per_token_is_gspo_token_and_not_gspo():
    """The paper's remark that the two agree: only where a sequence has one advantage."""
    _, weight, reduction, _ = CASES["gspo"]
    assert max(distance(gspo_token, weight, reduction, batch(seed)) for seed in SEEDS) < 1e-12
    assert max(distance(gspo, weight, reduction, by_token(seed)) for seed in SEEDS) > 1e-2


def test_without_the_length_it_is_another_gradient():
    """Where the 1/L goes: the coefficients of gspo and gmpo do not hold it."""
    for name in ("gspo", "gmpo"):
        objective, weight, _, data = CASES[name]
        assert max(distance(objective, weight, "sum", data(seed)) for seed in SEEDS) > 1e-2


def test_pspos_own_gradient_is_the_token_ratio_times_a_constant():
    """What the card of `mixed_ratio` says of it."""
    for seed in SEEDS:
        data = by_token(seed)
        expected = 0.9 * ours(theory.weight("token"), "sum", *data)
        torch.testing.assert_close(gradient(pspo, *data), expected, rtol=1e-12, atol=1e-14)
        assert distance(pspo, theory.weight("mixed_ratio"), "sum", data) > 1e-2


def test_every_bound_of_the_objectives_binds_somewhere():
    """Otherwise the comparisons would not see it."""
    for name, (_, weight, _, data) in CASES.items():
        c, plain = [], []
        for seed in SEEDS:
            log_pi, log_mu, mask, advantage = data(seed)
            given = {need: LOG_PI[need](log_pi) for need in weight.needs}
            c.append(weight.coefficients(log_pi - log_mu, mask, advantage, **given)[mask > 0])
            plain.append((log_pi - log_mu).exp()[mask > 0])
        c, plain = torch.cat(c), torch.cat(plain)
        if name in (
            "ppo",
            "cispo with its mask",
            "opsm",
            "dual clip",
            "aspo",
            "dppo",
            "dppo, binary KL",
            "gspo",
            "gspo-token",
            "gmpo",
        ):
            assert 0.05 < float((c == 0).double().mean()) < 0.95
        if name == "aspo":
            assert bool((c == 1.7).any())
            assert bool((c == 1.5).any())
        if name == "dual clip":
            without = theory.weight("ppo_clip", clip=(0.8, 1.28))
            _, _, mask, advantage = data(0)
            assert not torch.equal(ours(without, "sum", *data(0)), ours(weight, "sum", *data(0)))
        assert not torch.allclose(c, plain)
