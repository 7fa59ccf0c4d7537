"""The identities of the field, each with its negative control: what must fail, fails measurably.

I1 to I5 are those of PNPO (arXiv 2608.01418), section 2.3 and appendix B, and of DPPO (arXiv 2602.04879) for I5.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theory
from tests import brute_force
from tests.instances import Instance, instances, random_instance
from tests.theory.engines.comparing import ask
from tests.theory.weights.variants import ONE_AT_ONE, VARIANTS

# Nothing special about it: an identity that does not hold fails here by more than a hundredth.
DENSE = random_instance(seed=0)
MEASURABLE = 1e-2


def token_tree(seed, drift, V=3, T=4):
    """Every prefix is a state of its own; the leaves pay."""
    rng = np.random.default_rng(seed)
    inner = (V**T - 1) // (V - 1)
    S = inner + V**T
    following = np.repeat(np.arange(S)[:, None], V, axis=1)
    following[:inner] = V * np.arange(inner)[:, None] + 1 + np.arange(V)
    paid = np.concatenate([np.zeros(inner), rng.normal(size=V**T)])
    process = theory.MarkovProcess(np.eye(S)[0], np.eye(S)[following], np.zeros((S, V)), T, paid)
    behaviour = theory.SoftmaxPolicy(rng.normal(size=(S, V)))
    return Instance(process, theory.SoftmaxPolicy(behaviour.logits + drift * rng.normal(size=(S, V))), behaviour)


def exact(instance, weight, signal, score="own"):
    """By the exact engine that can."""
    m = ask(instance, weight, signal, "auto", score)
    assert m.engine != "sampling"
    return m


def assert_unbiased(m):
    size = max(float(np.sqrt(m.variance)), float(np.linalg.norm(m.gradient)), 1e-3)
    np.testing.assert_allclose(m.mean, m.gradient, rtol=0, atol=1e-11 * size)


# I1 to I4


IDENTITIES = {
    "I1, the whole sequence": ("sequence", theory.signal("outcome"), "own"),
    "I1 with a constant baseline": ("sequence", theory.signal("outcome", baseline=2.0), "own"),
    "I1 with the expected return": ("sequence", theory.signal("outcome", baseline="expected_return"), "own"),
    "I2, the prefix and A of the target": ("prefix", theory.signal("target_advantage"), "own"),
    "I2 with Q in place of A": ("prefix", theory.signal("target_action_value"), "own"),
    "I2, cumulative, as A of the target has mean zero": ("prefix", theory.signal("target_advantage"), "cumulative"),
    "I3, the prefix and A of mu, cumulative": ("prefix", theory.signal("behaviour_advantage"), "cumulative"),
    "I4, per decision": ("prefix", theory.signal("reward"), "cumulative"),
}


@pytest.mark.parametrize("identity", IDENTITIES)
@given(instances())
def test_the_identities_hold_on_every_instance(identity, instance):
    assert_unbiased(exact(instance, *IDENTITIES[identity]))


@pytest.mark.parametrize("identity", IDENTITIES)
def test_the_identities_hold_where_nothing_is_special_and_at_a_long_horizon(identity):
    assert_unbiased(exact(DENSE, *IDENTITIES[identity]))
    m = exact(random_instance(seed=1, T=60, drift=0.1, features=3), *IDENTITIES[identity])
    assert np.linalg.norm(m.gradient) > MEASURABLE
    assert_unbiased(m)


CLIPPED_OR_MASKED = [
    theory.weight("minpro", clip=(0.8, 1.28)),
    *(theory.weight(name) for name in ("truncated", "masked", "ppo_clip", "gspo", "cispo", "v_trace", "m2po")),
    theory.weight("truncated", level="sequence"),
    theory.weight("masked", level="sequence"),
]
NOT_UNBIASED = [
    ("prefix", "outcome", "own"),
    ("prefix", "reward_to_go", "own"),
    ("prefix", "behaviour_advantage", "own"),
    ("prefix", "behaviour_action_value", "cumulative"),
    ("prefix", "target_action_value", "cumulative"),
    ("prefix", "reward", "own"),
    ("sequence", "behaviour_advantage", "own"),
    *(
        (weight, signal, "own")
        for weight in ("none", "token", "minpro", "suffix", "geometric")
        for signal in ("target_advantage", "behaviour_advantage", "outcome")
    ),
    *((weight, "target_advantage", "own") for weight in CLIPPED_OR_MASKED),
]


@pytest.mark.parametrize("case", NOT_UNBIASED, ids=lambda c: theory.Estimator(c[0], c[1], c[2]).label)
def test_what_is_not_unbiased_is_measurably_biased(case):
    """The same comparison that the identities pass rejects all of these."""
    m = exact(DENSE, *case)
    assert m.relative_bias > MEASURABLE
    with pytest.raises(AssertionError):
        assert_unbiased(m)


def test_the_full_sequence_ratio_costs_variance():
    """I1 is unbiased at the price for which the others exist."""
    assert exact(DENSE, "sequence", "outcome").variance > 2 * exact(DENSE, "prefix", "target_advantage").variance


# I5, the surrogate identity


def surrogate(instance, suffixes=True):
    """E_mu[R sum over t of (rho_t - 1) S_t], or with S_t = 1, by brute force."""
    process, target, behaviour = instance
    total = 0.0
    for x in brute_force.trajectories(process, behaviour):
        rho = [math.exp(r) for r in brute_force.log_ratios(x, target, behaviour)]
        paid = sum(process.discount**t * r for t, r in enumerate(x.rewards)) + process.discount**x.length * x.terminal
        terms = sum((rho[t] - 1) * (math.prod(rho[t + 1 :]) if suffixes else 1.0) for t in range(x.length))
        total += x.probability * paid * terms
    return total


@given(instances())
def test_i5_the_surrogate_with_suffixes_is_the_performance_difference(instance):
    process, target, behaviour = instance
    difference = theory.values(process, target).expected_return - theory.values(process, behaviour).expected_return
    scale = 1.0 + np.exp(process.horizon * np.abs(target.log_probabilities - behaviour.log_probabilities).max())
    assert abs(surrogate(instance) - difference) < 1e-12 * scale


def test_i5_fails_without_the_suffixes():
    """PPO's surrogate sets S_t = 1; what is missing is E_mu[R sum of (rho_t - 1)(1 - S_t)]."""
    difference = theory.performance_difference(*DENSE)
    assert surrogate(DENSE) == pytest.approx(difference, rel=1e-10)
    assert abs(surrogate(DENSE, suffixes=False) - difference) > MEASURABLE * abs(difference)


