"""The recursion where no enumeration reaches: its plain twin, closed forms of long sequences, and its own scale."""

import warnings

import numpy as np
import pytest

import theory
from tests import brute_force
from tests.instances import Instance, random_instance
from tests.theory.engines import plain_recursion
from tests.theory.engines.comparing import ask, assert_same, assert_same_moments
from theory.engines import recursion
from theory.engines.problem import EngineRefusal
from theory.weights.registry import FAMILIES


def made(name):
    return theory.weight("minpro", clip=(0.8, 1.28)) if name == "minpro clipped" else theory.weight(name)


NAMES = list(plain_recursion.forms(1))


def plain_moments(instance, name, signal):
    """By the plain twin: a table of advantages, or one reward at the end."""
    process, target, behaviour = instance
    form = plain_recursion.forms(process.horizon)[name]
    if signal == "outcome":
        return plain_recursion.moments(
            *instance, form, lambda t, s, a: 1.0, lambda s: float(process.terminal_reward[s])
        )
    v = theory.values(process, {"target": target, "behaviour": behaviour}[signal.split("_")[0]])
    return plain_recursion.moments(*instance, form, lambda t, s, a: process.discount**t * float(v.advantage[t, s, a]))


@pytest.mark.parametrize("signal", ["target_advantage", "outcome"])
@pytest.mark.parametrize("name", NAMES)
def test_the_plain_twin_is_brute_force_on_a_short_process(name, signal):
    instance = random_instance(S=3, A=2, T=4, absorbing=False, step_rewards=False, discount=1.0)
    mean, second = plain_moments(instance, name, signal)
    slow_mean, slow_second = brute_force.moments(*instance, made(name), signal)
    np.testing.assert_allclose(mean, slow_mean, rtol=1e-11, atol=1e-14)
    assert second == pytest.approx(slow_second, rel=1e-12)


@pytest.mark.parametrize("horizon", [1, 2, 7, 30])
@pytest.mark.parametrize("signal", ["target_advantage", "behaviour_advantage", "outcome"])
@pytest.mark.parametrize("name", NAMES)
def test_the_recursion_is_its_plain_twin(name, signal, horizon):
    options = {"step_rewards": signal != "outcome", "discount": 1.0 if signal == "outcome" else 0.95}
    instance = random_instance(horizon, S=3, A=2, T=horizon, absorbing=False, drift=0.4, **options)
    mean, second = plain_moments(instance, name, signal)
    assert_same_moments(ask(instance, made(name), signal, "recursion"), mean, second, relative=1e-12)


@pytest.mark.parametrize("signal", ["target_advantage", "outcome"])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "geometric"])
def test_the_recursion_is_its_plain_twin_where_episodes_end_early(name, signal):
    process, target, behaviour = random_instance(2, S=4, A=2, T=12, step_rewards=False, discount=1.0, drift=0.4)
    initial = np.array([0.5, 0.25, 0.25, 0.0])
    process = theory.MarkovProcess(
        initial, process.transition, process.reward, 12, process.terminal_reward, process.absorbing
    )
    instance = Instance(process, target, behaviour)
    mean, second = plain_moments(instance, name, signal)
    assert_same_moments(ask(instance, made(name), signal, "recursion"), mean, second, relative=1e-12)


def test_the_twin_rejects_a_neighbouring_weight():
    """The inclusive minimum, another clip and the token ratio are found to differ."""
    instance = random_instance(7, S=3, A=2, T=7, absorbing=False, drift=0.4)
    mean, second = plain_moments(instance, "minpro", "target_advantage")
    for other in (theory.weight("minpro", inclusive=True), theory.weight("minpro", clip=(0.1, 2.0)), "token"):
        with pytest.raises(AssertionError):
            assert_same_moments(ask(instance, other, "target_advantage", "recursion"), mean, second, relative=1e-4)


# Long sequences: one state, independent tokens, a reward per token


