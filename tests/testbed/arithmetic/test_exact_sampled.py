"""Sampled answers of the network cover the exact moments at the nominal rate."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import grad, jvp, vmap

import theory
from testbed.arithmetic.doors import sample_answers
from testbed.arithmetic.exact import network_moments, network_prompt
from testbed.arithmetic.model import answer_logits, initial_parameters, model_for
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask, all_prompts
from testbed.arithmetic.trees import prefix_states, tree_log_probs
from testbed.arithmetic.verifier import rewards

# torch's own forward-mode rules are still compiled by what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

TASK = ArithmeticTask(digits=1, per_digit_credit=True)
PROMPT = all_prompts(TASK)[[12]]
CONFIG = model_for(TASK, layers=1, width=8, heads=2)
THETA = initial_parameters(CONFIG, 0, torch.float64)
BEHAVIOUR = THETA + 0.1 * torch.randn(THETA.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
DRAWS = 60_000
FALSE_ALARM = 1e-6


def sampled(weight, directions, sampler, seed):
    """<g_hat, d> of each sampled answer for each direction (K, P), (DRAWS, K): weight x outcome x own score."""
    generator = torch.Generator().manual_seed(seed)
    drawn = sample_answers(
        CONFIG, BEHAVIOUR, PROMPT, TASK.maximum_length, per_prompt=DRAWS, sampler=sampler, generator=generator
    )

    def log_probs(theta):
        every = answer_logits(CONFIG, theta, PROMPT, drawn.answers).log_softmax(-1)
        return every.gather(-1, drawn.answers[..., None])[..., 0]

    paid = rewards(TASK, PROMPT, drawn.answers)[:, None].expand(drawn.mask.shape)
    with torch.no_grad():
        log_ratio = torch.where(drawn.mask, log_probs(THETA) - drawn.behaviour_log_probs, 0.0)
        c = weight.coefficients(log_ratio, drawn.mask, paid) * paid
        columns = [(c * jvp(log_probs, (THETA,), (d,))[1]).sum(1) for d in directions]
    return torch.stack(columns, 1).numpy()


@pytest.mark.parametrize("weight", ["token", "minpro", "sequence"])
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(temperature=1.3)], ids=["plain", "tempered"])
def test_sampled_estimates_cover_the_exact_mean_and_spread(weight, sampler):
    """False-alarm rate 1e-6 for each direction: once for the mean, once for the variance along it."""
    prompt = network_prompt(CONFIG, THETA, TASK, PROMPT[0], behaviour_theta=BEHAVIOUR, sampler=sampler)
    estimator = theory.Estimator(weight, "outcome")
    other = theory.Estimator("none" if weight != "none" else "token", "outcome")
    mean, wrong = (network_moments([prompt], e, variance=False).mean for e in (estimator, other))
    # One direction in which the control differs most, and two random ones.
    random = torch.randn((2, len(THETA)), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    directions = torch.cat([torch.from_numpy(wrong - mean)[None], random])
    values = sampled(theory.weight(weight), directions, sampler, seed=5)
    bound = stats.norm.isf(FALSE_ALARM / 2)
    error = values.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    assert (np.abs(values.mean(axis=0) - mean @ directions.T.numpy()) < bound * error).all()
    # Along a direction d the variance is that of the pulled-back covariance: d' J' Cov J d.
    m = theory.moments(prompt.tree.process, prompt.target, prompt.behaviour, estimator, "enumeration", covariance=True)
    _, slopes = jvp(prompt.logits, (THETA,), (directions[1],))
    along = np.zeros(prompt.target.logits.shape)
    along[: prompt.tree.prefixes] = slopes.detach().numpy()
    spread = along.reshape(-1) @ m.covariance @ along.reshape(-1)
    square = (values[:, 1] - mean @ directions[1].numpy()) ** 2
    allowed = bound * square.std(ddof=1) / np.sqrt(DRAWS)
    assert abs(square.mean() - spread) < allowed
    # Negative control: another estimator's mean, and twice the spread.
    assert np.abs(values.mean(axis=0) - wrong @ directions.T.numpy())[0] > bound * error[0]
    assert abs(square.mean() - 2.0 * spread) > allowed


BATCHES, BATCH = 300, 1000
NOMINAL = 0.95
COVERED = [
    (theory.Estimator("minpro", theory.group(4)), Sampler()),
    (theory.Estimator("token", theory.group(4, "leave_one_out", "none")), Sampler(temperature=1.1, top_p=0.95)),
    (theory.Estimator("minpro", "outcome", reduction="length_mean"), Sampler(top_k=6)),
]


def drawn_estimates(estimator, sampler, directions):
    """(BATCHES, BATCH, K) <g_hat, d> of draws of an estimator: by scores along each direction, read from the tree."""
    size = estimator.trajectories_per_draw
    drawn = sample_answers(
        CONFIG, BEHAVIOUR, PROMPT, TASK.maximum_length, per_prompt=BATCHES * BATCH * size, sampler=sampler,
        generator=torch.Generator().manual_seed(9),
    )  # fmt: skip
    states, mask = prefix_states(drawn.answers), drawn.mask
    table = tree_log_probs(CONFIG, THETA, TASK, PROMPT)[0]
    slopes = [jvp(lambda t: tree_log_probs(CONFIG, t, TASK, PROMPT)[0], (THETA,), (d,))[1] for d in directions]
    log_ratio = torch.where(mask, table[states, drawn.answers] - drawn.behaviour_log_probs, 0.0)
    paid = rewards(TASK, PROMPT, drawn.answers)
    if size > 1:
        centred = paid.view(-1, size) - paid.view(-1, size).mean(1, keepdim=True)
        if estimator.signal.centre == "leave_one_out":
            centred = centred * size / (size - 1)
        if estimator.signal.scale == "std":
            centred = centred / (paid.view(-1, size).std(1, keepdim=True) + 1e-6)
        paid = centred.reshape(-1)
    # m_t rho_t, or rho_t.
    ratio, before = log_ratio.exp(), torch.zeros_like(log_ratio)
    if estimator.weight.name == "minpro":
        for t in range(1, log_ratio.shape[1]):
            before[:, t] = log_ratio[:, :t].amin(1)
    tokens = torch.where(mask, before.exp() * ratio * paid[:, None], 0.0)
    if estimator.reduction.name == "length_mean":
        tokens = tokens / mask.sum(1, keepdim=True)
    found = [(tokens * slope[states, drawn.answers]).sum(1).view(-1, size).mean(1) for slope in slopes]
    return torch.stack(found, 1).view(BATCHES, BATCH, -1).numpy()


@pytest.mark.parametrize(("estimator", "sampler"), COVERED, ids=["group", "truncated group", "truncated"])
def test_intervals_of_sampled_estimates_cover_the_exact_mean_at_the_nominal_rate(estimator, sampler):
    """300 intervals of 95 per cent, each of 1,000 draws; at the nominal rate a false alarm in a million directions."""
    prompt = network_prompt(CONFIG, THETA, TASK, PROMPT[0], behaviour_theta=BEHAVIOUR, sampler=sampler)
    other = theory.Estimator("none", estimator.signal, reduction=estimator.reduction)
    mean, wrong = (network_moments([prompt], e, variance=False).mean for e in (estimator, other))
    random = torch.randn((2, len(THETA)), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    directions = torch.cat([torch.from_numpy(wrong - mean)[None], random])
    values = drawn_estimates(estimator, sampler, directions)
    half = stats.norm.isf((1.0 - NOMINAL) / 2) * values.std(axis=1, ddof=1) / np.sqrt(BATCH)
    lowest, highest = stats.binom.ppf([FALSE_ALARM / 2, 1.0 - FALSE_ALARM / 2], BATCHES, NOMINAL)

    def covered(truth):
        return (np.abs(values.mean(axis=1) - truth @ directions.T.numpy()) < half).sum(axis=0)

    assert (lowest <= covered(mean)).all()
    assert (covered(mean) <= highest).all()
    # Negative control: another estimator's mean, and intervals of half the width.
    assert covered(wrong)[0] < lowest
    half = 0.5 * half
    assert (covered(mean) < lowest).all()


def test_squared_norms_of_sampled_gradients_cover_the_exact_one_on_longer_answers():
    """E|g|^2 of answers of up to four tokens, each gradient formed by itself; false-alarm rate 1e-6."""
    task = ArithmeticTask(per_digit_credit=True)
    config, prompt = model_for(task, layers=1, width=8, heads=2), all_prompts(task)[[1234]]
    theta = initial_parameters(config, 0, torch.float64)
    noise = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    behaviour, minpro = theta + 0.1 * noise, theory.weight("minpro", clip=(0.8, 1.28))
    drawn = sample_answers(
        config, behaviour, prompt, task.maximum_length, per_prompt=20_000, generator=torch.Generator().manual_seed(4)
    )
    paid = rewards(task, prompt, drawn.answers)[:, None].expand(drawn.mask.shape)

    def surrogate(theta, answer, weights):
        log_probs = answer_logits(config, theta, prompt, answer[None])[0].log_softmax(-1)
        return (weights * log_probs.gather(1, answer[:, None])[:, 0]).sum()

    with torch.no_grad():
        log_probs = answer_logits(config, theta, prompt, drawn.answers).log_softmax(-1)
        log_pi = log_probs.gather(-1, drawn.answers[..., None])[..., 0]
        log_ratio = torch.where(drawn.mask, log_pi - drawn.behaviour_log_probs, 0.0)
        weights = torch.where(drawn.mask, minpro.coefficients(log_ratio, drawn.mask, paid) * paid, 0.0)
    gradients = vmap(grad(surrogate), in_dims=(None, 0, 0), chunk_size=500)(theta, drawn.answers, weights)
    squares = (gradients**2).sum(1).numpy()
    pair = network_prompt(config, theta, task, prompt[0], behaviour_theta=behaviour)
    exact, other = (network_moments([pair], theory.Estimator(w, "outcome")) for w in (minpro, "none"))
    second, wrong = (m.variance + float(m.mean @ m.mean) for m in (exact, other))
    bound = stats.norm.isf(FALSE_ALARM / 2) * squares.std(ddof=1) / np.sqrt(len(squares))
    assert abs(squares.mean() - second) < bound
    # Negative control: the weight left out.
    assert abs(squares.mean() - wrong) > bound
