"""Versions mixed within a sequence, against a walk over the process that was given."""

import numpy as np
import pytest

import testbed
import theory
from tests.instances import random_instance
from tests.theory.weights import twins


def mixed(seed=0, switches=(1, 3), features=0, step_rewards=True):
    process, target, behaviour = random_instance(seed, S=3, A=2, T=4, features=features, step_rewards=step_rewards)
    rng = np.random.default_rng(seed + 50)
    versions = [
        theory.SoftmaxPolicy(behaviour.logits + 0.6 * rng.normal(size=behaviour.logits.shape))
        for _ in range(len(switches) + 1)
    ]
    old = theory.SoftmaxPolicy(0.5 * (target.logits + behaviour.logits))
    return process, target, versions, switches, old


def walks(process, policies):
    """(probability, states, actions, rewards) of every trajectory whose step t is drawn by policies[t]."""
    transition = np.asarray(process.transition).reshape(process.states, process.actions, process.states)
    reward = np.broadcast_to(process.reward.reshape(process.states, process.actions, -1), transition.shape)

    def walk(chance, states, actions, rewards):
        s, t = states[-1], len(actions)
        if t == process.horizon or process.absorbing[s]:
            yield chance, states, actions, rewards
            return
        for a in range(process.actions):
            for after in range(process.states):
                p = chance * policies[t].probabilities[s, a] * transition[s, a, after]
                if p > 0.0:
                    yield from walk(p, (*states, after), (*actions, a), (*rewards, float(reward[s, a, after])))

    for s in np.flatnonzero(process.initial):
        yield from walk(float(process.initial[s]), (int(s),), (), ())


def plain_moments(process, target, versions, switches, old, weight):
    """E[g] and E|g|^2 of weight x outcome, by a loop over trajectories."""
    which = [sum(t >= s for s in switches) for t in range(process.horizon)]
    ages = [float(len(versions) - k) for k in which]
    mean, second = np.zeros(target.parameter_count), 0.0
    for chance, states, actions, rewards in walks(process, [versions[k] for k in which]):
        steps = list(zip(range(len(actions)), states, actions, strict=False))
        mu = [versions[which[t]].log_probabilities[s, a] for t, s, a in steps]
        psi = sum(process.discount**t * r for t, r in enumerate(rewards))
        psi += process.discount ** len(actions) * process.terminal_reward[states[-1]]
        logs = [float(target.log_probabilities[s, a] - m) for (_, s, a), m in zip(steps, mu, strict=True)]
        beside = {
            "old_log_ratio": [float(old.log_probabilities[s, a] - m) for (_, s, a), m in zip(steps, mu, strict=True)],
            "lag": [ages[t] for t, _, _ in steps],
        }
        c = twins.coefficients(weight, logs, [psi] * len(logs), beside)
        g = sum((c[t] * psi * target.score[s, a] for t, s, a in steps), np.zeros(target.parameter_count))
        mean, second = mean + chance * g, second + chance * float(g @ g)
    return mean, second


def unrolled(instance):
    process, target, versions, switches, old = instance
    return testbed.mixed_versions(process, target, versions, switches, old=old)


def moments(m, weight, signal="outcome", engine="auto"):
    return theory.moments(
        m.process, m.target, m.behaviour, theory.Estimator(weight, signal), engine, old=m.old, lag=m.lag
    )


WEIGHTS = [
    theory.weight("token"),
    theory.weight("minpro"),
    theory.weight("sequence"),
    theory.weight("decoupled"),
    theory.weight("decoupled", anchor="lag"),
]


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: w.label)
@pytest.mark.parametrize("features", [0, 2])
def test_the_moments_are_those_of_the_walk(weight, features):
    instance = mixed(features=features)
    m = moments(unrolled(instance), weight)
    mean, second = plain_moments(*instance, weight)
    np.testing.assert_allclose(m.mean, mean, rtol=1e-10, atol=1e-12)
    assert m.variance == pytest.approx(second - mean @ mean, rel=1e-10)
    # Negative control: switches one step later are another sampler.
    other, _ = plain_moments(*instance[:3], (2, 3), instance[4], weight)
    assert weight.name == "sequence" or np.abs(m.mean - other).max() > 1e-4


def test_the_gradient_and_the_exact_corrections_stay():
    instance = mixed()
    process, target, *_ = instance
    m = unrolled(instance)
    np.testing.assert_allclose(
        theory.policy_gradient(m.process, m.target), theory.policy_gradient(process, target), rtol=1e-11, atol=1e-14
    )
    assert moments(m, "sequence").relative_bias < 1e-10
    assert moments(m, "prefix", "target_advantage").relative_bias < 1e-10
    assert moments(m, "token", "target_advantage").relative_bias > 1e-2


def test_one_version_is_the_plain_process():
    process, target, versions, _, old = mixed()
    m = testbed.mixed_versions(process, target, versions[:1], [], old=old)
    plain = theory.moments(process, target, versions[0], theory.Estimator("minpro", "outcome"))
    found = moments(m, "minpro")
    np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-10, atol=1e-13)
    assert found.variance == pytest.approx(plain.variance, rel=1e-10)
    assert (m.lag == 1.0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"switches": (3, 1)}, r"switches is \(3, 1\); expected 2 ascending steps within 1\.\.3"),
        ({"switches": (1,)}, r"expected 2 ascending steps"),
        ({"switches": (1, 4)}, r"expected 2 ascending steps within 1\.\.3"),
        ({"switches": (1, np.nan)}, r"expected 2 ascending steps"),
        ({"switches": (True, 2)}, r"expected 2 ascending steps"),
        ({"switches": 1}, r"switches is 1; expected 2 ascending steps"),
        ({"lags": (np.inf, 1.0, 1.0)}, r"expected 3 numbers of at least 0"),
        ({"lags": 3}, r"lags is 3; expected 3 numbers"),
        ({"lags": (1.0,)}, r"lags is \(1\.0,\); expected 3 numbers of at least 0"),
        ({"old": theory.SoftmaxPolicy(np.zeros((2, 2)))}, r"old has logits of shape \(2, 2\); expected \(3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    process, target, versions, switches, old = mixed()
    arguments = {"switches": switches, "old": old} | change
    with pytest.raises(ValueError, match=message):
        testbed.mixed_versions(process, target, versions, **arguments)


def test_policies_that_do_not_fit_are_refused():
    process, target, versions, switches, _ = mixed()
    with pytest.raises(ValueError, match="versions is one policy; expected a list of policies"):
        testbed.mixed_versions(process, target, versions[0], [])
    with pytest.raises(ValueError, match=r"versions\[1\] is of type str; expected a theory\.SoftmaxPolicy"):
        testbed.mixed_versions(process, target, [versions[0], "x"], [1])
    with pytest.raises(ValueError, match=r"expected 0 ascending steps"):
        testbed.mixed_versions(process, target, [], [])
    never = theory.SoftmaxPolicy(np.where(np.eye(3, 2) > 0, -np.inf, 0.0))
    with pytest.raises(ValueError, match="target never takes some actions"):
        testbed.mixed_versions(process, never, versions, switches)
    wide = random_instance(S=20, A=4, T=200, features=2)
    with pytest.raises(ValueError, match=r"would hold .* numbers; expected fewer states"):
        testbed.mixed_versions(*wide[:2], [wide.behaviour], [])
