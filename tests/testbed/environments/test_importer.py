"""The importer, against loops over Gymnasium's own tables and against known optima."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text import CliffWalkingEnv, FrozenLakeEnv, TaxiEnv

import testbed
import theory
from testbed.environments import from_gymnasium
from tests.testbed.environments.plain import dense, expected_return, policy_of, table_best_policy, table_values

TABLES = {
    "frozen_lake": FrozenLakeEnv(is_slippery=True),
    "frozen_lake_8x8": FrozenLakeEnv(map_name="8x8", is_slippery=True),
    "cliff_walking": CliffWalkingEnv(is_slippery=False),
    "cliff_walking_slippery": CliffWalkingEnv(is_slippery=True),
    "taxi": TaxiEnv(),
    "taxi_rainy": TaxiEnv(is_rainy=True),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_values_are_those_of_the_table(name, discount):
    env, T = TABLES[name], 6
    process = from_gymnasium(env, horizon=T, discount=discount)
    logits = np.sin(np.arange(process.states * process.actions)).reshape(process.states, process.actions)
    policy = theory.SoftmaxPolicy(logits)
    value = theory.values(process, policy).state_value[0, : len(env.P)]
    expected = table_values(env.P, policy.probabilities[: len(env.P)], T, discount)
    acts = ~process.absorbing[: len(env.P)]
    np.testing.assert_allclose(value[acts], expected[acts], rtol=1e-12, atol=1e-12)
    shorter = table_values(env.P, policy.probabilities[: len(env.P)], T - 1, discount)
    assert np.abs(value[acts] - shorter[acts]).max() > 1e-3  # one step fewer is noticed


def test_frozen_lake_holes_and_goal_end_where_they_stand():
    process = testbed.environment("frozen_lake").process
    assert np.flatnonzero(process.absorbing).tolist() == [5, 7, 11, 12, 15]
    assert process.states == 16
    np.testing.assert_allclose(
        dense(process)[0, 0, [0, 4]], [2 / 3, 1 / 3], rtol=1e-12
    )  # repeated successors are summed


def test_cliff_walking_goal_is_the_only_end():
    process = testbed.environment("cliff_walking").process
    assert (process.states, np.flatnonzero(process.absorbing).tolist()) == (48, [47])


@pytest.mark.parametrize(
    ("name", "option", "table"),
    [
        ("frozen_lake", {"slippery": False}, "frozen_lake"),
        ("cliff_walking", {"slippery": True}, "cliff_walking"),
        ("taxi", {"rainy": True}, "taxi"),
    ],
)
def test_registered_names_build_from_the_tables_and_the_knob_changes_them(name, option, table):
    imported = dense(from_gymnasium(TABLES[table], horizon=1))
    np.testing.assert_array_equal(dense(testbed.environment(name).process), imported)
    assert np.abs(dense(testbed.environment(name, **option).process) - imported).max() > 0.1


def test_taxi_gets_a_copy_of_each_state_that_is_entered_both_ways():
    process = testbed.environment("taxi").process
    assert process.states == 504
    assert np.flatnonzero(process.absorbing).tolist() == [500, 501, 502, 503]
    assert not isinstance(process.transition, np.ndarray)  # sparse
    assert process.reward.shape == (504, 6)


def test_frozen_lake_succeeds_with_probability_14_in_17():
    env, T = TABLES["frozen_lake"], 3000
    best = table_best_policy(env.P, T)
    process = from_gymnasium(env, horizon=T)
    np.testing.assert_allclose(expected_return(process, policy_of(process, best)), 14 / 17, rtol=1e-9)
    mirrored = policy_of(process, best[:, ::-1])
    assert expected_return(process, mirrored) < 0.5


def test_frozen_lake_without_slipping_takes_six_steps():
    env = FrozenLakeEnv(is_slippery=False)
    best = table_best_policy(env.P, 6, discount=0.9)  # the discount prefers the shortest way
    returns = []
    for T in (5, 6):
        process = testbed.environment("frozen_lake", slippery=False, horizon=T).process
        returns.append(expected_return(process, policy_of(process, best)))
    assert returns == [0.0, 1.0]


def test_cliff_walking_best_return_is_minus_13():
    env = TABLES["cliff_walking"]
    process = testbed.environment("cliff_walking").process
    best = table_best_policy(env.P, 20)
    np.testing.assert_allclose(expected_return(process, policy_of(process, best)), -13.0, rtol=1e-12)
    up, right, down = 0, 1, 2
    path = np.zeros((48, 4))
    path[:, right], path[36], path[35] = 1.0, np.eye(4)[up], np.eye(4)[down]
    np.testing.assert_allclose(expected_return(process, policy_of(process, path)), -13.0, rtol=1e-12)
    path[36] = np.eye(4)[right]  # off the cliff, every time
    np.testing.assert_allclose(expected_return(process, policy_of(process, path)), -2000.0, rtol=1e-12)


def test_taxi_best_return_is_7_93():
    env = TABLES["taxi"]
    process = testbed.environment("taxi").process
    best = np.vstack([table_best_policy(env.P, 20), np.full((4, 6), 1 / 6)])
    np.testing.assert_allclose(expected_return(process, policy_of(process, best)), 2379 / 300, rtol=1e-12)
    errands = table_values(env.P, None, 20)[env.initial_state_distrib > 0]
    assert errands.min() == 20 - 17  # eighteen steps at most, so that a horizon of 20 cuts nothing off
    assert np.flatnonzero(table_values(env.P, None, 17)[env.initial_state_distrib > 0] != errands).size > 0


def table_env(table, start):
    return SimpleNamespace(unwrapped=SimpleNamespace(P=table, initial_state_distrib=np.array(start)))


def test_a_state_entered_both_ways_is_split():
    # From 0: action 0 goes on to 1, action 1 ends in 1, action 2 does either. State 1 pays 5 on each further step.
    table = {
        0: {0: [(1.0, 1, 1.0, False)], 1: [(1.0, 1, 2.0, True)], 2: [(0.25, 1, 1.0, False), (0.75, 1, 2.0, True)]},
        1: {a: [(1.0, 1, 5.0, False)] for a in range(3)},
    }
    process = from_gymnasium(table_env(table, [1.0, 0.0]), horizon=3)
    assert process.states == 3
    assert process.absorbing.tolist() == [False, False, True]
    returns = [expected_return(process, policy_of(process, np.eye(3)[a])) for a in range(3)]
    np.testing.assert_allclose(returns, [11.0, 2.0, 0.25 * 11 + 0.75 * 2], rtol=1e-12)


def test_leftover_rows_of_ended_states_do_not_count_as_ways_in():
    # 1 and 2 only end episodes; their rows point at each other without ending, and those of 3 are empty.
    table = {
        0: {0: [(0.5, 1, 1.0, True), (0.25, 2, 0.0, True), (0.25, 3, 0.0, True)]},
        1: {0: [(1.0, 2, 7.0, False)]},
        2: {0: [(1.0, 1, 7.0, False)]},
        3: {0: []},
    }
    process = from_gymnasium(table_env(table, [1.0, 0.0, 0.0, 0.0]), horizon=4)
    assert process.absorbing.tolist() == [False, True, True, True]
    np.testing.assert_allclose(expected_return(process, policy_of(process, [1.0])), 0.5, rtol=1e-12)


def test_a_start_state_acts_even_if_episodes_end_there():
    table = {0: {0: [(1.0, 0, 3.0, True)]}}
    process = from_gymnasium(table_env(table, [1.0]), horizon=4)
    assert process.absorbing.tolist() == [False, True]
    np.testing.assert_allclose(expected_return(process, policy_of(process, [1.0])), 3.0, rtol=1e-12)


def test_rewards_of_repeated_successors_are_averaged():
    # Beside the cliff, slipping right from the start: over the edge (-100), back against the wall (-1), or up (-1).
    process = from_gymnasium(TABLES["cliff_walking_slippery"], horizon=2)
    np.testing.assert_allclose(process.reward[36, 1, [36, 24]], [-50.5, -1.0], rtol=1e-12)


def test_start_distribution_can_be_passed_and_is_needed():
    bare = SimpleNamespace(P={0: {0: [(1.0, 0, 3.0, False)]}})
    assert from_gymnasium(bare, horizon=2, initial=[1.0]).states == 1
    with pytest.raises(ValueError, match="carries no start distribution; pass initial"):
        from_gymnasium(bare, horizon=2)
    with pytest.raises(ValueError, match=r"initial has shape \(2,\); expected \(1,\)"):
        from_gymnasium(bare, horizon=2, initial=[0.5, 0.5])


def test_blackjack_is_refused_with_one_sentence():
    with pytest.raises(ValueError, match="BlackjackEnv carries no transition table"):
        from_gymnasium(gymnasium.make("Blackjack-v1"), horizon=5)


def test_wrapped_environments_are_unwrapped():
    process = from_gymnasium(gymnasium.make("FrozenLake-v1"), horizon=3)
    assert process.states == 16