class Bandit:
    """T independent tokens of one state. E is under mu; m = E[rho r z], the gradient of one token's reward."""

    def __init__(self, T, pi, mu, r):
        self.T, self.mu, self.rho, self.r = T, np.array(mu), np.array(pi) / np.array(mu), np.array(r)
        self.instance = Instance(
            theory.MarkovProcess([1.0], np.ones((1, len(r), 1)), self.r[None], T),
            theory.SoftmaxPolicy(np.log(pi)[None]),
            theory.SoftmaxPolicy(np.log(mu)[None]),
        )
        self.z = self.instance.target.score[0]

    def mean(self, weights):
        """E[weights r z], (P,)."""
        return (self.mu * weights * self.r) @ self.z

    def square(self, weights):
        """E[weights r^2 |z|^2]."""
        return float((self.mu * weights * self.r**2) @ (self.z**2).sum(axis=1))

    @property
    def chi2(self):
        return float(self.mu @ self.rho**2) - 1.0


MILD = ([0.6, 0.4], [0.5, 0.5], [1.0, -0.5])
STRONG = ([0.9, 0.1], [0.2, 0.8], [1.0, -0.5])


def prefix_closed_form(bandit):
    """E[P_t^2] = (1 + chi2)^t, and the square is the sum over t of

    (1 + chi2)^t (E[rho^2 r^2 |z|^2] + 2 (T - 1 - t) <E[rho^2 r z], E[rho r z]>).
    """
    growth = (1.0 + bandit.chi2) ** np.arange(bandit.T)
    later = np.arange(bandit.T)[::-1]
    pair = float(bandit.mean(bandit.rho**2) @ bandit.mean(bandit.rho))
    return bandit.T * bandit.mean(bandit.rho), float(growth @ (bandit.square(bandit.rho**2) + 2 * later * pair))


def token_closed_form(bandit):
    """Independent terms."""
    T, one = bandit.T, bandit.mean(bandit.rho)
    return T * one, T * bandit.square(bandit.rho**2) + T * (T - 1) * float(one @ one)


def sequence_closed_form(bandit):
    """E[W^2 ...]: every other token brings 1 + chi2."""
    T, two, growth = bandit.T, bandit.mean(bandit.rho**2), 1.0 + bandit.chi2
    second = T * growth ** (T - 1) * bandit.square(bandit.rho**2)
    return T * bandit.mean(bandit.rho), second + T * (T - 1) * growth ** (T - 2) * float(two @ two)


def geometric_closed_form(bandit):
    """Every other token brings E[rho^(1/T)], or E[rho^(2/T)] in the square."""
    T, root = bandit.T, bandit.rho ** (1.0 / bandit.T)
    once, twice = float(bandit.mu @ root), float(bandit.mu @ root**2)
    second = T * twice ** (T - 1) * bandit.square(root**2)
    second += T * (T - 1) * twice ** (T - 2) * float(bandit.mean(root**2) @ bandit.mean(root**2))
    return T * once ** (T - 1) * bandit.mean(root), second


def v_trace_closed_form(bandit):
    """Like the prefix with min(1, rho) in place of rho: E[trace_t] = once^t, E[trace_t^2] = twice^t."""
    T, cut = bandit.T, np.minimum(1.0, bandit.rho)
    once, twice = float(bandit.mu @ cut), float(bandit.mu @ cut**2)
    mean = bandit.mean(cut) * (once ** np.arange(T)).sum()
    pair = float(bandit.mean(cut**2) @ bandit.mean(cut))
    # Between t and u the trace of u has u - t - 1 factors of its own.
    between = np.array([(once ** np.arange(T - 1 - t)).sum() for t in range(T)])
    return mean, float((twice ** np.arange(T)) @ (bandit.square(cut**2) + 2 * between * pair))


def suffix_closed_form(bandit):
    """The mirror image of the prefix."""
    return prefix_closed_form(bandit)


CLOSED_FORMS = {
    "token": token_closed_form,
    "prefix": prefix_closed_form,
    "suffix": suffix_closed_form,
    "sequence": sequence_closed_form,
    "geometric": geometric_closed_form,
    "v_trace": v_trace_closed_form,
}


@pytest.mark.parametrize("policies", [MILD, STRONG], ids=["mild", "strong"])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_closed_forms_are_brute_force_on_a_short_sequence(name, policies):
    bandit = Bandit(5, *policies)
    mean, second = CLOSED_FORMS[name](bandit)
    slow_mean, slow_second = brute_force.moments(*bandit.instance, name, "reward")
    np.testing.assert_allclose(mean, slow_mean, rtol=1e-11)
    assert second == pytest.approx(slow_second, rel=1e-11)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_two_thousand_tokens_by_closed_form(name):
    """Under mild drift the second moment of the prefix is (1.04)^2000, about 1e34, and float64 holds it with room."""
    bandit = Bandit(2000, *MILD)
    mean, second = CLOSED_FORMS[name](bandit)
    # 2000 steps of rounding, each of about 1e-16.
    assert_same_moments(ask(bandit.instance, name, "reward", "recursion"), mean, second, relative=1e-11)


