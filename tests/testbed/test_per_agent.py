"""What each of two agents learns from the other's old tokens: joint ratios, own ratios, and whose drift matters."""

import itertools

import numpy as np
import pytest

import testbed
import theory
from testbed import drift
from tests import brute_force
from tests.instances import random_instance
from tests.theory.weights import twins

# Bias, relative to the size of the gradient, below which it is rounding and above which it is there.
EXACT, THERE = 1e-12, 1e-2
DRIFTS = {"neither": (0.0, 0.0), "speaker": (0.05, 0.0), "listener": (0.0, 0.05), "both": (0.05, 0.05)}


@pytest.fixture(scope="module")
def game():
    return testbed.environment("two_agents", rounds=3)


# What every kind can reach: the speaker is nearly indifferent, so that a temperature hardly moves it.
LITTLE = (0.001, 0.02)


def pair_of(game, who, kind="noise"):
    kl = DRIFTS[who] if kind == "noise" else LITTLE
    return testbed.drift_agents(kind, game.process, game.target, game.acting, kl)


def ask(game, pair, weight, signal="target_advantage", ratios="joint"):
    estimator = theory.Estimator(weight, signal)
    return testbed.agent_moments(game.process, *pair, estimator, game.acting, ratios=ratios)


def biases(moments):
    return [m.relative_bias for m in moments.agents]


def gradient_of(game, policy, agent):
    """The gradient of J in one agent's logits, zero in the other's: from the whole gradient."""
    g = theory.policy_gradient(game.process, policy).reshape(policy.logits.shape)
    return np.where((game.acting == agent)[:, None], g, 0.0).reshape(-1)


def plain(instance, acting, weight, signal, ratios, agent):
    """(E[g_i], E|g_i|^2) of one agent's tokens, by visiting every trajectory."""
    process, target, behaviour = instance
    mean, second = np.zeros(target.parameter_count), 0.0
    for x in brute_force.trajectories(process, behaviour):
        psi = brute_force.signals(*instance, signal, x)
        log_ratio = brute_force.log_ratios(x, target, behaviour)
        own = [t for t in range(x.length) if acting[x.states[t]] == agent]
        seen = own if ratios == "own" else range(x.length)
        c = twins.coefficients(theory.weight(weight), [log_ratio[t] for t in seen], [psi[t] for t in seen])
        c = dict(zip(seen, c, strict=True))
        g = sum((c[t] * psi[t] * target.score[x.states[t], x.actions[t]] for t in own), np.zeros(mean.size))
        mean, second = mean + x.probability * g, second + x.probability * float(g @ g)
    return mean, second


# The calculation


