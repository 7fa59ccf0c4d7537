"""What is refused, in the user's words, and what the cards say."""

import numpy as np
import pytest
import scipy.sparse as sparse

import theory
from tests.instances import random_instance

INSTANCE = random_instance(0, S=2, A=2, T=2)
REFUSED = {
    "unknown method 'doubly_robst'; the nearest known name is 'doubly_robust'": {"method": "doubly_robst"},
    "unknown critic 'targt'; the nearest known name is 'target'": {"critic": "targt"},
    r"critic has shape \(3,\); expected one of target, behaviour, zero, action values": {"critic": np.zeros(3)},
    r"critic has shape \(3, 2\), state values; expected action values \(2, 2, 2\)": {"critic": np.zeros((3, 2))},
    "critic is nan at index": {"critic": np.full((2, 2, 2), np.nan)},
    "unknown critic_gradient 'exakt'; the nearest known name is 'exact'": {"critic_gradient": "exakt"},
    r"critic_gradient has shape \(2, 2, 2\); expected 'exact', 'zero' or \(T, S, A, P\) = \(2, 2, 2, 4\)": {
        "critic_gradient": np.zeros((2, 2, 2))
    },
    "critic_gradient is inf at index": {"critic_gradient": np.full((2, 2, 2, 4), np.inf)},
    "method 'retrace' takes no critic_gradient; it belongs to doubly_robust and marginal": {
        "method": "retrace",
        "critic_gradient": "zero",
    },
    "unknown option 'cap' of method 'doubly_robust'; it takes no options": {"cap": 2.0},
    "cap is -1.0; expected a number of at least 0": {"method": "v_trace", "cap": -1.0},
    "trace_cap is nan; expected a number of at least 0": {"method": "v_trace", "trace_cap": np.nan},
    r"trace_decay is 1.5; expected a number in \[0, 1\]": {"method": "acer", "trace_decay": 1.5},
    "unknown engine 'recursive'; the nearest known name is 'recursion'": {"engine": "recursive"},
    "trajectories is 1; expected a whole number of trajectories, at least 2": {"engine": "sampling", "trajectories": 1},
    "the limit is 3; engine='recursion' can take it": {"engine": "enumeration", "most_trajectories": 3},
    "unknown missing_support 'alow'; the nearest known name is 'allow'": {"missing_support": "alow"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message):
    with pytest.raises(ValueError, match=message):
        theory.critic_moments(*INSTANCE, **REFUSED[message])


def test_a_process_beyond_memory_is_refused_before_it_is_tried():
    S, A = 100, 40
    process = theory.MarkovProcess(np.full(S, 1 / S), np.full((S, A, S), 1 / S), np.zeros((S, A)), 2)
    policy = theory.SoftmaxPolicy(np.zeros((S, A)))
    with pytest.raises(ValueError, match="transitions times parameters, the limit is 20000000"):
        theory.critic_moments(process, policy, policy)


def test_tables_that_only_some_questions_need_are_refused_where_they_are_asked():
    S, A = 400, 4
    process = theory.MarkovProcess(np.eye(S)[0], np.tile(np.eye(S)[:, None], (1, A, 1)), np.zeros((S, A)), 2)
    policy = theory.SoftmaxPolicy(np.zeros((S, A)))
    found = theory.critic_moments(process, policy, policy)
    assert found.variance == 0.0
    with pytest.raises(ValueError, match=r"the covariance takes tables of 1.02e\+09 numbers, 400 times the squared"):
        _ = found.covariance
    with pytest.raises(ValueError, match=r"the covariance takes tables of 1.02e\+09 numbers, 400 times the squared"):
        theory.critic_moments(process, policy, policy, covariance=True)
    # The other engines need one matrix.
    many = theory.SoftmaxPolicy.from_features(np.zeros((1, 2, 5000)), np.zeros(5000))
    one = theory.MarkovProcess([1.0], np.ones((1, 2, 1)), np.zeros((1, 2)), 2)
    for engine in ("enumeration", "sampling"):
        with pytest.raises(ValueError, match=r"the covariance takes tables of 2.5e\+07 numbers, 1 times the squared"):
            theory.critic_moments(one, many, many, engine=engine, covariance=True, trajectories=10)
    long = theory.MarkovProcess(process.initial, process.transition, process.reward, 1000)
    for model in ("history", "markov"):
        with pytest.raises(ValueError, match=r"gradients of all steps and states are 6.4e\+08 numbers"):
            theory.efficiency_bound(long, policy, policy, model)
    with pytest.raises(ValueError, match=r"gradients of all steps and states are 6.4e\+08 numbers"):
        theory.critic_moments(long, policy, policy, "marginal")
    with pytest.raises(ValueError, match="transitions times parameters, the limit is 20000000"):
        theory.efficiency_bound(
            theory.MarkovProcess(np.eye(100)[0], np.full((100, 40, 100), 0.01), np.zeros((100, 40)), 2),
            *[theory.SoftmaxPolicy(np.zeros((100, 40)))] * 2,
        )


def test_the_covariance_is_the_same_asked_early_and_late():
    for engine in ("recursion", "enumeration"):
        early = theory.critic_moments(*INSTANCE, engine=engine, covariance=True)
        late = theory.critic_moments(*INSTANCE, engine=engine)
        np.testing.assert_array_equal(early.covariance, late.covariance)
        assert np.trace(late.covariance) == pytest.approx(late.variance, rel=1e-12)


def test_an_option_is_named_with_its_default():
    for card in theory.critic_cards().values():
        for name, value in card.options.items():
            assert f"{name}={value:g}" in card.defaults
    assert theory.critic_moments(*INSTANCE, "v_trace", cap=1.0, trace_cap=1.0, trace_decay=1.0).variance == (
        theory.critic_moments(*INSTANCE, "v_trace").variance
    )


def test_variance_beyond_float64_is_infinite():
    instance = random_instance(0, S=3, A=2, T=3000, absorbing=False, discount=1.0, drift=3.0)
    assert theory.critic_moments(*instance, "per_decision").variance == np.inf
    assert np.isfinite(theory.critic_moments(*instance, "v_trace").variance)


def test_ratios_beyond_float64_are_refused():
    target, behaviour = theory.SoftmaxPolicy(np.zeros((2, 2))), theory.SoftmaxPolicy([[0.0, -720.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"a ratio is beyond float64, its logarithm is 719; expected policies"):
        theory.critic_moments(INSTANCE.process, target, behaviour)


@pytest.mark.parametrize("method", list(theory.critic_cards()))
def test_where_nothing_acts_there_is_nothing_to_estimate(method):
    ended = theory.MarkovProcess(
        [0.5, 0.5], np.full((2, 2, 2), 0.5), np.ones((2, 2)), 3, terminal_reward=[1.0, 2.0], absorbing=[True, True]
    )
    for engine in ("recursion", "enumeration", "sampling"):
        found = theory.critic_moments(ended, *INSTANCE[1:], method, engine=engine, trajectories=10)
        assert (found.mean == 0.0).all()
        assert found.variance == 0.0
    assert theory.efficiency_bound(ended, *INSTANCE[1:]).variance == 0.0


@pytest.mark.parametrize("method", list(theory.critic_cards()))
def test_a_sparse_transition_is_the_same_process(method):
    process, target, behaviour = random_instance(1)
    matrix = sparse.csr_array(process.transition.reshape(-1, process.states))
    thin = theory.MarkovProcess(
        process.initial, matrix, process.reward, process.horizon, process.terminal_reward, process.absorbing,
        process.discount,
    )  # fmt: skip
    found, expected = (theory.critic_moments(p, target, behaviour, method) for p in (thin, process))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-14)
    assert found.variance == pytest.approx(expected.variance, rel=1e-12)
    bounds = [theory.efficiency_bound(p, target, behaviour, "markov").variance for p in (thin, process)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-12)
