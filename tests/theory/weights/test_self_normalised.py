"""Batches of self-normalised ratios: exact moments against every tuple, and a bias that falls as one over the batch."""

import itertools
import math

import numpy as np
import pytest

import theory
from tests import brute_force
from tests.instances import random_instance
from tests.theory.engines.comparing import ask, assert_same_moments
from tests.theory.weights import twins

LEVELS = ("token", "prefix", "sequence")
# Episodes of one or two tokens, or of none.
VARIABLE = random_instance(seed=2, S=2, A=2, T=2)


def every_tuple(process, target, behaviour, weight, signal, batch):
    """(E[g], E|g|^2) of the average over a batch, over every tuple of `batch` trajectories."""
    paths = brute_force.trajectories(process, behaviour)
    mean, second = np.zeros(target.parameter_count), 0.0
    for members in itertools.product(paths, repeat=batch):
        log_ratios = [brute_force.log_ratios(x, target, behaviour) for x in members]
        psi = [brute_force.signals(process, target, behaviour, signal, x) for x in members]
        c = twins.TWINS[weight.name](log_ratios, psi, **weight.options)
        g = np.zeros_like(mean)
        for i, x in enumerate(members):
            for t, (s, a) in enumerate(zip(x.states, x.actions, strict=False)):
                g += c[i][t] * psi[i][t] * target.score[s, a] / batch
        probability = math.prod(x.probability for x in members)
        mean, second = mean + probability * g, second + probability * float(g @ g)
    return mean, second


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cap", [math.inf, 1.1])
def test_exact_moments_are_those_of_every_tuple(level, batch, cap):
    weight = theory.weight("self_normalised", level=level, cap=cap)
    m = ask(VARIABLE, weight, "outcome", "enumeration", reduction=theory.reduction("sum", batch=batch))
    mean, second = every_tuple(*VARIABLE, weight, "outcome", batch)
    assert_same_moments(m, mean, second)
    if batch > 1:  # and the comparison tells weights apart
        other = theory.weight("self_normalised", level=LEVELS[LEVELS.index(level) - 1], cap=cap)
        with pytest.raises(AssertionError):
            assert_same_moments(m, *every_tuple(*VARIABLE, other, "outcome", batch))


# Bias of order 1/N, where the batches of many trajectories can still be visited: one token of three actions.


def one_token():
    process, target, behaviour = random_instance(seed=7, S=1, A=3, T=1, absorbing=False, drift=0.8)
    assert len(brute_force.trajectories(process, behaviour)) == 3
    return process, target, behaviour


def bias(instance, weight, batch):
    m = ask(instance, weight, "outcome", "enumeration", reduction=theory.reduction("sum", batch=batch))
    return m.bias


def first_order(process, target, behaviour):
    """N x bias for large N: with X = W f and Y = W, E[mean X / mean Y] - E[X] is (E[X] Var Y - Cov(X, Y)) / N."""
    paths = brute_force.trajectories(process, behaviour)
    p = np.array([x.probability for x in paths])
    Y = np.array([math.exp(sum(brute_force.log_ratios(x, target, behaviour))) for x in paths])
    f = np.array([brute_force.estimate(process, target, behaviour, "none", "outcome", x) for x in paths])
    X = Y[:, None] * f
    mean = p @ X
    covariance = (p * (Y - 1.0)) @ (X - mean)
    return mean * float(p @ (Y - 1.0) ** 2) - covariance


@pytest.mark.parametrize("level", LEVELS)
def test_the_bias_falls_as_one_over_the_batch(level):
    """With one token per sequence the three levels are one."""
    instance, weight = one_token(), theory.weight("self_normalised", level=level)
    predicted = first_order(*instance)
    sizes = [np.linalg.norm(bias(instance, weight, batch)) for batch in (1, 2, 3)]
    assert sizes[0] > sizes[1] > sizes[2] > 1e-3
    errors = [np.linalg.norm(batch * bias(instance, weight, batch) - predicted) for batch in (15, 30, 60)]
    scale = np.linalg.norm(predicted)
    assert scale > 1e-2
    assert errors[2] < 0.05 * scale
    for coarse, fine in itertools.pairwise(errors):
        assert 1.8 < coarse / fine < 2.2  # what is left is of the next order
    # The control: the prediction of the other sign is far from it.
    assert np.linalg.norm(60 * bias(instance, weight, 60) + predicted) > scale


def test_ratios_that_are_not_normalised_keep_their_bias():
    """Negative control: a truncated ratio is as biased in a large batch, and the plain one in none."""
    instance = one_token()
    for batch in (1, 2, 3, 30):
        cut = bias(instance, theory.weight("truncated", cap=1.1), batch)
        np.testing.assert_allclose(cut, bias(instance, theory.weight("truncated", cap=1.1), 1), rtol=1e-10)
        assert np.linalg.norm(cut) > 1e-2
        assert np.linalg.norm(bias(instance, "sequence", batch)) < 1e-13


def test_with_a_cap_the_limit_is_the_truncated_weight_over_its_mean():
    instance, cap = one_token(), 1.1
    process, target, behaviour = instance
    chance = [
        (x.probability, min(math.exp(sum(brute_force.log_ratios(x, target, behaviour))), cap))
        for x in brute_force.trajectories(process, behaviour)
    ]
    average = sum(p * w for p, w in chance)
    assert average < 0.95
    limit = ask(instance, theory.weight("truncated", cap=cap), "outcome", "enumeration").mean / average
    g = theory.policy_gradient(process, target)
    weight = theory.weight("self_normalised", cap=cap)
    far = [np.linalg.norm(g + bias(instance, weight, batch) - limit) for batch in (15, 30, 60)]
    for coarse, fine in itertools.pairwise(far):
        assert 1.8 < coarse / fine < 2.2
    assert np.linalg.norm(limit - g) > 5 * far[2]


def test_a_batch_of_one_is_not_corrected_at_all():
    for level in ("prefix", "sequence"):
        weight = theory.weight("self_normalised", level=level)
        one = ask(VARIABLE, weight, "outcome", "enumeration")
        none = ask(VARIABLE, "none", "outcome", "enumeration")
        assert_same_moments(one, none.mean, none.variance + none.mean @ none.mean)