# Baseline invariance and its leak


def leak(instance, weight, signal="outcome"):
    """The sum of E[c_t b(s_t) z_t] with b = V of the target, relative to the gradient: what subtracting b changes."""
    without = exact(instance, weight, signal)
    subtracted = exact(instance, weight, theory.signal(signal, baseline="target_value"))
    return np.linalg.norm(without.mean - subtracted.mean) / np.linalg.norm(without.gradient)


INVARIANT = ["token", "prefix", "minpro", "suffix", "sequence"]
LEAKING = [
    "none",
    "geometric",
    "v_trace",
    "cispo",
    "masked",
    "gspo",
    "ppo_clip",
    theory.weight("truncated", cap=1.1),
    theory.weight("truncated", level="sequence"),
    theory.weight("masked", level="sequence"),
    theory.weight("minpro", inclusive=True),
    theory.weight("minpro", clip=(0.8, 1.28)),
]


@pytest.mark.parametrize("weight", INVARIANT)
@given(instances())
def test_a_baseline_drops_out_of_these_weights_on_every_instance(weight, instance):
    without = exact(instance, weight, "outcome")
    for baseline in (1.0, "target_value", "behaviour_value"):
        m = exact(instance, weight, theory.signal("outcome", baseline=baseline))
        size = max(1e-3, np.sqrt(m.variance), np.sqrt(without.variance), np.linalg.norm(m.mean))
        np.testing.assert_allclose(m.mean, without.mean, rtol=0, atol=1e-11 * size)


