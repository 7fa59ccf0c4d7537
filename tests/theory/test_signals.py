"""Signals and baselines: their cards, what is subtracted, and the baseline that minimises the variance."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sparse

import theory
from tests import brute_force
from tests.instances import Instance, random_instance
from tests.theory.engines.comparing import SIGNALS, ask, assert_same, assert_same_moments
from theory.engines import question
from theory.engines.problem import Problem, checked_ratios
from theory.engines.sampling import sample_block
from theory.engines.trajectories import Walk, token_signals
from theory.signals import resolve

INSTANCE = random_instance(seed=4, S=3, A=2, T=3, discount=0.7)


def table(name, signal):
    """The documented baseline, (T, S). It carries discount^t where it is measured from its own step: values always, and
    constants in reward_to_go. A constant in outcome is subtracted from the whole return.
    """
    process, target, behaviour = INSTANCE
    discounts = 0.7 ** np.arange(3)[:, None] * np.ones(3)
    constant_scale = discounts if signal == "reward_to_go" else np.ones((3, 3))
    of_target, of_mu = theory.values(process, target), theory.values(process, behaviour)
    return {
        "none": np.zeros((3, 3)),
        1.25: 1.25 * constant_scale,
        "expected_return": of_mu.expected_return * constant_scale,
        "target_value": discounts * of_target.state_value[:-1],
        "behaviour_value": discounts * of_mu.state_value[:-1],
    }[name]


def test_the_cards_are_the_signals():
    cards = theory.signal_cards()
    assert set(cards) == set(SIGNALS)
    assert {name for name, card in cards.items() if card.takes_baseline} == {"reward_to_go", "outcome"}
    assert all(card.summary and card.formula and card.name == name for name, card in cards.items())


def test_none_is_the_default_baseline_and_labels_say_what_is_chosen():
    assert theory.signal("outcome") == theory.signal("outcome", baseline="none")
    assert theory.signal("outcome").label == "outcome"
    assert theory.signal("outcome", baseline=2).label == "outcome(baseline=2.0)"
    one = theory.signal("reward_to_go", baseline="optimal", per_state=True)
    assert one.label == "reward_to_go(baseline=optimal, per_state=True)"
    assert theory.signal(one) is one


@pytest.mark.parametrize("engine", ["recursion", "enumeration"])
@pytest.mark.parametrize("signal", ["reward_to_go", "outcome"])
@pytest.mark.parametrize("name", ["none", 1.25, "expected_return", "target_value", "behaviour_value"])
def test_every_baseline_is_the_documented_table(engine, signal, name):
    for weight, score in (("minpro", "own"), ("none", "cumulative"), ("prefix", "own")):
        m = ask(INSTANCE, weight, theory.signal(signal, baseline=name), engine, score)
        assert_same_moments(m, *brute_force.moments(*INSTANCE, weight, signal, score, baseline=table(name, signal)))


@pytest.mark.parametrize("signal", ["reward_to_go", "outcome"])
def test_the_baselines_are_five_different_ones(signal):
    """Swapped policies, a forgotten discount or a forgotten subtraction would be found above."""
    tables = [table(name, signal) for name in ("none", 1.25, "expected_return", "target_value", "behaviour_value")]
    found = [brute_force.moments(*INSTANCE, "none", signal, baseline=b)[0] for b in tables]
    distance = [np.linalg.norm(x - y) for i, x in enumerate(found) for y in found[:i]]
    assert min(distance) > 1e-3
    undiscounted = brute_force.moments(*INSTANCE, "none", signal, baseline=tables[4] / 0.7 ** np.arange(3)[:, None])[0]
    assert np.linalg.norm(undiscounted - found[4]) > 1e-3


@pytest.mark.parametrize("name", [name for name in SIGNALS if name not in ("reward_to_go", "outcome")])
def test_a_signal_of_some_transitions_is_that_of_its_table(name):
    rng = np.random.default_rng(0)
    for reward in (rng.normal(size=(3, 2)), rng.normal(size=(3, 2, 3))):
        p, target, behaviour = INSTANCE
        process = theory.MarkovProcess(p.initial, p.transition, reward, 3, p.terminal_reward, p.absorbing, 0.7)
        signal = resolve(theory.signal(name), process, target, behaviour)
        edges = process.edges
        where = (edges.state, edges.action, edges.next_state)
        for t in range(3):
            expected = np.broadcast_to(signal.table(t), (3, 2, 3))[where]
            np.testing.assert_array_equal(signal.on_edges(t, *where), expected)


def test_rewards_of_a_large_sparse_process_are_those_of_its_transitions_alone():
    """A token tree of 3280 states: the table of all (s, a, s') would be 258 MB at each step."""
    S, A, T = 3280, 3, 7
    inner = (S - 1) // A
    following = np.minimum(A * np.arange(S)[:, None] + 1 + np.arange(A), np.where(np.arange(S) < inner, S, 0)[:, None])
    matrix = sparse.csr_array((np.ones(S * A), following.reshape(-1), np.arange(S * A + 1)), shape=(S * A, S))
    rng = np.random.default_rng(0)
    process = theory.MarkovProcess(np.eye(1, S)[0], matrix, rng.normal(size=(S, A)), T, rng.normal(size=S))
    policy = theory.SoftmaxPolicy(np.zeros((S, A)))
    ratios = checked_ratios(process, policy, policy, allow_missing_support=False)
    signal = resolve(theory.signal("reward"), process, policy, policy)
    walk = Walk(process, policy)
    block = sample_block(walk, np.zeros(200, dtype=np.int64), rng)
    problem = Problem(process, policy, policy, ratios, theory.weight("none"), (signal,))
    tracemalloc.start()
    try:
        psi = token_signals(walk, block, problem)[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    state, action, end = walk.state[block.edge], walk.action[block.edge], walk.next_state[block.edge[:, -1]]
    expected = process.reward[state, action]
    expected[:, -1] += process.terminal_reward[end]
    np.testing.assert_allclose(psi, expected, rtol=1e-14)
    assert peak < 10e6


# The optimal baseline


def second_moment(weight, signal, score, reduction, baseline):
    """The variance of the estimator with a baseline table (T, S), by brute force."""
    mean, second = brute_force.moments(*INSTANCE, weight, signal, score, reduction, baseline)
    return second - mean @ mean


def scale(signal):
    """The discount that an optimal baseline carries, constant or per state, (T, 1)."""
    return 0.7 ** np.arange(3.0)[:, None] if signal == "reward_to_go" else np.ones((3, 1))


QUESTIONS = [
    ("token", "outcome", "own", "sum"),
    ("none", "outcome", "own", "length_mean"),
    ("minpro", "reward_to_go", "own", "sum"),
    ("prefix", "reward_to_go", "cumulative", "constant"),
    ("truncated", "outcome", "cumulative", "sum"),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: "-".join(q))
def test_the_optimal_constant_is_the_best_of_a_grid_and_its_slope_is_zero(question):
    weight, name, score, reduction = question

    def variance(b):
        return second_moment(*question, b * scale(name))

    # The variance is a parabola in b: three values give its bottom.
    minus, zero, plus = variance(-1.0), variance(0.0), variance(1.0)
    best = (minus - plus) / (2 * (minus - 2 * zero + plus))
    found = ask(INSTANCE, weight, theory.signal(name, baseline="optimal"), "recursion", score, reduction)
    assert found.variance == pytest.approx(variance(best), rel=1e-9)
    for b in np.linspace(best - 2.0, best + 2.0, 9):
        assert found.variance <= variance(b) + 1e-12
    slope = (variance(best + 0.1) - variance(best - 0.1)) / 0.2
    curvature = minus - 2 * zero + plus
    assert abs(slope) < 1e-9 * curvature
    # Negative control: the expected return is another number, and a worse one.
    other = ask(INSTANCE, weight, theory.signal(name, baseline="expected_return"), "recursion", score, reduction)
    assert other.variance > found.variance + 1e-4
    of_mu = theory.values(INSTANCE.process, INSTANCE.behaviour).expected_return
    assert abs(variance(of_mu + 0.1) - variance(of_mu - 0.1)) / 0.2 > 1e-3 * curvature


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: "-".join(q))
def test_the_optimal_baseline_per_state_has_no_slope_in_any_state(question):
    weight, name, score, reduction = question
    acting = np.flatnonzero(~INSTANCE.process.absorbing)

    def variance(b):
        states = np.zeros(3)
        states[acting] = b
        return second_moment(*question, scale(name) * states)

    # The variance is quadratic in b: its slope at 0 and its curvature come from differences, without error.
    unit, n = np.eye(acting.size), acting.size
    slope = np.array([(variance(e) - variance(-e)) / 2 for e in unit])
    curvature = np.array([
        [(variance(d + e) - variance(d - e) - variance(e - d) + variance(-d - e)) / 4 for e in unit] for d in unit
    ])  # fmt: skip
    best = np.linalg.solve(curvature, -slope)
    one = theory.signal(name, baseline="optimal", per_state=True)
    found = ask(INSTANCE, weight, one, "recursion", score, reduction)
    assert found.variance == pytest.approx(variance(best), rel=1e-8)
    for e in unit:
        assert abs(variance(best + 0.1 * e) - variance(best - 0.1 * e)) / 0.2 < 1e-8 * np.trace(curvature)
    rng = np.random.default_rng(0)
    assert all(found.variance <= variance(best + 0.5 * rng.normal(size=n)) for _ in range(10))
    # One number per state can do at least what values of the states can.
    constant = ask(INSTANCE, weight, theory.signal(name, baseline=0.0), "recursion", score, reduction)
    assert found.variance < constant.variance


@pytest.mark.parametrize("signal", ["reward_to_go", "outcome"])
@pytest.mark.parametrize("seed", range(4))
def test_one_number_per_state_is_never_worse_than_one_for_all(signal, seed):
    """Also with a strong discount: one for all is among those per state."""
    instance = random_instance(seed=seed, S=3, A=2, T=4, discount=0.3)
    for weight in ("none", "token", "sequence"):
        constant, by_state = (
            ask(instance, weight, theory.signal(signal, baseline="optimal", per_state=x), "auto") for x in (False, True)
        )
        assert by_state.variance < constant.variance


def test_an_optimal_baseline_is_solved_for_once(monkeypatch):
    calls = []
    solve = question._optimal_baseline
    monkeypatch.setattr(question, "_optimal_baseline", lambda asked: calls.append(1) or solve(asked))
    m = ask(INSTANCE, "token", theory.signal("outcome", baseline="optimal"), "auto")
    assert m.covariance.shape == (6, 6)
    assert len(calls) == 1


def test_the_engines_have_the_same_optimal_baseline():
    for per_state in (False, True):
        signal = theory.signal("outcome", baseline="optimal", per_state=per_state)
        one, other = (ask(INSTANCE, "minpro", signal, engine) for engine in ("recursion", "enumeration"))
        assert_same(one, other, relative=1e-9)
        # A weight that only enumeration can take has one too.
        signal = theory.signal("outcome", baseline="optimal", per_state=per_state)
        clipped = theory.weight("truncated", level="sequence")
        assert ask(INSTANCE, clipped, signal, "auto").variance < ask(INSTANCE, clipped, "outcome", "auto").variance


def test_on_policy_a_baseline_changes_the_variance_and_not_the_mean():
    process, target, _ = INSTANCE
    same = Instance(process, target, target)
    plain = ask(same, "token", "outcome", "recursion")
    for baseline in ("expected_return", "target_value", "optimal", 3.0):
        m = ask(same, "token", theory.signal("outcome", baseline=baseline), "recursion")
        np.testing.assert_allclose(m.mean, plain.mean, rtol=1e-10, atol=1e-13)
        assert abs(m.variance - plain.variance) > 1e-3


def test_a_state_that_is_never_visited_has_no_influence_on_the_optimal_baseline():
    """The system for b is singular there; the answer must not be."""
    process, target, behaviour = random_instance(seed=4, S=3, A=2, T=3, absorbing=False)
    transition = np.zeros((4, 2, 4))
    transition[:3, :, :3], transition[3, :, 3] = process.transition, 1.0
    larger = theory.MarkovProcess(
        np.append(process.initial, 0.0), transition, np.zeros((4, 2)), 3, np.append(process.terminal_reward, 0.0)
    )
    smaller = theory.MarkovProcess(process.initial, process.transition, np.zeros((3, 2)), 3, process.terminal_reward)
    more = [theory.SoftmaxPolicy(np.vstack([p.logits, [0.0, 1.0]])) for p in (target, behaviour)]
    signal = theory.signal("outcome", baseline="optimal", per_state=True)
    one, other = (
        ask((smaller, target, behaviour), "token", signal, "auto"),
        ask((larger, *more), "token", signal, "auto"),
    )
    assert other.variance == pytest.approx(one.variance, rel=1e-10)
    np.testing.assert_allclose(other.mean[:6], one.mean, rtol=1e-8)


@pytest.mark.parametrize("weight", ["ppo_clip", "gspo", "m2po"])
def test_there_is_no_optimal_baseline_for_weights_that_look_at_the_sign(weight):
    with pytest.raises(ValueError, match=rf"baseline='optimal' is not defined for {weight}, .* sign of the advantage"):
        ask(INSTANCE, weight, theory.signal("outcome", baseline="optimal"), "auto")


def test_there_is_no_optimal_baseline_where_the_variance_is_beyond_float64():
    # Independent tokens, (1 + chi2)^1500 with 1 + chi2 about 4.
    process = theory.MarkovProcess([1.0], np.ones((1, 2, 1)), [[1.0, -0.5]], 1500)
    target, behaviour = theory.SoftmaxPolicy(np.log([[0.9, 0.1]])), theory.SoftmaxPolicy(np.log([[0.2, 0.8]]))
    with pytest.raises(ValueError, match=r"the variance of prefix is beyond the largest number"):
        ask((process, target, behaviour), "prefix", theory.signal("outcome", baseline="optimal"), "recursion")


def test_an_optimal_baseline_that_no_exact_engine_can_find_is_refused_as_such():
    """Sampling needs the number as well, so the refusal must not send there."""
    instance, signal = random_instance(T=200), theory.signal("outcome", baseline="optimal")
    for engine in ("auto", "sampling", "enumeration"):
        with pytest.raises(ValueError, match=r"baseline='optimal' needs an exact engine.*expected another baseline"):
            ask(instance, theory.weight("truncated", level="sequence"), signal, engine)