@pytest.mark.parametrize("weight", ["none", "token", "prefix", "sequence", "minpro", "geometric", "ppo_clip", "gspo"])
@pytest.mark.parametrize("ratios", ["joint", "own"])
@pytest.mark.parametrize("signal", ["target_advantage", "outcome"])
def test_against_every_trajectory(weight, ratios, signal):
    instance = random_instance(seed=4, S=3, A=2, T=3)
    acting = np.array([1, 0, 1])
    found = testbed.agent_moments(*instance, theory.Estimator(weight, signal), acting, ratios=ratios)
    for i, m in enumerate(found.agents):
        mean, second = plain(instance, acting, weight, signal, ratios, i)
        np.testing.assert_allclose(m.mean, mean, rtol=0, atol=1e-12)
        assert m.variance == pytest.approx(second - mean @ mean, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("weight", ["prefix", "minpro", "gspo"])
def test_joint_ratios_are_the_estimator_itself(weight):
    """Also with shared features, where agents have no parameters of their own and their contributions overlap."""
    for features in (0, 5):
        instance = random_instance(seed=1, S=3, A=2, T=4, step_rewards=False, features=features)
        estimator = theory.Estimator(weight, "reward_to_go")
        found = testbed.agent_moments(*instance, estimator, [0, 1, 2])
        m = theory.moments(*instance, estimator, "enumeration")
        np.testing.assert_allclose(found.joint.mean, m.mean, rtol=1e-10, atol=1e-13)
        assert found.joint.variance == pytest.approx(m.variance, rel=1e-10)
        np.testing.assert_allclose(sum(a.mean for a in found.agents), m.mean, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(sum(a.gradient for a in found.agents), m.gradient, rtol=1e-10, atol=1e-13)
        # Without common parameters the parts are orthogonal, and variances add up; with common ones they do not.
        added = sum(a.variance for a in found.agents)
        assert (added == pytest.approx(m.variance, rel=1e-10)) == (features == 0)


def test_gradients_are_those_of_the_agents_own_logits(game):
    for i, g in enumerate(testbed.agent_gradients(game.process, game.target, game.acting)):
        np.testing.assert_allclose(g, gradient_of(game, game.target, i), rtol=0, atol=1e-15)
        assert np.linalg.norm(g) > 1e-3
        # By differences of the return: the largest of its components.
        at = int(np.abs(g).argmax())
        assert game.acting[at // game.process.actions] == i
        up, down = (
            theory.values(game.process, game.target.with_parameters(game.target.parameters + h * np.eye(g.size)[at]))
            for h in (1e-5, -1e-5)
        )
        assert (up.expected_return - down.expected_return) / 2e-5 == pytest.approx(g[at], rel=1e-7)


# Whose drift matters


@pytest.mark.parametrize("who", DRIFTS)
def test_joint_ratios_are_unbiased_for_every_agent(game, who):
    pair = pair_of(game, who)
    assert max(biases(ask(game, pair, "prefix"))) < EXACT
    assert max(biases(ask(game, pair, "sequence", "outcome"))) < 1e2 * EXACT
    # The control: no other weight is, where anybody drifts.
    assert (min(biases(ask(game, pair, "minpro"))) > THERE) == (who != "neither")


def test_an_agents_own_prefix_is_exact_if_the_others_have_not_drifted(game):
    """Its own drift is corrected; the drift of the other is not, and biases the one that did not drift."""
    for who, speaker, listener in [
        ("neither", True, True),
        ("speaker", True, False),
        ("listener", False, True),
        ("both", False, False),
    ]:
        found = biases(ask(game, pair_of(game, who), "prefix", ratios="own"))
        for bias, exact in zip(found, (speaker, listener), strict=True):
            assert bias < EXACT if exact else bias > THERE


@pytest.mark.parametrize("kind", ["noise", "staleness", "temperature"])
def test_own_prefix_ratios_take_the_expectation_with_the_others_behaviour(game, kind):
    """sum over t of E[A^pi_t z_t], tokens of agent i, under (pi_i, mu_-i): the formula, from occupancies."""
    pair = target, behaviour = pair_of(game, "both", kind)
    advantage = theory.values(game.process, target).advantage
    for i, m in enumerate(ask(game, pair, "prefix", ratios="own").agents):
        mixed = testbed.joint_policy([target if j == i else behaviour for j in range(2)], game.acting)
        occupancy = theory.values(game.process, mixed).occupancy[:-1] * (game.acting == i)
        expected = target.combine_scores(np.einsum("ts,sa,tsa->sa", occupancy, target.probabilities, advantage))
        np.testing.assert_allclose(m.mean, expected, rtol=0, atol=1e-14)
        assert np.abs(m.mean - m.gradient).max() > 1e-4


def test_own_sequence_ratios_are_the_gradient_with_the_others_old_policies(game):
    """The gradient of J(pi_i, mu_-i) in pi_i, which is not a part of the gradient of J(pi)."""
    pair = target, behaviour = pair_of(game, "both")
    for i, m in enumerate(ask(game, pair, "sequence", "outcome", ratios="own").agents):
        mixed = testbed.joint_policy([target if j == i else behaviour for j in range(2)], game.acting)
        np.testing.assert_allclose(m.mean, gradient_of(game, mixed, i), rtol=0, atol=1e-14)
        assert m.relative_bias > THERE
        # The control: both at mu, or both at pi.
        for policy in (target, behaviour):
            assert np.abs(m.mean - gradient_of(game, policy, i)).max() > 1e-4


def test_one_round_by_hand():
    """One round: the listener's gradient at the token heard, a, is off by the factor mu(a) / pi(a) of the speaker."""
    game = testbed.environment("two_agents", rounds=1)
    pair = target, behaviour = pair_of(game, "both")
    speaker, listener = ask(game, pair, "prefix", ratios="own").agents
    assert speaker.relative_bias < EXACT  # nothing comes before its only token
    factor = behaviour.probabilities[0] / target.probabilities[0]
    for a in range(2):
        rows = slice(2 * (1 + a), 2 * (2 + a))
        np.testing.assert_allclose(listener.mean[rows], factor[a] * listener.gradient[rows], rtol=1e-12)
    assert abs(factor[0] - factor[1]) > 0.1


def test_an_own_prefix_bias_depends_on_the_others_drift_alone(game):
    """With the target fixed, it is the same whether the agent itself has drifted or not."""
    both = ask(game, pair_of(game, "both"), "prefix", ratios="own").agents
    for i, who in enumerate(("listener", "speaker")):
        alone = ask(game, pair_of(game, who), "prefix", ratios="own").agents[i]
        np.testing.assert_allclose(both[i].bias, alone.bias, rtol=0, atol=1e-14)
        # Its variance does depend on both, and joint ratios have another bias: none.
        assert both[i].variance > 1.01 * alone.variance


def test_ratios_of_one_drop_out_of_products_and_cap_minima(game):
    """Where only agent i drifts, the other's ratios are one: the product does not see them, the minimum does."""
    for i, who in enumerate(("speaker", "listener")):
        pair = pair_of(game, who)
        product = [ask(game, pair, "prefix", ratios=r).agents[i] for r in ("joint", "own")]
        np.testing.assert_allclose(product[0].mean, product[1].mean, rtol=0, atol=1e-14)
        minimum = [ask(game, pair, "minpro", ratios=r).agents[i] for r in ("joint", "own")]
        assert np.abs(minimum[0].mean - minimum[1].mean).max() > 1e-4
        # And for the agent that did not drift, own ratios are all one: no correction of any kind.
        for weight in ("token", "prefix", "sequence", "minpro"):
            left = ask(game, pair, weight, ratios="own").agents[1 - i]
            np.testing.assert_allclose(left.mean, ask(game, pair, "none").agents[1 - i].mean, rtol=0, atol=1e-15)


def test_own_minima_are_never_below_joint_ones(game):
    """Fewer ratios to take the minimum of; where there is no own earlier token, it is one by convention."""
    behaviour = pair_of(game, "both")[1]
    log_ratio = game.target.log_probabilities - behaviour.log_probabilities
    step = game.process.transition.argmax(axis=2)
    paths = []
    for actions in itertools.product(range(2), repeat=6):
        state, row = 0, []
        for a in actions:
            row.append(log_ratio[state, a])
            state = step[state, a]
        paths.append(row)
    l, minpro = np.array(paths), theory.weight("minpro")  # noqa: E741 - the log-ratio of the glossary
    for i in range(2):
        own = np.broadcast_to(np.arange(6) % 2 == i, l.shape)
        joint_minimum = minpro.coefficients(l) / np.exp(l)
        own_minimum = minpro.coefficients(l, own)[own].reshape(-1, 3) / np.exp(l[:, i::2])
        np.testing.assert_array_less(joint_minimum[:, i::2][:, 1:], own_minimum[:, 1:] + 1e-12)
        assert (own_minimum[:, 1:] > joint_minimum[:, i::2][:, 1:] + 1e-3).any()


def test_whose_minimum_is_the_better_one_depends_on_who_drifted(game):
    """MinPRO with the target's advantage: the listener, which answers, is biased less by joint minima if the speaker
    drifted, and less by its own if it drifted itself."""
    for seed in range(5):
        for kl, better in ([(0.05, 0.0), "joint"], [(0.0, 0.05), "own"]):
            pair = testbed.drift_agents("noise", game.process, game.target, game.acting, kl, seed=seed)
            bias = {r: biases(ask(game, pair, "minpro", ratios=r))[1] for r in ("joint", "own")}
            assert min(bias, key=bias.get) == better
            assert min(bias.values()) > THERE


# Drift of one agent


@pytest.mark.parametrize("kind", sorted(set(drift.kinds()) & {"noise", "staleness", "temperature", "mixture"}))
def test_agents_drift_separately(game, kind):
    target, behaviour = testbed.drift_agents(kind, game.process, game.target, game.acting, (0.001, 0.0))
    moved = np.abs(target.log_probabilities - behaviour.log_probabilities).max(axis=1) > 1e-6
    assert not moved[game.acting == 1].any()
    assert moved[game.acting == 0].any()
    kl = theory.divergences(game.process, target, behaviour, moves=0).token.kl_behaviour_target
    assert kl == pytest.approx(0.001, rel=1e-9)
    alone = drift.at(kind, game.process, game.target, 0.001, states=game.acting == 0)
    np.testing.assert_array_equal(alone.behaviour.logits, behaviour.logits)
    # The control: without the states, everybody drifts.
    everywhere = drift.at(kind, game.process, game.target, 0.001)
    ratio = everywhere.target.log_probabilities - everywhere.behaviour.log_probabilities
    assert np.abs(ratio)[game.acting == 1].max() > 1e-3


def test_a_log_linear_target_cannot_move_in_some_states_only():
    process, policy, _ = random_instance(S=3, A=2, T=3, features=2)
    states = np.array([True, False, False])
    with pytest.raises(ValueError, match="log-linear policy that moves in all states at once"):
        drift.apply("staleness", process, policy, 0.1, states=states)
    # Its behaviour policy, which nothing is differentiated in, can.
    target, behaviour = drift.apply("noise", process, policy, 0.1, states=states)
    assert target is policy
    np.testing.assert_allclose(behaviour.logits[1:], policy.logits[1:])


def test_what_has_no_meaning_is_refused(game):
    pair = pair_of(game, "both")
    for estimator in (
        theory.Estimator("token", theory.group(4)),
        theory.Estimator("token", theory.signal("outcome", baseline="optimal")),
        theory.Estimator("token", "outcome", score="cumulative"),
        theory.Estimator("token", "outcome", reduction="length_mean"),
    ):
        with pytest.raises(ValueError, match="cannot be taken apart by agents"):
            testbed.agent_moments(game.process, *pair, estimator, game.acting)
    estimator = theory.Estimator("token", "outcome")
    for acting in ([0, 1], game.acting * 0.5, game.acting - 1):
        with pytest.raises(ValueError, match="acting has shape"):
            testbed.agent_moments(game.process, *pair, estimator, acting)
    with pytest.raises(ValueError, match="unknown ratios 'mine'"):
        testbed.agent_moments(game.process, *pair, estimator, game.acting, ratios="mine")
    with pytest.raises(ValueError, match="there are 64 trajectories; expected at most 10"):
        testbed.agent_moments(game.process, *pair, estimator, game.acting, most_trajectories=10)
    with pytest.raises(ValueError, match="one number for each of 2 agents"):
        testbed.drift_agents("noise", game.process, game.target, game.acting, (0.1,))
    with pytest.raises(ValueError, match="states has shape"):
        drift.at("noise", game.process, game.target, 0.1, states=game.acting)
    with pytest.raises(ValueError, match="names agent 1"):
        testbed.joint_policy([game.target], game.acting)
    with pytest.raises(ValueError, match="expected one"):
        testbed.joint_policy([game.target, theory.SoftmaxPolicy([[0.0]])], game.acting)