@pytest.mark.parametrize("weight", LEAKING, ids=lambda w: getattr(w, "label", w))
def test_a_baseline_leaks_through_clips_masks_and_the_inclusive_minimum(weight):
    # A larger drift than elsewhere, so that the default bounds bind.
    assert leak(random_instance(seed=0, drift=1.5), weight) > MEASURABLE


@pytest.mark.parametrize("weight", INVARIANT)
def test_a_baseline_does_not_leak_from_a_dense_process(weight):
    assert leak(random_instance(seed=0, drift=1.5), weight) < 1e-10


# Exchange identities


def action_corrected(instance):
    """Nothing but the action corrected: the sum over t, s, a of discount^t d_mu(s) pi(a|s) Q^mu(s, a) z(s, a)."""
    process, target, behaviour = instance
    of_mu = theory.values(process, behaviour)
    total = np.zeros(target.parameter_count)
    for t in range(process.horizon):
        for s in np.flatnonzero(~process.absorbing):
            for a in range(process.actions):
                weight = process.discount**t * of_mu.occupancy[t, s] * target.probabilities[s, a]
                total = total + weight * of_mu.action_value[t, s, a] * target.score[s, a]
    return total


@given(instances(), st.sampled_from(["behaviour_advantage", "behaviour_action_value", "reward_to_go", "outcome"]))
def test_token_with_the_advantage_of_mu_corrects_the_action_and_nothing_else(instance, signal):
    """g00: states of mu, action of the target, continuation of mu. A return under mu estimates Q of mu."""
    m = exact(instance, "token", signal)
    size = max(1e-3, np.sqrt(m.variance))
    np.testing.assert_allclose(m.mean, action_corrected(instance), rtol=0, atol=1e-11 * size)


@given(instances(), st.sampled_from(["outcome", "reward_to_go"]))
def test_token_with_the_advantage_of_the_target_is_the_suffix_with_the_return(instance, signal):
    """g01: states of mu, action and continuation of the target."""
    one, other = exact(instance, "token", "target_advantage"), exact(instance, "suffix", signal)
    size = max(1e-3, np.sqrt(one.variance), np.sqrt(other.variance))
    np.testing.assert_allclose(one.mean, other.mean, rtol=0, atol=1e-11 * size)


@given(instances(), st.sampled_from(["outcome", "reward_to_go"]))
def test_prefix_with_the_advantage_of_mu_is_the_prefix_with_the_return(instance, signal):
    """g10: occupancy and action of the target, continuation of mu."""
    one, other = exact(instance, "prefix", "behaviour_advantage"), exact(instance, "prefix", signal)
    size = max(1e-3, np.sqrt(one.variance), np.sqrt(other.variance))
    np.testing.assert_allclose(one.mean, other.mean, rtol=0, atol=1e-11 * size)


def test_the_four_cells_are_four_different_vectors():
    """Neither exchange is a coincidence of small differences: what is exchanged differs from the other cells."""
    cells = [
        exact(DENSE, *cell).mean
        for cell in [
            ("token", "behaviour_advantage"),
            ("prefix", "behaviour_advantage"),
            ("token", "target_advantage"),
            ("prefix", "target_advantage"),
        ]
    ]
    g = theory.policy_gradient(DENSE.process, DENSE.target)
    distances = [np.linalg.norm(x - y) / np.linalg.norm(g) for i, x in enumerate(cells) for y in cells[:i]]
    assert min(distances) > MEASURABLE
    np.testing.assert_allclose(cells[3], g, rtol=1e-10, atol=1e-13)


# pi = mu


@pytest.mark.parametrize("weight", ONE_AT_ONE, ids=lambda w: w.label)
@given(instances(same_policy=True, max_horizon=2), st.sampled_from(["outcome", "target_advantage", "reward_to_go"]))
def test_with_equal_policies_every_weight_gives_the_on_policy_gradient(weight, instance, signal):
    assert_unbiased(exact(instance, weight, signal))


