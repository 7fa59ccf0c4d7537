"""Lesson 10: a learner's function is measured as brute force measures it, judged for a reason, and removed."""

import math

import numpy as np
import pytest

import testbed
import theory
from testbed import drift
from testbed.lessons import RIVALS, check, score, scratch
from testbed.lessons.lesson_10 import BAR, SETTINGS
from tests import brute_force


def verdict(capsys, name, answer):
    check(name, answer)
    return capsys.readouterr().out


def softened(tokens):
    """rho_t P_t^(1/4)."""
    return tokens.xp.exp(0.25 * tokens.log_prefix + tokens.log_ratio)


def capped(tokens):
    """rho_t min(P_t, 2)."""
    return tokens.ratio * tokens.xp.clip(tokens.xp.exp(tokens.log_prefix), 0.0, 2.0)


def clipped(tokens):
    """min(P_t rho_t, 3), which looks good and leaks."""
    return tokens.xp.clip(tokens.xp.exp(tokens.log_prefix + tokens.log_ratio), 0.0, 3.0)


def brute_errors(function, setting, trajectories=256):
    """Root mean squared error of an average over |g|, by a loop over all trajectories; function: ratios -> weights."""
    name, options, kl = SETTINGS[setting]
    made = testbed.environment(name, **options)
    pair = drift.at("noise", made.process, made.target, kl=kl)
    gradient, mean, second = theory.policy_gradient(made.process, pair.target), 0.0, 0.0
    advantage = theory.values(made.process, pair.target).advantage
    for path in brute_force.trajectories(made.process, pair.behaviour):
        weights = function([math.exp(x) for x in brute_force.log_ratios(path, pair.target, pair.behaviour)])
        estimate = np.zeros(pair.target.probabilities.shape)
        for t, (s, a) in enumerate(zip(path.states, path.actions, strict=False)):
            estimate[s] -= weights[t] * advantage[t, s, a] * pair.target.probabilities[s]
            estimate[s, a] += weights[t] * advantage[t, s, a]
        mean, second = mean + path.probability * estimate.ravel(), second + path.probability * (estimate**2).sum()
    bias = mean - gradient
    return math.sqrt((bias @ bias + (second - mean @ mean) / trajectories) / (gradient @ gradient))


def test_errors_and_score_by_brute_force():
    found = score(softened)

    def loop(ratios):
        return [math.prod(ratios[:t]) ** 0.25 * rho for t, rho in enumerate(ratios)]

    ours = [brute_errors(loop, i) for i in range(len(SETTINGS))]
    assert [found.errors[name]["yours"] for name, _, _ in SETTINGS] == pytest.approx(ours, rel=1e-10)
    token = [brute_errors(lambda ratios: ratios, i) for i in range(len(SETTINGS))]
    assert [found.errors[name]["token"] for name, _, _ in SETTINGS] == pytest.approx(token, rel=1e-10)
    best = min(math.prod(errors[rival] for errors in found.errors.values()) for rival in RIVALS)
    assert found.total == pytest.approx((math.prod(ours) / best) ** (1 / len(SETTINGS)), rel=1e-10)
    assert found.leak < 1e-9
    assert found.on_policy < 1e-9


def test_the_rivals_score_as_themselves():
    totals = [
        score(lambda tokens, name=name: theory.weight(name).coefficients(tokens.log_ratio)).total for name in RIVALS
    ]
    assert min(totals) == pytest.approx(1.0, abs=1e-12)
    assert sorted(totals)[1] > 1.01


def minimum(power):
    """m_t^power rho_t, the lesson's own."""
    return lambda tokens: tokens.xp.exp(power * tokens.log_minimum + tokens.log_ratio)


def test_a_score_below_the_bar_is_right(capsys):
    assert "right" in verdict(capsys, "10.1", lambda tokens: tokens.ratio * tokens.xp.exp(0.12 * tokens.log_prefix))
    assert "its score is" in verdict(capsys, "10.1", softened)
    assert "its score is" in verdict(capsys, "10.1", lambda tokens: tokens.ratio)
    assert "leaks" in verdict(capsys, "10.1", lambda tokens: tokens.ratio**0.5)
    assert "leaks" in verdict(capsys, "10.1", clipped)
    assert "should be 1 there" in verdict(capsys, "10.1", lambda tokens: 1.01 * softened(tokens))


def test_a_score_below_the_bar_is_not_enough(capsys):
    """rho_t^1.05 P_t^0.14 is below it, but leaks."""

    def leaks(tokens):
        return tokens.xp.exp(0.14 * tokens.log_prefix + 1.05 * tokens.log_ratio)

    assert score(leaks).total < BAR
    assert "leaks" in verdict(capsys, "10.1", leaks)


def test_no_power_of_the_minimum_is_below_the_bar():
    """The lesson's own weight does not answer 10.1, at whatever power."""
    totals = [score(minimum(power)).total for power in np.linspace(0.0, 1.0, 41)]
    assert BAR < min(totals) < 0.96


def test_no_leak_and_less_error_is_right(capsys):
    assert "right" in verdict(capsys, "10.2", capped)
    assert "leaks" in verdict(capsys, "10.2", clipped)
    assert "the best rival's is" in verdict(capsys, "10.2", lambda tokens: tokens.ratio)
    prefix = theory.weight("prefix")
    assert "the best rival's is" in verdict(capsys, "10.2", lambda tokens: prefix.coefficients(tokens.log_ratio))
    # Less error and no leak, but not the gradient where mu = pi.
    assert "off by 5.0%" in verdict(capsys, "10.2", lambda tokens: 0.95 * capped(tokens))


@pytest.mark.parametrize("name", ["10.1", "10.2"])
def test_the_exercise_names_every_condition(capsys, name):
    asks = verdict(capsys, name, ...)
    assert "exact where mu = pi" in asks
    assert "leaks no baseline" in asks


def test_best_power_by_a_grid(capsys):
    powers = np.linspace(0.9, 1.4, 51)
    errors = [brute_errors(lambda ratios, p=p: [rho**p for rho in ratios], 1) for p in powers]
    right = powers[int(np.argmin(errors))]
    assert powers[0] < right < powers[-1]
    assert "right" in verdict(capsys, "10.3", right)
    for wrong in (1.0, 0.5, right + 0.05):
        assert "not yet" in verdict(capsys, "10.3", wrong)


NO_WEIGHTS = [
    3.0,
    "token",
    lambda tokens: tokens.ratio[:, :2],
    lambda tokens: tokens.nothing,
    lambda tokens: tokens.ratio * np.nan,
]


@pytest.mark.parametrize("answer", NO_WEIGHTS)
def test_what_is_no_weight_is_not_right(capsys, answer):
    assert "could not be checked" in verdict(capsys, "10.1", answer)
    assert "scratch" not in theory.weight_cards()


def fails_in_scratch():
    with scratch(lambda tokens: tokens.ratio) as weight:
        assert theory.weight("scratch") == weight
        raise ZeroDivisionError


def test_the_scratch_name_is_gone_after_an_error_and_free_before():
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fails_in_scratch()
        assert "scratch" not in theory.weight_cards()


@pytest.mark.parametrize("name", ["10.1", "10.2", "10.3"])
def test_unanswered(capsys, name):
    assert "not answered yet" in verdict(capsys, name, ...)