def test_a_second_moment_beyond_the_comfortable_range_is_rescaled_and_right():
    """(1 + chi2)^2000 of about 1e240: past the size at which the recursion rescales, within float64."""
    bandit = Bandit(2000, [0.5 + 0.28, 0.5 - 0.28], [0.5, 0.5], [1.0, -0.5])
    mean, second = prefix_closed_form(bandit)
    assert 1e200 < second < 1e300
    for name in ("prefix", "suffix"):
        m = ask(bandit.instance, name, "reward", "recursion")
        assert m.variance == pytest.approx(second, rel=1e-10)
    # The mean of the prefix is no larger than the gradient; its digits do not drown in the second moment.
    np.testing.assert_allclose(ask(bandit.instance, "prefix", "reward", "recursion").mean, mean, rtol=1e-10)


@pytest.mark.parametrize("name", ["prefix", "sequence", "suffix"])
def test_a_variance_beyond_float64_is_infinite_and_the_mean_is_still_right(name):
    """(1 + chi2)^2000 with 1 + chi2 = 4.06 is 1e1218; no warning, no NaN."""
    bandit = Bandit(2000, *STRONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = ask(bandit.instance, name, "reward", "recursion")
    assert m.variance == np.inf
    np.testing.assert_allclose(m.mean, bandit.T * bandit.mean(bandit.rho), rtol=1e-9)
    np.testing.assert_allclose(m.gradient, m.mean, rtol=1e-9)
    assert m.mean_squared_error(1000) == np.inf


@pytest.mark.parametrize("name", ["token", "geometric", "v_trace", "minpro"])
def test_bounded_weights_stay_finite_under_strong_drift(name):
    bandit = Bandit(2000, *STRONG)
    m = ask(bandit.instance, name, "reward", "recursion")
    if name in CLOSED_FORMS:
        assert_same_moments(m, *CLOSED_FORMS[name](bandit), relative=1e-10)
    assert np.isfinite(m.variance)
    assert m.variance > 0.0


@pytest.mark.parametrize("clip", [None, (0.8, 1.28)])
def test_two_thousand_tokens_of_minpro(clip):
    """Mean by hand: m_t is the small ratio once it was drawn, the large one before. Both moments by the plain twin."""
    bandit = Bandit(2000, *MILD)
    weight = theory.weight("minpro", clip=clip)
    m = ask(bandit.instance, weight, "reward", "recursion")
    small, large, t = bandit.rho.min(), bandit.rho.max(), np.arange(1, bandit.T)
    never = bandit.mu[bandit.rho.argmax()] ** t
    low, high = clip or (0.0, np.inf)

    def one(minimum):
        return bandit.mean(np.clip(minimum * bandit.rho, low, high))

    by_hand = one(1.0) + one(large) * never.sum() + one(small) * (1.0 - never).sum()
    np.testing.assert_allclose(m.mean, by_hand, rtol=1e-10)
    form = plain_recursion.forms(bandit.T)["minpro" if clip is None else "minpro clipped"]
    twin = plain_recursion.moments(*bandit.instance, form, lambda t, s, a: float(bandit.r[a]))
    assert_same_moments(m, *twin, relative=1e-10)


@pytest.mark.parametrize("signal", ["outcome", "reward_to_go", "target_advantage"])
@pytest.mark.parametrize("name", [*NAMES[:-1]])
def test_rescaling_changes_nothing(name, signal, monkeypatch):
    """With a rescaling at every step, at one step in a few, and at none."""
    instance = random_instance(9, S=3, A=2, T=20, drift=1.0)
    plain = ask(instance, name, signal, "recursion")
    calls = []

    def always(size):
        calls.append(size)
        return float(np.log(size)) if size > 0.0 else 0.0

    monkeypatch.setattr(recursion, "_shift", always)
    assert_same(ask(instance, name, signal, "recursion"), plain, relative=1e-11)
    assert calls
    monkeypatch.setattr(recursion, "_shift", lambda size: 20.0 if size > 3.0 else -20.0 if 0.0 < size < 0.3 else 0.0)
    assert_same(ask(instance, name, signal, "recursion"), plain, relative=1e-11)


def test_a_wrong_scale_would_be_found(monkeypatch):
    """Negative control: a scale that is remembered but not divided by changes the answer."""
    instance = random_instance(9, S=3, A=2, T=20, drift=1.0)
    plain = ask(instance, "prefix", "outcome", "recursion")
    original = recursion._Run._rescaled

    def forgetful(self, m):
        m = original(self, m)
        m.log_scale_second += 1e-3
        return m

    monkeypatch.setattr(recursion._Run, "_rescaled", forgetful)
    with pytest.raises(AssertionError):
        assert_same(ask(instance, "prefix", "outcome", "recursion"), plain, relative=1e-11)


def test_very_small_rewards_and_very_large_ones_scale_the_moments():
    """No threshold of the recursion is hit by the unit in which a reward is counted."""
    process, target, behaviour = random_instance(S=3, A=2, T=6)
    one = ask((process, target, behaviour), "minpro", "outcome", "recursion")
    for unit in (1e-60, 1e60):
        scaled = theory.MarkovProcess(
            process.initial, process.transition, unit * process.reward, 6, unit * process.terminal_reward,
            process.absorbing, process.discount,
        )  # fmt: skip
        m = ask((scaled, target, behaviour), "minpro", "outcome", "recursion")
        np.testing.assert_allclose(m.mean / unit, one.mean, rtol=1e-10, atol=1e-14)
        assert m.variance / unit**2 == pytest.approx(one.variance, rel=1e-10)


# Refusals


def test_a_weight_that_does_not_factorise_is_refused_by_the_recursion():
    for weight in ("gspo", "m2po", theory.weight("truncated", level="sequence")):
        with pytest.raises(EngineRefusal, match=r"does not factorise.*engine='enumeration' or 'sampling' can take it"):
            ask(random_instance(), weight, "target_advantage", "recursion")


def test_a_group_with_rewards_on_the_way_is_refused_by_the_recursion():
    with pytest.raises(EngineRefusal, match=r"too many to be told apart.*engine='enumeration' or 'sampling'"):
        ask(random_instance(T=2), "token", theory.group(2), "recursion")


def test_a_recursion_that_does_not_fit_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(recursion, "MOST_NUMBERS", 10)
    with pytest.raises(EngineRefusal, match=r"numbers at each step.*'sampling' can take it, engine='enumeration'"):
        ask(random_instance(), "token", "outcome", "recursion")


def test_too_many_returns_for_a_weight_that_looks_at_the_sign_are_refused_and_auto_goes_elsewhere():
    instance = random_instance(S=12, A=2, T=8, step_rewards=False, discount=0.9)
    with pytest.raises(EngineRefusal, match=r"distinct returns, the recursion takes 64; engine='enum"):
        ask(instance, "ppo_clip", "outcome", "recursion")
    assert ask(instance, "ppo_clip", "outcome", "auto", trajectories=100).engine == "sampling"


def test_a_tree_that_is_too_large_is_refused_by_enumeration_with_the_needed_size():
    """Counted by the brute force; the absorbing state ends some trajectories early."""
    instance = random_instance(T=3)
    needed = len(brute_force.trajectories(instance.process, instance.behaviour))
    message = rf"enumeration needs {needed} trajectories, the limit is 100; engine='sampling' can take it"
    with pytest.raises(EngineRefusal, match=message):
        ask(instance, "token", "outcome", "enumeration", most_trajectories=100)
    with pytest.raises(EngineRefusal, match=r"enumeration needs over 1e30\d trajectories"):
        ask(random_instance(T=2000), "gspo", "outcome", "enumeration")


# The choice


def test_auto_takes_an_exact_engine_wherever_there_is_one():
    short, long = random_instance(S=3, A=2, T=3), random_instance(S=3, A=2, T=200)
    for instance, weight, signal, expected in [
        (short, "minpro", "outcome", ("recursion", "enumeration")),
        (short, "gspo", "outcome", ("enumeration",)),
        (short, "ppo_clip", "outcome", ("enumeration",)),
        (short, "token", theory.group(2), ("enumeration",)),
        (long, "minpro", "outcome", ("recursion",)),
        (long, "ppo_clip", "target_advantage", ("recursion",)),
        (long, "ppo_clip", "outcome", ("sampling",)),
        (long, "gspo", "target_advantage", ("sampling",)),
        (long, "token", theory.group(2), ("sampling",)),
    ]:
        m = ask(instance, weight, signal, "auto", trajectories=200)
        assert m.engine in expected, (weight, signal)
        assert (m.standard_error is None) == (m.engine != "sampling")


def test_auto_gives_what_the_chosen_engine_gives():
    instance = random_instance(S=3, A=2, T=3)
    for weight in ("minpro", "gspo"):
        auto = ask(instance, weight, "outcome", "auto")
        assert_same(auto, ask(instance, weight, "outcome", auto.engine), relative=0.0)


def test_ratios_beyond_float64_are_refused_or_left_to_the_engine_that_works_in_logs():
    process = theory.MarkovProcess([1.0], np.ones((1, 2, 1)), [[1.0, 0.0]], horizon=2)
    target, behaviour = theory.SoftmaxPolicy([[0.0, -400.0]]), theory.SoftmaxPolicy([[-400.0, 0.0]])
    estimator = theory.Estimator("minpro", "outcome")
    with pytest.raises(ValueError, match="beyond what the recursion multiplies"):
        theory.moments(process, target, behaviour, estimator, "recursion")
    # The product of two such ratios is beyond float64, and said to be; a bounded weight is not.
    with pytest.raises(ValueError, match="coefficient of minpro is beyond float64"):
        theory.moments(process, target, behaviour, estimator)
    clipped = theory.Estimator(theory.weight("minpro", clip=(0.8, 1.28)), "outcome")
    m = theory.moments(process, target, behaviour, clipped)
    assert m.engine == "enumeration"
    assert np.isfinite([*m.mean, m.variance]).all()
    # The control: just inside, the recursion answers.
    inside = [theory.SoftmaxPolicy(0.4 * policy.logits) for policy in (target, behaviour)]
    assert theory.moments(process, *inside, estimator, "recursion").engine == "recursion"


def test_auto_samples_where_an_exact_answer_would_take_minutes():
    rng = np.random.default_rng(0)
    process = theory.MarkovProcess(
        np.eye(5)[0], rng.dirichlet(np.ones(5), (5, 3)), np.zeros((5, 3)), 2000, np.ones(5), np.arange(5) == 4
    )
    target, behaviour = (theory.SoftmaxPolicy(rng.normal(size=(5, 3))) for _ in range(2))
    # The geometric mean needs one pass per length; the token ratio needs one pass.
    slow, fast = theory.Estimator("geometric", "outcome"), theory.Estimator("token", "outcome")
    assert theory.moments(process, target, behaviour, slow, trajectories=100).engine == "sampling"
    assert theory.moments(process, target, behaviour, fast).engine == "recursion"


def test_a_running_minimum_of_negative_keys_is_the_same_minimum():
    """MinPRO with log-ratios as its keys, which are below zero as often as above."""

    def factors(log_ratio, length):
        def own(stat, advantage):
            return np.where(np.isinf(stat), 1.0, np.exp(stat)) * np.exp(log_ratio)[:, :, None]

        return theory.Factors(None, own, key=log_ratio)

    card = theory.Card("by_logs", "MinPRO by log-ratios.", "c_t = m_t rho_t", source="none", defaults="none")
    theory.register(card, factors=factors)(lambda tokens: theory.weight("minpro").coefficients(tokens.log_ratio))
    try:
        process, target, behaviour = random_instance(seed=3, S=3, A=3, T=5)
        by_logs, minpro = (
            theory.moments(process, target, behaviour, theory.Estimator(name, "target_advantage"), engine="recursion")
            for name in ("by_logs", "minpro")
        )
    finally:
        FAMILIES.pop("by_logs")
    np.testing.assert_allclose(by_logs.mean, minpro.mean, rtol=1e-10, atol=1e-13)
    assert by_logs.variance == pytest.approx(minpro.variance, rel=1e-10)
    assert np.abs(minpro.bias).max() > 1e-3