@pytest.mark.parametrize("weight", [w for w in VARIANTS if w not in ONE_AT_ONE], ids=lambda w: w.label)
def test_a_cap_below_one_cuts_the_ratio_of_equal_policies_too(weight):
    same = DENSE._replace(behaviour=DENSE.target)
    m = exact(same, weight, "target_advantage")
    if weight.name == "truncated":
        np.testing.assert_allclose(m.mean, weight.options["cap"] * m.gradient, rtol=1e-10)
    assert m.effective_step < 0.95


def test_with_unequal_policies_they_do_not():
    spread = {weight.label: exact(DENSE, weight, "outcome").relative_bias for weight in ONE_AT_ONE}
    unbiased = {label for label, bias in spread.items() if bias < 1e-10}
    assert unbiased == {"sequence", "ppo_clip(clip=(0.0, inf), level=sequence)"}


# Marginalised importance sampling


def marginalised(instance):
    """Mean and second moment of the sum of w_t rho_t A^pi z_t, with w_t the ratio of occupancies or P_t.

    The last number is the largest |w_t - P_t| / P_t over all prefixes.
    """
    process, target, behaviour = instance
    of_target, of_mu = theory.values(process, target), theory.values(process, behaviour)
    results = {kind: [np.zeros(target.parameter_count), 0.0] for kind in ("marginal", "prefix")}
    largest = 0.0
    for x in brute_force.trajectories(process, behaviour):
        log_ratio = brute_force.log_ratios(x, target, behaviour)
        sums = {kind: np.zeros(target.parameter_count) for kind in results}
        for t, (s, a) in enumerate(zip(x.states, x.actions, strict=False)):
            prefix = math.exp(sum(log_ratio[:t]))
            marginal = of_target.occupancy[t, s] / of_mu.occupancy[t, s]
            largest = max(largest, abs(marginal - prefix) / prefix)
            for kind, w in (("marginal", marginal), ("prefix", prefix)):
                term = w * math.exp(log_ratio[t]) * of_target.advantage[t, s, a] * process.discount**t
                sums[kind] = sums[kind] + term * target.score[s, a]
        for kind, (mean, second) in results.items():
            g_hat = sums[kind]
            results[kind] = [mean + x.probability * g_hat, second + x.probability * float(g_hat @ g_hat)]
    return results, largest


def test_in_a_token_tree_the_marginal_state_ratio_is_the_prefix_ratio():
    results, largest = marginalised(token_tree(0, 0.7))
    assert largest < 1e-11
    assert results["marginal"][1] == pytest.approx(results["prefix"][1], rel=1e-11)


def test_with_merged_states_the_marginal_ratio_is_another_one_and_saves_variance():
    instance = random_instance(seed=0, S=3, A=2, T=4, absorbing=False)
    results, largest = marginalised(instance)
    g = theory.policy_gradient(*instance[:2])
    for kind in results:
        np.testing.assert_allclose(results[kind][0], g, rtol=1e-10, atol=1e-13)
    assert largest > MEASURABLE
    assert results["marginal"][1] < 0.95 * results["prefix"][1]


# Bias by drift: random trees of three tokens and four steps


COLUMNS = {
    "rho A^pi": ("token", "target_advantage", "own"),
    "rho A^mu": ("token", "behaviour_advantage", "own"),
    "C A^pi": ("prefix", "target_advantage", "own"),
    "C A^mu": ("prefix", "behaviour_advantage", "own"),
    "C R": ("prefix", "outcome", "own"),
    "C A^mu cumulative": ("prefix", "behaviour_advantage", "cumulative"),
    "W R": ("sequence", "outcome", "own"),
    "min A^pi": ("minpro", "target_advantage", "own"),
    "min A^mu": ("minpro", "behaviour_advantage", "own"),
    "suffix R": ("suffix", "outcome", "own"),
}
EXACT_COLUMNS = {"C A^pi", "C A^mu cumulative", "W R"}
DRIFTS = (0.1, 0.5, 1.0)


