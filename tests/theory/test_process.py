"""The door of MarkovProcess: what is refused, in which words; both forms of a transition are one process."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given

import testbed
import theory
from tests.instances import instances, random_instance

GOOD = {
    "initial": [0.5, 0.5],
    "transition": [[[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]], [[0.25, 0.75], [0.0, 1.0], [1.0, 0.0]]],
    "reward": [[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]],
    "horizon": 3,
    "terminal_reward": [0.0, 1.0],
    "absorbing": [False, True],
    "discount": 0.5,
}


def made(**changes):
    return theory.MarkovProcess(**{**GOOD, **changes})


def transition(row):
    """The good transition with another row for state 1, action 2."""
    table = np.array(GOOD["transition"])
    table[1, 2] = row
    return table


def test_the_good_process_is_let_in_as_it_is():
    process = made()
    assert (process.states, process.actions, process.horizon, process.discount) == (2, 3, 3, 0.5)
    for name in ("initial", "transition", "reward", "terminal_reward", "absorbing"):
        np.testing.assert_array_equal(getattr(process, name), GOOD[name])


def test_what_is_left_out_is_no_terminal_reward_no_absorbing_state_and_no_discount():
    process = theory.MarkovProcess(GOOD["initial"], GOOD["transition"], GOOD["reward"], 1)
    assert not process.terminal_reward.any()
    assert not process.absorbing.any()
    assert process.discount == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": [0.5, 0.4]}, r"initial sums to 0\.9; expected 1"),
        ({"initial": [1.5, -0.5]}, r"initial is -0\.5 at index \(1,\); expected non-negative"),
        ({"initial": [np.nan, 1.0]}, r"initial contains NaN at index \(0,\)"),
        ({"initial": [np.inf, 0.0]}, r"initial is inf at index \(0,\); expected finite"),
        ({"initial": [0.5 + 0.0j, 0.5]}, r"initial is complex; expected an array of real numbers"),
        ({"transition": sparse.csr_array(np.eye(2, dtype=complex))}, r"transition has complex entries"),
        ({"initial": [[0.5, 0.5]]}, r"initial has shape \(1, 2\); expected \(S,\)"),
        ({"initial": []}, r"initial has shape \(0,\); expected \(S,\)"),
        ({"initial": [0.5, 0.25, 0.25]}, r"transition has shape \(2, 3, 2\); expected \(S, A, S\) with S = 3"),
        ({"transition": transition([0.5, 0.4])}, r"transition sums to 0\.9 at index \(1, 2\); expected 1"),
        ({"transition": transition([1.0 + 1e-6, 0.0])}, r"transition sums to 1\.000001 at index \(1, 2\)"),
        ({"transition": transition([1.5, -0.5])}, r"transition is -0\.5 at index \(1, 2, 1\)"),
        ({"transition": transition([np.nan, 1.0])}, r"transition contains NaN at index \(1, 2, 0\)"),
        ({"transition": transition([np.inf, 0.0])}, r"transition is inf at index \(1, 2, 0\)"),
        ({"transition": np.ones((2, 3))}, r"transition has shape \(2, 3\); expected \(S, A, S\)"),
        ({"transition": np.ones((2, 0, 2))}, r"transition has shape \(2, 0, 2\)"),
        (
            {"reward": np.zeros(3)},
            r"reward has shape \(3,\); expected \(S, A\) = \(2, 3\) or \(S, A, S\) = \(2, 3, 2\)",
        ),
        ({"reward": np.zeros((3, 2))}, r"reward has shape \(3, 2\); expected \(S, A\) = \(2, 3\)"),
        ({"reward": np.full((2, 3), np.nan)}, r"reward contains NaN at index \(0, 0\)"),
        ({"reward": np.full((2, 3), -np.inf)}, r"reward is -inf at index \(0, 0\); expected finite"),
        ({"horizon": 0}, r"horizon is 0; expected a whole number of steps T, at least 1"),
        ({"horizon": 2.5}, r"horizon is 2\.5; expected a whole number"),
        ({"horizon": True}, r"horizon is True; expected a whole number"),
        ({"horizon": None}, r"horizon is None; expected a whole number"),
        ({"horizon": "ten"}, r"horizon is 'ten'; expected a whole number"),
        ({"horizon": np.inf}, r"horizon is inf; expected a whole number"),
        ({"horizon": np.nan}, r"horizon is nan; expected a whole number"),
        ({"terminal_reward": [1.0]}, r"terminal_reward has shape \(1,\); expected \(2,\)"),
        ({"terminal_reward": [1.0, np.nan]}, r"terminal_reward contains NaN at index \(1,\)"),
        ({"terminal_reward": [1.0, np.inf]}, r"terminal_reward is inf at index \(1,\)"),
        ({"absorbing": [True]}, r"absorbing has shape \(1,\) and type bool; expected \(2,\) of bool"),
        ({"absorbing": [0, 1]}, r"absorbing has shape \(2,\) and type int64; expected \(2,\) of bool"),
        ({"discount": 1.01}, r"discount is 1\.01; expected a number in \[0, 1\]"),
        ({"discount": -0.1}, r"discount is -0\.1; expected a number in \[0, 1\]"),
        ({"discount": np.nan}, r"discount is nan; expected a number in \[0, 1\]"),
        ({"discount": None}, r"discount is None; expected a number in \[0, 1\]"),
        ({"initial": ["a", "b"]}, r"initial is .*; expected an array of numbers"),
        ({"reward": [[1.0], [1.0, 2.0]]}, r"reward is .*; expected an array of numbers"),
    ],
)
def test_bad_input_is_refused_in_the_users_notation(changes, message):
    with pytest.raises(ValueError, match=message):
        made(**changes)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (transition([0.5, 0.4]), r"transition sums to 0\.9 at index \(1, 2\); expected 1"),
        (transition([1.5, -0.5]), "transition has a negative or non-finite entry"),
        (transition([np.nan, 1.0]), "transition has a negative or non-finite entry"),
    ],
)
def test_a_sparse_transition_is_checked_as_a_dense_one_is(table, message):
    with pytest.raises(ValueError, match=message):
        made(transition=sparse.csr_array(table.reshape(6, 2)))


@pytest.mark.parametrize("shape", [(5, 2), (6, 3), (0, 2)])
def test_a_sparse_transition_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"transition has shape .*; expected \(S\*A, S\) with S = 2"):
        made(transition=sparse.csr_array(shape))


def test_rows_that_round_to_one_are_let_in():
    third = [round(1 / 3, 9), round(2 / 3, 9)]
    assert made(transition=transition(third)).transition[1, 2, 0] == third[0]


def test_the_arrays_are_copies_that_cannot_be_changed():
    initial = np.array(GOOD["initial"])
    process = made(initial=initial)
    initial[:] = 7.0
    np.testing.assert_array_equal(process.initial, GOOD["initial"])
    for name in ("initial", "transition", "reward", "terminal_reward", "absorbing"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(process, name)[...] = 0


def as_sparse(process, kind=sparse.csr_array):
    matrix = kind(process.transition.reshape(-1, process.states))
    return theory.MarkovProcess(
        process.initial, matrix, process.reward, process.horizon, process.terminal_reward, process.absorbing,
        process.discount,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.coo_array, sparse.csc_matrix, sparse.lil_array])
def test_every_sparse_format_is_the_dense_process(kind):
    dense = random_instance(seed=1).process
    for left, right in zip(as_sparse(dense, kind).edges, dense.edges, strict=True):
        np.testing.assert_array_equal(left, right)


def test_duplicate_entries_of_a_sparse_transition_add_up():
    row, column, half = [0, 0, 1], [0, 0, 0], [0.5, 0.5, 1.0]
    process = theory.MarkovProcess([1.0], sparse.coo_array((half, (row, column)), shape=(2, 1)), np.zeros((1, 2)), 1)
    np.testing.assert_array_equal(process.edges.probability, [1.0, 1.0])


@given(instances())
def test_sparse_and_dense_have_the_same_values_gradient_and_moments(instance):
    process, target, behaviour = instance
    same = as_sparse(process)
    dense_values, sparse_values = theory.values(process, target), theory.values(same, target)
    for name in ("state_value", "action_value", "advantage", "occupancy"):
        np.testing.assert_allclose(getattr(sparse_values, name), getattr(dense_values, name), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(
        theory.policy_gradient(same, target), theory.policy_gradient(process, target), rtol=1e-12, atol=1e-14
    )
    estimator = theory.Estimator("minpro", "outcome")
    for engine in ("recursion", "enumeration"):
        one, other = (theory.moments(p, target, behaviour, estimator, engine) for p in (process, same))
        np.testing.assert_allclose(other.mean, one.mean, rtol=1e-12, atol=1e-13)
        assert other.variance == pytest.approx(one.variance, rel=1e-12, abs=1e-12)


def test_edges_leave_out_absorbing_states_and_impossible_transitions():
    edges = made().edges
    assert set(edges.state) == {0}
    found = list(zip(edges.action, edges.next_state, edges.probability, edges.reward, strict=True))
    assert found == [(0, 0, 0.5, 1.0), (0, 1, 0.5, 1.0), (1, 0, 1.0, 0.0), (2, 1, 1.0, 2.0)]


def test_expected_reward_is_the_mean_over_next_states_and_zero_where_nothing_acts():
    reward = np.arange(12.0).reshape(2, 3, 2)
    expected = made(reward=reward).expected_reward
    np.testing.assert_allclose(expected, [[0.5, 2.0, 5.0], [0.0, 0.0, 0.0]])
    assert made(reward=reward, absorbing=[False, False]).expected_reward[1].any()


def test_step_rewards_of_absorbing_states_do_not_count_as_step_rewards():
    reward = np.zeros((2, 3))
    reward[1] = 5.0
    assert not made(reward=reward).has_step_rewards
    assert made(reward=reward, absorbing=[False, False]).has_step_rewards


@pytest.mark.parametrize("form", [lambda process: process, as_sparse])
def test_a_process_survives_pickling_and_copying_and_stays_read_only(form):
    process = form(random_instance(seed=3).process)
    values = theory.values(process, random_instance(seed=3).target)
    for again in (pickle.loads(pickle.dumps(process)), copy.deepcopy(process)):
        for name in ("initial", "reward", "terminal_reward", "absorbing"):
            np.testing.assert_array_equal(getattr(again, name), getattr(process, name))
        np.testing.assert_array_equal(dense(again.transition), dense(process.transition))
        assert (again.discount, again.horizon) == (process.discount, process.horizon)
        assert theory.values(again, random_instance(seed=3).target).expected_return == values.expected_return
        for name in ("initial", "transition", "reward", "terminal_reward", "absorbing"):
            array = getattr(again, name)
            with pytest.raises(ValueError, match="read-only"):
                (array.data if sparse.issparse(array) else array)[...] = 0


def dense(transition):
    return transition.toarray() if sparse.issparse(transition) else transition


def test_started_in_one_state_is_the_process_with_that_start():
    made = testbed.environment("digit_addition", digits=2)
    states = np.flatnonzero(made.process.initial)[:3]
    for state in states:
        start = np.zeros(made.process.states)
        start[state] = 1.0
        p = made.process
        whole = theory.MarkovProcess(start, p.transition, p.reward, p.horizon, p.terminal_reward, p.absorbing)
        started = p.started_in(int(state))
        np.testing.assert_array_equal(started.initial, start)
        np.testing.assert_array_equal(
            theory.policy_gradient(started, made.target), theory.policy_gradient(whole, made.target)
        )
        assert pickle.loads(pickle.dumps(started)).initial[state] == 1.0
    # The original keeps its start, and the prompts' gradients average to its own.
    assert np.count_nonzero(made.process.initial) > 3
    parts = [
        made.process.initial[s] * theory.policy_gradient(made.process.started_in(int(s)), made.target)
        for s in np.flatnonzero(made.process.initial)
    ]
    np.testing.assert_allclose(sum(parts), theory.policy_gradient(made.process, made.target), atol=1e-14)
    with pytest.raises(ValueError, match="state is -1; expected a whole number"):
        made.process.started_in(-1)
    with pytest.raises(ValueError, match="expected a whole number below S"):
        made.process.started_in(made.process.states)
