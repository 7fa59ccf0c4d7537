"""SoftmaxPolicy and the door of two policies: probabilities, scores, support, and who is refused in which words."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from testbed import drift
from tests.instances import instances, random_instance
from theory.kl_estimators import TokenCounter

MINUS_INFINITY = -np.inf


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([[0.0, np.nan]], r"logits contains NaN at index \(0, 1\)"),
        ([[0.0, np.inf]], r"logits contain \+inf"),
        ([[0.0, 0.0], [MINUS_INFINITY, MINUS_INFINITY]], r"logits of state 1 are all -inf"),
        ([0.0, 0.0], r"logits have shape \(2,\); expected \(S, A\)"),
        (np.zeros((2, 0)), r"logits have shape \(2, 0\); expected \(S, A\)"),
        ([["high", "low"]], r"logits is .*; expected an array of numbers"),
        ([[1.0j, 0.0]], r"logits is complex; expected an array of real numbers"),
        (np.array([[1.0 + 0.0j, 0.0]]), r"logits is complex"),
    ],
)
def test_bad_logits_are_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        theory.SoftmaxPolicy(logits)


@pytest.mark.parametrize(
    ("features", "parameters", "message"),
    [
        (np.zeros((2, 3)), [0.0], r"features have shape \(2, 3\); expected \(S, A, P\)"),
        (np.zeros((2, 3, 4)), np.zeros(3), r"parameters has shape \(3,\); expected \(4,\)"),
        (np.full((1, 2, 1), np.nan), [0.0], r"features contains NaN at index \(0, 0, 0\)"),
        (np.full((1, 2, 1), np.inf), [0.0], r"features is inf at index \(0, 0, 0\)"),
        (np.zeros((1, 2, 1)), [np.nan], r"parameters contains NaN at index \(0,\)"),
        (np.zeros((1, 2, 1)), [MINUS_INFINITY], r"parameters is -inf at index \(0,\)"),
    ],
)
def test_bad_features_and_parameters_are_refused(features, parameters, message):
    with pytest.raises(ValueError, match=message):
        theory.SoftmaxPolicy.from_features(features, parameters)


def test_probabilities_worked_by_hand():
    policy = theory.SoftmaxPolicy(np.log([[1.0, 3.0], [2.0, 2.0]]))
    np.testing.assert_allclose(policy.probabilities, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-15)
    np.testing.assert_allclose(policy.log_probabilities, np.log([[0.25, 0.75], [0.5, 0.5]]), rtol=1e-15)
    # z(0, 1) = e_(0,1) - (1/4, 3/4, 0, 0).
    np.testing.assert_allclose(policy.score[0, 1], [-0.25, 0.25, 0.0, 0.0], rtol=1e-14)


def test_huge_logits_neither_overflow_nor_lose_the_small_probability():
    policy = theory.SoftmaxPolicy([[1e4, 1e4 - 5.0], [-1e4, -1e4 + 700.0]])
    np.testing.assert_allclose(policy.probabilities[0, 1], 1.0 / (1.0 + np.exp(5.0)), rtol=1e-12)
    np.testing.assert_allclose(policy.log_probabilities[1, 0], -700.0, rtol=1e-15)


def test_a_logit_of_minus_infinity_is_an_action_that_is_never_taken():
    policy = theory.SoftmaxPolicy([[0.0, MINUS_INFINITY, 0.0]])
    np.testing.assert_array_equal(policy.probabilities, [[0.5, 0.0, 0.5]])
    assert policy.log_probabilities[0, 1] == MINUS_INFINITY
    np.testing.assert_allclose(policy.score[0, 0], [0.5, 0.0, -0.5])


def test_features_that_are_unit_vectors_make_the_tabular_policy():
    logits = np.random.default_rng(0).normal(size=(3, 2))
    tabular = theory.SoftmaxPolicy(logits)
    linear = theory.SoftmaxPolicy.from_features(np.eye(6).reshape(3, 2, 6), logits.reshape(-1))
    np.testing.assert_allclose(linear.probabilities, tabular.probabilities, rtol=1e-15)
    np.testing.assert_allclose(linear.score, tabular.score, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(linear.squared_score, tabular.squared_score, rtol=1e-13, atol=1e-15)


@given(instances(), st.integers(0, 10_000))
def test_the_score_is_the_derivative_of_the_log_probability(instance, seed):
    """Central differences along a random direction; their error is of order step^2 = 1e-10."""
    target = instance.target
    direction = np.random.default_rng(seed).normal(size=target.parameter_count)
    step = 1e-5
    ahead = target.with_parameters(target.parameters + step * direction).log_probabilities
    behind = target.with_parameters(target.parameters - step * direction).log_probabilities
    size = 1.0 + np.linalg.norm(direction) * np.sqrt(target.squared_score.max())
    np.testing.assert_allclose(target.score @ direction, (ahead - behind) / (2 * step), atol=1e-7 * size**3)


@given(instances())
def test_scores_have_mean_zero_in_every_state(instance):
    target = instance.target
    mean = np.einsum("sa,sap->sp", target.probabilities, target.score)
    np.testing.assert_allclose(mean, 0.0, atol=1e-13)


@given(instances(), st.integers(0, 10_000))
def test_the_fast_products_with_scores_are_those_with_the_table(instance, seed):
    target, rng = instance.target, np.random.default_rng(seed)
    S, A, P = target.score.shape
    left, right = rng.normal(size=(4, S, A)), rng.normal(size=(4, S, A))
    vectors = rng.normal(size=(2, S, P))
    z = target.score
    np.testing.assert_allclose(target.squared_score, np.einsum("sap,sap->sa", z, z), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(target.combine_scores(left), np.einsum("nsa,sap->np", left, z), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        target.project_on_scores(vectors), np.einsum("nsp,sap->nsa", vectors, z), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(
        target.squared_norm_of_combination(left, right),
        np.einsum("nsa,sap,ntb,tbp->n", left, z, right, z, optimize=True),
        rtol=1e-12,
        atol=1e-11,
    )


@given(instances(), st.integers(0, 10_000))
def test_norms_of_tokens_are_those_of_their_table(instance, seed):
    target, rng = instance.target, np.random.default_rng(seed)
    S, A, _ = target.score.shape
    N, T = 12, 4
    state, action = rng.integers(S, size=(N, T)), rng.integers(A, size=(N, T))
    # Some come back to a state, some never do, some only with a token that weighs nothing.
    state[:3] = np.arange(T) % S
    left, right = rng.normal(size=(2, N, T))
    left[:, 1] = 0.0
    right[::2, 1:3] = 0.0
    for second in (left, right):
        exact = np.zeros(N)
        for n in range(N):
            vectors = [sum(x[n, t] * target.score[state[n, t], action[n, t]] for t in range(T)) for x in (left, second)]
            exact[n] = vectors[0] @ vectors[1]
        found = target.squared_norm_of_tokens(state, action, left, second)
        np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-12)


def test_norms_of_tokens_in_one_state_are_not_the_sum_of_theirs():
    """Negative control of the short way: twice the same token has four times its norm, not twice."""
    target = random_instance().target
    state = action = np.zeros((1, 2), dtype=np.int64)
    found = target.squared_norm_of_tokens(state, action, np.ones((1, 2)), np.ones((1, 2)))
    np.testing.assert_allclose(found, 4.0 * target.squared_score[0, 0], rtol=1e-12)
    counter = TokenCounter(target.logits)
    np.testing.assert_array_equal(counter.squared_norm_of_tokens(state, action, np.ones((1, 2)), np.ones((1, 2))), 4.0)


def test_other_parameters_make_a_policy_of_the_same_family():
    for features in (0, 2):
        target = random_instance(features=features).target
        moved = target.with_parameters(target.parameters + 1.0)
        assert moved.parameter_count == target.parameter_count
        np.testing.assert_array_equal(moved.parameters, target.parameters + 1.0)
        with pytest.raises(ValueError, match="parameters ha"):
            target.with_parameters(target.parameters[1:])


def test_a_policy_survives_pickling():
    for features in (0, 2):
        target = random_instance(features=features).target
        again = pickle.loads(pickle.dumps(target))
        np.testing.assert_array_equal(again.probabilities, target.probabilities)
        assert again.parameter_count == target.parameter_count


def test_the_tables_cannot_be_changed():
    policy = random_instance().target
    for name in ("logits", "probabilities", "log_probabilities", "score", "squared_score"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(policy, name)[...] = 0


# The door of theory.moments


def ask(instance, weight="token", signal="outcome", **options):
    return theory.moments(*instance, theory.Estimator(weight, signal), **options)


@pytest.mark.parametrize("name", ["target", "behaviour"])
def test_a_policy_of_another_shape_is_refused(name):
    instance = random_instance(S=3, A=2)._replace(**{name: theory.SoftmaxPolicy(np.zeros((2, 3)))})
    message = rf"{name} policy has shape \(2, 3\); expected \(S, A\) = \(3, 2\)"
    for question in (ask, lambda i: theory.performance_difference(*i)):
        if question is ask or name == "target":
            with pytest.raises(ValueError, match=message):
                question(instance)


def test_a_value_of_a_policy_of_another_shape_is_refused():
    process = random_instance(S=3, A=2).process
    for question in (theory.values, theory.policy_gradient):
        with pytest.raises(ValueError, match=r"policy has shape \(1, 2\); expected \(S, A\) = \(3, 2\)"):
            question(process, theory.SoftmaxPolicy([[0.0, 0.0]]))


@pytest.mark.parametrize(
    ("ask_for", "message"),
    [
        (
            lambda: theory.Estimator("min_pro", "outcome"),
            "unknown weight 'min_pro'; the nearest known name is 'minpro'",
        ),
        (lambda: theory.Estimator("token", "outcom"), "unknown signal 'outcom'; the nearest known name is 'outcome'"),
        (lambda: theory.Estimator("token", 3), "unknown signal 3"),
        (lambda: theory.Estimator("token", "outcome", score="cumul"), "unknown score 'cumul'.*'cumulative'"),
        (lambda: theory.Estimator("token", "outcome", reduction="lengthmean"), "unknown reduction.*'length_mean'"),
        (lambda: theory.reduction("token_mean", batch=0), "batch is 0; expected a whole number of trajectories"),
        (lambda: theory.reduction("token_mean", batch="two"), "batch is 'two'; expected a whole number"),
        (lambda: theory.signal("outcome", baseline="optimum"), "unknown baseline 'optimum'.*'optimal'"),
        (lambda: theory.signal("outcome", baseline=np.nan), "baseline is nan; expected a finite number"),
        (lambda: theory.signal("outcome", baseline=True), "baseline is True; expected a finite number"),
        (lambda: theory.signal("outcome", baseline=[0.5]), r"baseline is \[0\.5\]; expected a finite number"),
        (lambda: theory.signal("reward", baseline=1.0), "signal 'reward' takes no baseline"),
        (lambda: theory.signal("outcome", per_state=True), "per_state=True goes with baseline='optimal'"),
        (lambda: theory.group(size=1), "size is 1; expected a whole number of trajectories, at least 2"),
        (lambda: theory.group(size=2.5), r"size is 2\.5; expected a whole number of trajectories"),
        (lambda: theory.group(size="four"), "size is 'four'; expected a whole number of trajectories"),
        (lambda: theory.group(size=4, centre="median"), "unknown centre 'median'"),
        (lambda: theory.group(size=4, scale="stdev"), "unknown scale 'stdev'; the nearest known name is 'std'"),
        (lambda: theory.group(size=4, ddof=4), "ddof is 4; expected 0 <= ddof < size = 4"),
        (lambda: theory.group(size=4, epsilon=-1.0), r"epsilon is -1\.0; expected a finite number of at least 0"),
        (lambda: theory.group(size=4, epsilon=np.nan), "epsilon is nan; expected a finite number of at least 0"),
        (lambda: theory.group(size=4, epsilon=np.inf), "epsilon is inf; expected a finite number of at least 0"),
        (lambda: theory.group(size=4, epsilon="a"), "epsilon is 'a'; expected a finite number of at least 0"),
        (lambda: theory.group(size=4, ddof=0.5), r"ddof is 0\.5; expected a whole number"),
        (lambda: theory.group(size=4, ddof="a"), "ddof is 'a'; expected a whole number"),
        (lambda: theory.group(size=4, ddof=-1, scale="none"), "ddof is -1; expected a whole number"),
        (lambda: theory.GroupSignal(2, centre="foo"), "unknown centre 'foo'"),
        (lambda: theory.GroupSignal(2, scale="bar"), "unknown scale 'bar'"),
        (lambda: theory.GroupSignal(1), "size is 1; expected a whole number of trajectories, at least 2"),
        (lambda: theory.Signal("foo"), "unknown signal 'foo'"),
        (lambda: theory.Signal("outcome", baseline=np.nan), "baseline is nan; expected a finite number"),
        (lambda: theory.Signal("outcome", baseline=None), "baseline is None; expected a finite number"),
        (lambda: theory.Signal("reward", baseline=1.0), "signal 'reward' takes no baseline"),
        (lambda: theory.Signal("outcome", "optimal", per_state="no"), "per_state is 'no'; expected True or False"),
        (lambda: theory.Reduction("nonsense"), "unknown reduction 'nonsense'"),
        (lambda: theory.Reduction("token_mean", batch=0), "batch is 0; expected a whole number of trajectories"),
        (
            lambda: theory.signal(theory.signal("outcome"), baseline=0.5),
            r"options \['baseline'\] were given beside a signal that is already made: Signal\(name='outcome'",
        ),
        (
            lambda: theory.signal(theory.signal("outcome", baseline=0.5), baseline="none"),
            r"options \['baseline'\] were given beside a signal",
        ),
        (
            lambda: theory.signal(theory.signal("outcome", baseline="optimal"), per_state=True),
            r"options \['per_state'\] were given beside a signal",
        ),
        (
            lambda: theory.reduction(theory.reduction("token_mean", batch=2), batch=8),
            r"batch=8 was given beside a reduction that is already made: Reduction\(name='token_mean', batch=2\)",
        ),
        (
            lambda: theory.Estimator("token", theory.group(8), reduction=theory.reduction("token_mean", batch=4)),
            r"reduction is token_mean\(batch=4\) and the signal a group of 8; expected batch=8",
        ),
        (lambda: ask(random_instance(), engine="recurse"), "unknown engine 'recurse'; .*'recursion'"),
        (lambda: ask(random_instance(), missing_support="alow"), "unknown missing_support 'alow'; .*'allow'"),
        (lambda: theory.moments(*random_instance(), "token"), "estimator is 'token'; expected theory.Estimator"),
        (
            lambda: ask(random_instance(), engine="sampling", trajectories=0),
            "trajectories is 0; expected a whole number",
        ),
        (lambda: ask(random_instance()).mean_squared_error(0), "trajectories is 0; expected at least 1"),
    ],
)
def test_what_is_unknown_or_without_meaning_is_refused_with_the_nearest_known_name(ask_for, message):
    with pytest.raises(ValueError, match=message):
        ask_for()


def test_the_batch_of_a_group_is_the_group():
    for batch in (None, 1, 8):
        reduction = theory.reduction("token_mean", batch=batch)
        assert theory.Estimator("token", theory.group(8), reduction=reduction).reduction.batch == 8
    with pytest.raises(ValueError, match="the signal a group of 8"):
        theory.Estimator("token", theory.group(8), reduction=theory.reduction("token_mean", batch=2))
    assert theory.reduction(theory.reduction("token_mean", batch=2)).batch == 2


def test_records_keep_plain_numbers():
    assert repr(theory.Signal("outcome", np.float64(2))) == "Signal(name='outcome', baseline=2.0, per_state=False)"
    assert theory.signal("outcome", baseline=2) == theory.Signal("outcome", 2.0)
    assert repr(theory.Reduction("token_mean", np.int64(3))) == "Reduction(name='token_mean', batch=3)"
    assert theory.GroupSignal(4.0, ddof=np.int64(0), epsilon=0) == theory.group(4, ddof=0, epsilon=0.0)


TAKES_A_TARGET = [
    theory.values,
    theory.policy_gradient,
    lambda p, pi: drift.apply("noise", p, pi, 0.1),
    lambda p, pi: drift.at("noise", p, pi, 0.1),
]
TAKES_TWO_POLICIES = [
    lambda *i: ask(i),
    lambda *i: ask(i, engine="sampling", trajectories=2),
    lambda *i: theory.decompose(*i, theory.Estimator("token", "outcome")),
    lambda *i: theory.group_variance(*i, theory.Estimator("token", theory.group(2))),
    lambda *i: theory.baseline_leak(*i, "token"),
    lambda *i: theory.value_contribution(*i, "token"),
    lambda *i: theory.optimal_baseline(*i, theory.Estimator("token", "outcome")),
    lambda *i: theory.diagnostics(*i),
    theory.divergences,
    lambda *i: theory.renyi_divergence(*i, 2.0),
    theory.performance_difference,
]


@pytest.mark.parametrize("question", TAKES_A_TARGET + TAKES_TWO_POLICIES)
def test_what_is_no_process_or_no_policy_is_refused_as_such(question):
    process, target, behaviour = random_instance(S=3, A=2, T=2)
    rest = (behaviour,) if question in TAKES_TWO_POLICIES else ()
    question(process, target, *rest)
    with pytest.raises(ValueError, match=r"policy is of type ndarray; expected theory\.SoftmaxPolicy"):
        question(process, target.probabilities, *rest)
    with pytest.raises(ValueError, match=r"process is of type SoftmaxPolicy; expected theory\.MarkovProcess"):
        question(target, process, *rest)
    if rest:
        with pytest.raises(ValueError, match=r"policy is of type list; expected theory\.SoftmaxPolicy"):
            question(process, target, behaviour.logits.tolist())


@pytest.mark.parametrize("order", ["a", None, True, -1.0, np.inf, np.nan])
def test_an_order_without_meaning_is_refused(order):
    with pytest.raises(ValueError, match=r"order is .*; expected a finite number of at least 0"):
        theory.renyi_divergence(*random_instance(), order)


# Missing support


def truncated_instance():
    """Three steps from state 0, where mu never takes action 2. State 1 ends the episode, state 2 goes on to itself."""
    process = theory.MarkovProcess(
        initial=[1.0, 0.0, 0.0],
        transition=[
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [[0.0, 1.0, 0.0]] * 3,
            [[0.0, 0.0, 1.0]] * 3,
        ],
        reward=np.zeros((3, 3)),
        horizon=3,
        terminal_reward=[1.0, 2.0, 4.0],
        absorbing=[False, True, False],
    )
    target = theory.SoftmaxPolicy(np.log([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.6, 0.2, 0.2]]))
    behaviour = theory.SoftmaxPolicy([[0.0, 0.0, MINUS_INFINITY], [0.0, MINUS_INFINITY, 0.0], [0.0, 0.0, 0.0]])
    return process, target, behaviour


def test_missing_support_is_refused_unless_it_is_asked_for():
    with pytest.raises(ValueError, match=r"behaviour gives action 2 of state 0 probability 0 where target gives 0\.2"):
        ask(truncated_instance())


@pytest.mark.parametrize("engine", ["recursion", "enumeration", "sampling"])
def test_lost_mass_is_the_targets_probability_of_what_mu_cannot_do(engine):
    """By hand: action 2 in state 0 at step 0, 1 or 2, 0.2 (1 + 0.5 + 0.25) = 0.35; absorbing state 1 does not act."""
    m = ask(truncated_instance(), missing_support="allow", engine=engine, trajectories=100)
    assert m.lost_mass == pytest.approx(0.35, rel=1e-14)


def test_lost_mass_keeps_its_digits_where_it_is_small():
    process, target, behaviour = truncated_instance()
    logits = np.array(target.logits)
    logits[0, 2] = np.log(1e-20)
    target = theory.SoftmaxPolicy(logits)
    stay = target.probabilities[0, 0]
    m = ask((process, target, behaviour), missing_support="allow")
    assert m.lost_mass == pytest.approx(target.probabilities[0, 2] * (1 + stay + stay**2), rel=1e-12)


def test_support_missing_in_an_absorbing_state_only_is_no_loss():
    process, target, behaviour = truncated_instance()
    logits = np.array(behaviour.logits)
    logits[0, 2] = 0.0
    m = ask((process, target, theory.SoftmaxPolicy(logits)))
    assert m.lost_mass == 0.0


def test_support_missing_where_mu_never_comes_is_no_loss():
    """State 2 is entered by action 2 of state 0 alone; at horizon 1 it is entered only when nothing acts any more."""
    process, target, behaviour = truncated_instance()
    logits, pi = np.array(behaviour.logits), np.array(target.logits)
    logits[0, 1], pi[0, 1:] = MINUS_INFINITY, MINUS_INFINITY
    logits[2, 1] = MINUS_INFINITY
    pair = theory.SoftmaxPolicy(pi), theory.SoftmaxPolicy(logits)
    m = ask((process, *pair))
    assert m.lost_mass == 0.0
    np.testing.assert_array_equal(m.mean, ask((process, *pair), missing_support="allow").mean)
    # Where mu does come, if only with a chance of 1e-300, it is a loss: by an action, by the start, by a last step.
    rare = np.array(logits)
    rare[0, 2] = np.log(1e-300)
    with pytest.raises(ValueError, match="behaviour gives action 1 of state 2 probability 0"):
        ask((process, pair[0], theory.SoftmaxPolicy(rare)))
    arguments = (process.transition, process.reward)
    short = theory.MarkovProcess(process.initial, *arguments, 1, process.terminal_reward, process.absorbing)
    assert ask((short, pair[0], theory.SoftmaxPolicy(rare))).lost_mass == 0.0
    two = theory.MarkovProcess(process.initial, *arguments, 2, process.terminal_reward, process.absorbing)
    with pytest.raises(ValueError, match="behaviour gives action 1 of state 2 probability 0"):
        ask((two, pair[0], theory.SoftmaxPolicy(rare)))
    started = theory.MarkovProcess([0.5, 0.0, 0.5], *arguments, 1)
    with pytest.raises(ValueError, match="behaviour gives action 1 of state 2 probability 0"):
        ask((started, *pair))


@given(instances(same_policy=False))
def test_the_two_records_of_lost_mass_are_one_number(instance):
    process, target, behaviour = instance
    logits = np.array(behaviour.logits)
    logits[:, 1:] = MINUS_INFINITY
    behaviour = theory.SoftmaxPolicy(logits)
    m = ask((process, target, behaviour), missing_support="allow")
    assert m.lost_mass == theory.divergences(process, target, behaviour).sequence.lost_mass


def test_with_lost_support_the_mean_is_that_of_the_data_mu_can_give():
    """sequence x outcome over what mu can do is the target's expectation with the lost trajectories left out."""
    process, target, behaviour = truncated_instance()
    expected = np.zeros(9)
    for steps, last in [((0, 0, 0), 1.0), ((1,), 2.0), ((0, 1), 2.0), ((0, 0, 1), 2.0)]:
        probability = np.prod([target.probabilities[0, a] for a in steps])
        expected += probability * last * sum(target.score[0, a] for a in steps)
    for engine in ("recursion", "enumeration"):
        m = ask((process, target, behaviour), "sequence", missing_support="allow", engine=engine)
        np.testing.assert_allclose(m.mean, expected, rtol=1e-12, atol=1e-15)
        assert m.relative_bias > 0.1
