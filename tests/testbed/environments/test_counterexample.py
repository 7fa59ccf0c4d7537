"""The two-token counterexample, enumerated by hand: four sequences."""

import math

import numpy as np
import pytest

import testbed
import theory

START, AFTER_0, AFTER_1 = 0, 1, 2


def first_token_means(target, behaviour):
    """E_mu[weight * R * (A_1 - 1/2)]: no weight, the prefix ratio of the first token, the ratio of the sequence."""
    pi, mu = target.probabilities, behaviour.probabilities
    none = prefix = sequence = 0.0
    for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):
        after = (AFTER_0, AFTER_1)[first]
        probability = mu[START, first] * mu[after, second]
        ratios = pi[START, first] / mu[START, first], pi[after, second] / mu[after, second]
        signal = second * (first - 0.5)
        none += probability * signal
        prefix += probability * 1.0 * ratios[0] * signal
        sequence += probability * ratios[0] * ratios[1] * signal
    return none, prefix, sequence


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.4])
def test_prefix_correction_has_the_wrong_sign(eps):
    made = testbed.environment("two_token_counterexample", epsilon=eps)
    none, prefix, sequence = first_token_means(made.target, made.behaviour)
    np.testing.assert_allclose([none, prefix, sequence], [eps / 2, eps / 2, -eps / 2], rtol=1e-10)
    truth = theory.policy_gradient(made.process, made.target).reshape(5, 2)
    np.testing.assert_allclose(truth[START], [eps / 2, -eps / 2], rtol=1e-10)


def test_roles_swapped_swap_the_signs():
    made = testbed.environment("two_token_counterexample")
    none, prefix, sequence = first_token_means(target=made.behaviour, behaviour=made.target)
    np.testing.assert_allclose([none, prefix, sequence], [-0.05, -0.05, 0.05], rtol=1e-10)


def test_first_token_agrees_and_divergence_is_as_published():
    eps = 0.2
    made = testbed.environment("two_token_counterexample", epsilon=eps)
    pi, mu = made.target.probabilities, made.behaviour.probabilities
    np.testing.assert_allclose(pi[START], mu[START], rtol=1e-15)
    np.testing.assert_allclose(mu[AFTER_1], [0.5 - eps, 0.5 + eps], rtol=1e-12)
    np.testing.assert_allclose(mu[AFTER_0], [0.5 + eps, 0.5 - eps], rtol=1e-12)
    kl = sum(0.5 * (pi[s] * np.log(pi[s] / mu[s])).sum() for s in (AFTER_0, AFTER_1))
    np.testing.assert_allclose(kl, 2 * eps * math.log((0.5 + eps) / (0.5 - eps)), rtol=1e-12)
    np.testing.assert_allclose(theory.values(made.process, made.target).expected_return, 0.5, rtol=1e-12)
