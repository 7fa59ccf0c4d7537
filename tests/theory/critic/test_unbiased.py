"""Which methods are unbiased for which critics; each proof's step, left out, must show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from tests.instances import instances, random_instance
from tests.theory.critic.test_moments import WITH_GRADIENT, wrong_tables
from theory.critic import methods
from theory.critic.steps import Setting, conditional_moments
from theory.critic.tables import critic_tables
from theory.engines.trajectories import Walk
from theory.policy import ratios

ALWAYS = ["per_decision", "state_baseline", "action_baseline", "trajectory_baseline", "doubly_robust", "marginal"]
TRACES = ["v_trace", "retrace", "acer"]


def bias(found):
    """Relative to the root mean square of the estimator."""
    size = np.sqrt(found.variance + found.mean @ found.mean)
    return float(np.linalg.norm(found.bias)) / max(float(size), 1e-3)


def wrong(instance, method, seed=0):
    q, dq, _ = wrong_tables(instance, seed)
    gradient = {"critic_gradient": dq} if method in WITH_GRADIENT else {}
    return theory.critic_moments(*instance, method, q, **gradient)


def test_every_card_is_spoken_for():
    assert sorted(ALWAYS + TRACES) == sorted(theory.critic_cards())


@given(instances(), st.sampled_from(ALWAYS), st.integers(0, 5))
def test_control_variates_do_not_bend(instance, method, seed):
    assert bias(wrong(instance, method, seed)) < 1e-12


@given(instances(same_policy=True), st.sampled_from([*TRACES, *ALWAYS]), st.integers(0, 5))
def test_on_policy_every_method_is_unbiased(instance, method, seed):
    assert bias(wrong(instance, method, seed)) < 1e-12


@pytest.mark.parametrize("method", TRACES)
def test_traces_do_not_correct_the_states(method):
    instance = random_instance(1)
    assert bias(theory.critic_moments(*instance, method, "target")) > 1e-3
    if method != "acer":
        assert bias(wrong(instance, method)) > 1e-3
    # One state, and nothing to be truncated: what is left to correct is what they correct.
    one = random_instance(2, S=1, absorbing=False)
    assert bias(theory.critic_moments(*one, method, "target", cap=np.inf)) < 1e-12


@pytest.mark.parametrize("method", TRACES)
def test_traces_that_are_cut_need_exact_values_even_on_policy(method):
    instance = random_instance(1)
    on_policy = instance._replace(behaviour=instance.target)
    q, _, _ = wrong_tables(instance)
    for cut in ({"trace_decay": 0.5}, {"trace_cap": 0.5}):
        assert bias(theory.critic_moments(*on_policy, method, **cut)) < 1e-12
        assert bias(theory.critic_moments(*on_policy, method, q, **cut)) > 1e-3


@pytest.mark.parametrize("method", TRACES)
def test_without_caps_one_step_is_unbiased_for_every_critic(method):
    instance = random_instance(1, T=1)
    q, _, _ = wrong_tables(instance)
    assert bias(theory.critic_moments(*instance, method, q, cap=np.inf)) < 1e-12
    # What the card asks for: no caps and one step.
    assert bias(theory.critic_moments(*instance, method, q, cap=0.5)) > 1e-3
    two = random_instance(1, T=2)
    assert bias(theory.critic_moments(*two, method, wrong_tables(two)[0], cap=np.inf)) > 1e-3


@pytest.mark.parametrize("method", TRACES)
def test_with_exact_values_which_caps_matter(method):
    instance = random_instance(1)
    on_policy = instance._replace(behaviour=instance.target)
    assert bias(theory.critic_moments(*on_policy, method, trace_cap=0.5, trace_decay=0.5)) < 1e-12
    one_step, one_state = random_instance(1, T=1), random_instance(2, S=1, absorbing=False)
    for case in (on_policy, one_step, one_state):
        found = bias(theory.critic_moments(*case, method, cap=0.5, trace_cap=0.5))
        assert found < 1e-12 if method == "acer" else found > 1e-3


def change_steps(monkeypatch, change):
    right = methods.METHODS["doubly_robust"]

    def broken(x):
        for step in right(x):
            yield change(x, step)

    monkeypatch.setitem(methods.METHODS, "doubly_robust", broken)


BROKEN = {
    "later gradients without the ratio": lambda x, step: step._replace(
        gradient_next=np.full_like(step.gradient_next, x.process.discount)
    ),
    "later values without the ratio": lambda x, step: step._replace(
        value_next=np.full_like(step.value_next, x.process.discount)
    ),
    "own value without the ratio": lambda x, step: step._replace(gradient_value=x.process.discount * x.score),
    "no discount": lambda x, step: step._replace(value_next=x.ratio),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_recursion_with_a_piece_missing_is_biased(monkeypatch, broken):
    instance = random_instance(1)

    def found():
        none, exact = (theory.critic_moments(*instance, "doubly_robust", critic) for critic in ("zero", "target"))
        return [m.relative_bias for m in (none, wrong(instance, "doubly_robust"), exact)]

    assert max(found()) < 1e-12
    change_steps(monkeypatch, BROKEN[broken])
    of_none, of_wrong, of_exact = found()
    assert min(of_none, of_wrong) > 1e-3
    # The other half of its name: an exact critic leaves nothing that a wrong ratio could bend.
    assert of_exact < 1e-12


def test_the_state_value_must_be_that_of_the_target():
    # E_mu[q] in the place of E_pi[q]: the control variate has a mean, and its derivative too.
    instance = random_instance(1)
    process, target, behaviour = instance
    walk = Walk(process, behaviour)
    q, _, _ = wrong_tables(instance)

    def mean(mu_value):
        critic = critic_tables(process, target, behaviour, q, True)
        setting = Setting(
            process, target, behaviour, ratios(target, behaviour), critic,
            lambda: iter([None] * process.horizon), walk,
        )  # fmt: skip

        def steps():
            for t, step in zip(
                reversed(range(process.horizon)), methods.METHODS["doubly_robust"](setting), strict=True
            ):
                off = ((behaviour.probabilities - target.probabilities) * q[t]).sum(axis=1)
                yield step._replace(value=step.value + mu_value * off[walk.state])

        return process.initial @ conditional_moments(walk, steps(), target.parameter_count).gradient

    truth = theory.policy_gradient(process, target)
    np.testing.assert_allclose(mean(0.0), truth, rtol=0, atol=1e-12)
    assert np.linalg.norm(mean(1.0) - truth) > 1e-2 * np.linalg.norm(truth)


def test_the_wrong_target_shows():
    process, target, behaviour = random_instance(1)
    found = theory.critic_moments(process, behaviour, target, "doubly_robust")
    truth = theory.policy_gradient(process, target)
    assert np.linalg.norm(found.mean - truth) > 1e-2 * np.linalg.norm(truth)


@pytest.mark.parametrize("method", ["doubly_robust", "marginal"])
def test_an_exact_critic_fills_in_what_mu_cannot_show(method):
    process, target, behaviour = random_instance(2)
    logits = behaviour.logits.copy()
    logits[0, 1] = -np.inf
    truncated = theory.SoftmaxPolicy(logits)
    instance = process, target, truncated
    exact = theory.critic_moments(*instance, method, missing_support="allow")
    assert exact.lost_mass > 0.01
    # Occupancy ratios are short of the trajectories that mu cannot enter, and so is what they weigh: nothing.
    assert bias(exact) < 1e-12
    assert bias(theory.critic_moments(*instance, method, critic_gradient="zero", missing_support="allow")) > 1e-3
    assert bias(theory.critic_moments(*instance, method, "zero", missing_support="allow")) > 1e-3
    with pytest.raises(ValueError, match="expected the target's support"):
        theory.critic_moments(*instance, method)