@pytest.fixture(scope="module")
def by_drift():
    """column -> (drift, tree) -> moments."""
    trees = {drift: [token_tree(seed, drift) for seed in range(5)] for drift in DRIFTS}
    return {
        column: {drift: [exact(tree, *cell) for tree in trees[drift]] for drift in DRIFTS}
        for column, cell in COLUMNS.items()
    }


def average(by_drift, column, drift, what="relative_bias"):
    return float(np.mean([getattr(m, what) for m in by_drift[column][drift]]))


@pytest.mark.parametrize("column", COLUMNS)
def test_bias_is_zero_for_the_identities_and_grows_with_drift_for_the_others(by_drift, column):
    bias = [average(by_drift, column, drift) for drift in DRIFTS]
    if column in EXACT_COLUMNS:
        assert max(bias) < 1e-11
    else:
        assert MEASURABLE < bias[0] < 0.2 < bias[2] < 1.0
        assert 2 * bias[0] < bias[1] < bias[2]


def test_columns_that_are_one_estimator_in_the_mean_coincide(by_drift):
    for one, other in (("C A^mu", "C R"), ("rho A^pi", "suffix R")):
        for drift in DRIFTS:
            for m, n in zip(by_drift[one][drift], by_drift[other][drift], strict=True):
                np.testing.assert_allclose(m.mean, n.mean, rtol=1e-9, atol=1e-13)
                assert abs(m.variance / n.variance - 1.0) > MEASURABLE


def test_with_returns_of_mu_the_minimum_recovers_little_of_what_the_exact_prefix_does(by_drift):
    """At the largest drift: token > minimum > exact prefix > 0, and the same order by direction."""
    token, least, prefix = (average(by_drift, column, 1.0) for column in ("rho A^mu", "min A^mu", "C A^mu"))
    assert token > least > prefix > 0.1
    assert least - prefix > token - least
    cosines = [average(by_drift, column, 1.0, "cosine") for column in ("rho A^mu", "min A^mu", "C A^mu")]
    assert cosines[0] < cosines[1] < cosines[2] < 1.0


def test_with_advantages_of_the_target_the_minimum_is_between_the_token_and_the_prefix(by_drift):
    for drift in DRIFTS:
        assert average(by_drift, "rho A^pi", drift) > average(by_drift, "min A^pi", drift) > MEASURABLE
        assert average(by_drift, "C A^pi", drift) < 1e-11


def test_the_prefix_with_a_return_can_point_the_wrong_way():
    """Two tokens; the first is a fair coin, the second agrees with it under mu and disagrees under the target.

    In the first token's logit the gradient is -eps/2 and `prefix x outcome` gives +eps/2
    (33modeling/offpolicy-misranking, scripts/verify_theory.py).
    """
    eps = 0.1
    following = [[1, 2], [3, 4], [3, 4], [3, 3], [4, 4]]
    process = theory.MarkovProcess(np.eye(5)[0], np.eye(5)[following], np.zeros((5, 2)), 2, np.eye(5)[4])
    high, low, fair = [0.5 - eps, 0.5 + eps], [0.5 + eps, 0.5 - eps], [0.5, 0.5]
    behaviour = theory.SoftmaxPolicy(np.log([fair, low, high, fair, fair]))
    target = theory.SoftmaxPolicy(np.log([fair, high, low, fair, fair]))
    instance = Instance(process, target, behaviour)
    assert theory.policy_gradient(process, target)[1] == pytest.approx(-eps / 2, rel=1e-12)
    for weight in ("none", "token", "prefix", "minpro"):
        assert exact(instance, weight, "outcome").mean[1] == pytest.approx(eps / 2, rel=1e-12)
    for weight in ("suffix", "sequence"):
        assert exact(instance, weight, "outcome").mean[1] == pytest.approx(-eps / 2, rel=1e-12)
