"""The Gymnasium side: the API checker, the law of the returns, and what is refused."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.stats import norm

import testbed
import theory
from testbed.environments import ProcessEnv
from tests.instances import random_instance
from tests.testbed.environments.plain import uniform

CARDS = testbed.environment_cards()
# |error| / standard error may exceed the normal quantile once in a million runs by chance; the seeds are fixed.
ALARM = norm.isf(1e-6 / 2)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_registered_environment_passes_the_checker(name):
    check_env(gymnasium.make(CARDS[name].gymnasium_id).unwrapped)


def test_make_passes_options_on():
    env = gymnasium.make("offpolicy/Chain-v0", states=6, horizon=3)
    assert env.observation_space.n == 6
    assert env.unwrapped.process.horizon == 3
    with pytest.raises(ValueError, match="unknown option 'length' of environment 'chain'"):
        gymnasium.make("offpolicy/Chain-v0", length=6)


def sampled_returns(process, policy, episodes, seed=0):
    env, rng = ProcessEnv(process), np.random.default_rng(seed)
    cumulative = np.cumsum(policy.probabilities, axis=1)
    returns = np.zeros(episodes)
    for n in range(episodes):
        state, info = env.reset(seed=seed if n == 0 else None)
        terminated = False
        while not terminated:
            action = int(np.searchsorted(cumulative[state], rng.random() * cumulative[state, -1]))
            weight = process.discount ** info["time"]
            state, reward, terminated, truncated, info = env.step(action)
            assert not truncated
            returns[n] += weight * reward
    return returns


def score(returns, expected):
    return abs(returns.mean() - expected) / (returns.std(ddof=1) / np.sqrt(returns.size))


@pytest.mark.parametrize("name", ["brackets", "chain", "digit_addition", "frozen_lake", "garnet", "keyword", "taxi"])
def test_sampled_returns_have_the_exact_mean(name):
    made = testbed.environment(name, **({"discount": 0.5} if name == "garnet" else {}))
    returns = sampled_returns(made.process, made.target, episodes=6000 if name == "frozen_lake" else 3000)
    assert score(returns, theory.values(made.process, made.target).expected_return) < ALARM
    # The same test rejects the value of another policy.
    assert score(returns, theory.values(made.process, uniform(made.process)).expected_return) > ALARM


def test_discounted_sum_of_rewards_is_the_return_of_the_process():
    process, target, behaviour = random_instance(seed=3, discount=0.6)
    process = theory.MarkovProcess(
        [0.5, 0.5, 0.0, 0.0], process.transition, process.reward, 4, process.terminal_reward, process.absorbing, 0.6
    )
    returns = sampled_returns(process, target, episodes=6000)
    assert score(returns, theory.values(process, target).expected_return) < ALARM
    assert score(returns, theory.values(process, behaviour).expected_return) > ALARM


def test_episode_ends_at_the_horizon_and_pays_the_terminal_reward_on_the_last_step():
    env = gymnasium.make("offpolicy/Parity-v0", horizon=3)
    state, info = env.reset(seed=0)
    assert (state, info) == (0, {"time": 0})
    seen = [env.step(action) for action in (1, 0, 1)]
    assert [(int(s), r, ended, cut, i["time"]) for s, r, ended, cut, i in seen] == [
        (1, 0.0, False, False, 1),
        (1, 0.0, False, False, 2),
        (0, 1.0, True, False, 3),
    ]


def test_episode_ends_when_an_absorbing_state_is_entered():
    env = gymnasium.make("offpolicy/Brackets-v0")
    env.reset(seed=0)
    assert [env.step(action)[1:3] for action in (0, 1, 2)] == [(0.0, False), (0.0, False), (1.0, True)]


def test_the_same_seed_repeats_the_episode():
    env = gymnasium.make("offpolicy/FrozenLake-v0").unwrapped

    def episode(seed):
        env.reset(seed=seed)
        return [int(env.step(action)[0]) for action in (1, 1)]

    assert episode(5) == episode(5)
    assert len({tuple(episode(seed)) for seed in range(20)}) > 1


def test_misuse_is_answered_with_a_sentence():
    process = theory.MarkovProcess([0.5, 0.5], np.eye(2)[:, None], np.zeros((2, 1)), 2, absorbing=[False, True])
    with pytest.raises(ValueError, match=r"initial gives probability 0.5 to the absorbing state 1"):
        ProcessEnv(process)
    env = ProcessEnv(testbed.environment("parity", horizon=1).process)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action is 2; expected a whole number from 0 to 1"):
        env.step(2)
    env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)
