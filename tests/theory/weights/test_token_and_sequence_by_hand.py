"""Soft gates, flipped ratios, divergence masks and sequence masks in numbers that can be checked by hand."""

import math

import numpy as np
import pytest

import theory
from theory.weights.left_out import LEFT_OUT


def coefficients(name, ratios, advantages=None, *, given=None, **options):
    """One sequence in, its coefficients out. `given` is (T,) each."""
    with np.errstate(divide="ignore"):
        log_ratio = np.log(np.array([ratios], dtype=float))
    advantage = None if advantages is None else np.array([advantages], dtype=float)
    beside = {key: np.array([values], dtype=float) for key, values in (given or {}).items()}
    return theory.weight(name, **options).coefficients(log_ratio, None, advantage, **beside)[0]


def probabilities(pi, mu):
    """The ratios of a list of tokens, and their log-probabilities."""
    with np.errstate(divide="ignore"):
        return [p / m for p, m in zip(pi, mu, strict=True)], {"log_probability": np.log(np.array(pi, dtype=float))}


# SAPO


def test_sapo_is_the_ratio_times_four_p_one_minus_p():
    # tau = 1: rho = 2 has p = 1/(1 + e^-1) = 0.7310586, 4 p (1-p) = 0.7864477; rho = 1/2 has p = sigmoid(-1/2).
    p = 1 / (1 + math.exp(0.5))
    np.testing.assert_allclose(
        coefficients("sapo", [1, 2, 0.5], [1, 1, 1]), [1, 2 * 0.7864477329659274, 0.5 * 4 * p * (1 - p)], rtol=1e-14
    )
    # Negative advantages, and none, have the other temperature: x = 1.05.
    p = 1 / (1 + math.exp(-1.05))
    np.testing.assert_allclose(coefficients("sapo", [2, 2], [-1, 0]), [8 * p * (1 - p)] * 2, rtol=1e-14)
    # Hand: with tau = ln 3 and rho = 2, p = 3/4: 4 x 3/16 x 2 = 3/2.
    assert coefficients("sapo", [2], [1], tau_positive=math.log(3))[0] == pytest.approx(1.5, rel=1e-14)


def test_sapo_at_the_ends():
    """An overflowed ratio has weight zero, not NaN; so has one of zero; a large one is as small as it should be."""
    log_ratio = np.array([[800.0, -800.0, -np.inf, math.log(50.0)]])
    c = theory.weight("sapo").coefficients(log_ratio, None, np.ones((1, 4)))[0]
    np.testing.assert_array_equal(c[:3], 0)
    assert c[3] == pytest.approx(4 * 50 * math.exp(-49), rel=1e-13)


def test_sapo_is_largest_where_its_card_says():
    rho = np.linspace(0.5, 4, 3501)
    c = coefficients("sapo", rho, np.ones_like(rho))
    assert rho[c.argmax()] == pytest.approx(2.06, abs=0.001)
    assert c.max() == pytest.approx(1.575, abs=0.001)


# ASPO


def test_aspo_flips_the_ratio_of_positive_tokens_and_bounds_that_of_negative_ones():
    ratios = [1.1, 0.5, 0.25, 1.3, 1.0]
    np.testing.assert_allclose(coefficients("aspo", ratios, [1] * 5), [1 / 1.1, 2, 3, 0, 1])
    # Negative: nothing below 0.8, the constant 3 above 3 where PPO's dual clip has nothing.
    ratios = [0.79, 0.9, 2, 4]
    np.testing.assert_allclose(coefficients("aspo", ratios, [-1] * 4), [0, 0.9, 2, 3])
    np.testing.assert_allclose(coefficients("ppo_clip", ratios, [-1] * 4, dual=3.0), [0, 0.9, 2, 0])
    np.testing.assert_allclose(coefficients("aspo", ratios, [-1] * 4, dual=None), [0, 0.9, 2, 4])


def test_aspo_on_its_bounds_and_at_the_ends():
    # On a bound the gradient is kept, as by a clamp; with cap 2 and dual 2 the ratios 1/2 and 2 sit on the caps.
    on = {"clip": (0.5, 2.0), "cap": 2.0, "dual": 2.0}
    np.testing.assert_array_equal(coefficients("aspo", [2, 0.5], [1, 1], **on), [0.5, 2])
    np.testing.assert_array_equal(coefficients("aspo", [2, 0.5], [-1, -1], **on), [2, 0.5])
    # A = 0 goes with the positive ones; a ratio of zero meets the cap; an overflow the clip or the dual.
    np.testing.assert_array_equal(coefficients("aspo", [0, 0, 0], [1, 0, -1]), [3, 3, 0])
    log_ratio = np.array([[800.0, 800.0, -800.0]])
    c = theory.weight("aspo").coefficients(log_ratio, None, np.array([[1.0, -1.0, 1.0]]))[0]
    np.testing.assert_array_equal(c, [0, 3, 3])


# TOPR


def test_topr_takes_the_whole_ratio_of_what_went_badly():
    # W = 2 x 1/4 = 1/2 for both tokens; by tokens min(2, 1) and 1/4.
    np.testing.assert_allclose(coefficients("topr", [2, 0.25], [-1, -1]), [0.5, 0.5])
    np.testing.assert_allclose(coefficients("topr", [2, 0.25], [-1, -1], level="token"), [1, 0.25])
    np.testing.assert_allclose(coefficients("topr", [2, 0.25], [1, 1]), [1, 1])
    np.testing.assert_allclose(coefficients("topr", [4, 0.75], [-1, -1], cap=2.0), [2, 2])
    # A = 0 has the tapered ratio; a ratio of zero and an overflow are bounded by it.
    np.testing.assert_allclose(coefficients("topr", [0.5, 1], [0, 0]), [0.5, 0.5])
    np.testing.assert_array_equal(coefficients("topr", [0, 1e300], [-1, 1]), [0, 1])
    np.testing.assert_array_equal(coefficients("topr", [1e300, 1e300], [-1, -1]), [1, 1])


# DPPO


def test_dppo_masks_by_the_probability_and_not_by_the_ratio():
    """Ratio 2 at mu = 0.01 is a shift of 0.01: kept. Ratio 1.25 at mu = 0.8 is one of 0.2: dropped, if A widens it."""
    ratios, given = probabilities([0.02, 1.0, 0.02, 1.0], [0.01, 0.8, 0.01, 0.8])
    np.testing.assert_allclose(coefficients("dppo", ratios, [1, 1, -1, -1], given=given), [2, 0, 2, 1.25])
    # PPO's clip does the reverse.
    np.testing.assert_allclose(coefficients("ppo_clip", ratios[:2], [1, 1], clip=(0.8, 1.28)), [0, 1.25])


def test_dppo_on_its_bound_at_zero_advantage_and_above_the_cap():
    # |0.5 - 0.25| = 0.25 exactly: on the bound it is kept; a hair less and it goes.
    ratios, given = probabilities([0.5, 0.25], [0.25, 0.5])
    np.testing.assert_array_equal(coefficients("dppo", ratios, [1, -1], given=given, delta=0.25), [2, 0.5])
    np.testing.assert_array_equal(coefficients("dppo", ratios, [1, -1], given=given, delta=0.2499), [0, 0])
    np.testing.assert_array_equal(coefficients("dppo", ratios, [0, 0], given=given, delta=0.0), [2, 0.5])
    np.testing.assert_array_equal(coefficients("dppo", ratios, [-1, 1], given=given, delta=0.0), [2, 0.5])
    np.testing.assert_array_equal(coefficients("dppo", ratios, [-1, 1], given=given, delta=0.0, cap=1.5), [1.5, 0.5])


def test_dppos_binary_kl():
    """mu = 1/2, pi = 3/4: KL(mu || pi) = (ln(2/3) + ln 2)/2 = ln(4/3)/2 = 0.14384; the other way it is 0.13081."""
    ratios, given = probabilities([0.75], [0.5])
    exact = math.log(4 / 3) / 2
    for delta, kept in ((exact - 1e-12, 0.0), (exact + 1e-12, 1.5), (0.135, 0.0)):
        c = coefficients("dppo", ratios, [1], given=given, divergence="binary_kl", delta=delta)
        assert c[0] == pytest.approx(kept)


def test_dppos_binary_kl_at_the_ends():
    # pi = mu = 1: no other token, no divergence. pi that rounds to 1 leaves 2^-53 to the other tokens: for mu = 0.9999
    # that is 1e-4 ln(1e-4 / 2^-53) - 0.9999 ln(1 / 0.9999) = 1e-4 x 27.526 - 0.99995e-4 = 0.0026526.
    ratios, given = probabilities([1, 1, 0], [1, 0.9999, 0.5])
    for delta, kept in ((0.00266, 1 / 0.9999), (0.00264, 0)):
        c = coefficients("dppo", ratios, [1, 1, -1], given=given, divergence="binary_kl", delta=delta)
        np.testing.assert_allclose(c, [1, kept, 0], rtol=1e-12)
    unbounded = coefficients("dppo", ratios, [1, 1, -1], given=given, divergence="binary_kl", delta=math.inf)
    np.testing.assert_allclose(unbounded, [1, 1 / 0.9999, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sharp_policy_has_a_small_binary_kl(dtype):
    """pi rounds to 1 and mu is e^-1e-4: the divergence is at most 1e-4 x ln(1e-4 / 2^-53) = 0.003, not infinite."""
    log_ratio, zero = np.array([[1e-4]], dtype=dtype), np.zeros((1, 1), dtype=dtype)
    weight = theory.weight("dppo", divergence="binary_kl")
    found = weight.coefficients(log_ratio, None, zero + 1, log_probability=zero)
    np.testing.assert_array_equal(found, np.exp(log_ratio))


def test_two_sharp_policies_of_the_engines_are_close_in_binary_kl():
    """Logits 40 and 12 against 0: pi rounds to 1, and both KLs are far below 0.05, so that nothing is dropped."""
    process = theory.MarkovProcess(
        initial=[1.0], transition=np.ones((1, 2, 1)), reward=[[1.0, 0.0]], horizon=1, terminal_reward=[0.0]
    )
    target, behaviour = theory.SoftmaxPolicy([[40.0, 0.0]]), theory.SoftmaxPolicy([[12.0, 0.0]])
    for engine in ("recursion", "enumeration"):
        kept, whole = (
            theory.moments(process, target, behaviour, theory.Estimator(w, "target_action_value"), engine).mean
            for w in (theory.weight("dppo", divergence="binary_kl"), "token")
        )
        np.testing.assert_allclose(kept, whole, rtol=1e-12)
        assert np.abs(whole).max() > 0.0


def test_dppo_by_the_whole_distribution_looks_at_no_token():
    for divergence, bound in (("total_variation", 0.15), ("kl", 0.05)):
        given = {divergence: [bound, bound + 1e-9, bound + 1e-9]}
        c = coefficients("dppo", [2, 2, 2], [1, 1, -1], given=given, divergence=divergence)
        np.testing.assert_array_equal(c, [2, 0, 2])


def test_what_dppo_needs_follows_its_divergence():
    needs = {d: theory.weight("dppo", divergence=d).needs for d in ("binary_tv", "binary_kl", "total_variation", "kl")}
    assert needs == {
        "binary_tv": ("log_probability",),
        "binary_kl": ("log_probability",),
        "total_variation": ("total_variation",),
        "kl": ("kl",),
    }


# DRPO


def test_drpo_weighs_by_the_shift_of_the_probability():
    """pi = 1/2, mu = 1/4, epsilon = 1/2: factor 1 -+ 1/2. At the paper's 12.5 it is 1 -+ 0.02."""
    ratios, given = probabilities([0.5, 0.5, 0.5], [0.25] * 3)
    np.testing.assert_allclose(coefficients("drpo", ratios, [1, -1, 0], given=given, epsilon=0.5), [1, 3, 2])
    np.testing.assert_allclose(coefficients("drpo", ratios, [1, -1, 0], given=given), [1.96, 2.04, 2])
    # Past epsilon the sign turns, and at epsilon the weight is zero.
    np.testing.assert_allclose(coefficients("drpo", ratios, [1] * 3, given=given, epsilon=0.125), [-2] * 3)
    np.testing.assert_array_equal(coefficients("drpo", ratios, [1] * 3, given=given, epsilon=0.25), [0] * 3)


def test_drpo_at_the_ends():
    ratios, given = probabilities([0.0], [0.5])
    np.testing.assert_array_equal(coefficients("drpo", ratios, [-1], given=given), [0])
    # mu so small that the ratio overflows, and a factor of exactly zero: zero, not NaN.
    log_ratio, one = np.array([[800.0]]), np.ones((1, 1))
    c = theory.weight("drpo", epsilon=1.0).coefficients(log_ratio, None, one, log_probability=0.0 * one)
    np.testing.assert_array_equal(c, [[0.0]])


# The mask of log-ratios, and the mixture


def test_the_log_ratio_mask_is_an_interval_of_ratios():
    # threshold 2: |l| <= 2. The bound itself is kept.
    log_ratio = np.array([[2.0, -2.0, 2.001, -2.001, -np.inf, 800.0, 0.0]])
    c = theory.weight("log_ratio_mask").coefficients(log_ratio)[0]
    np.testing.assert_allclose(c, [math.exp(2), math.exp(-2), 0, 0, 0, 0, 1])
    other = np.random.default_rng(0).normal(scale=2.0, size=(5, 20))
    r = math.sqrt(2 * 0.7)
    as_masked = theory.weight("masked", interval=(math.exp(-r), math.exp(r)))
    np.testing.assert_array_equal(
        theory.weight("log_ratio_mask", threshold=0.7).coefficients(other), as_masked.coefficients(other)
    )


def test_k3_masks_a_ratio_far_above_one_and_not_one_as_far_below():
    """e^2 - 3 = 4.39 and e^-2 + 1 = 1.14; both have k2 = 2."""
    log_ratio = np.array([[2.0, -2.0, -np.inf, 800.0, 0.0]])
    c = theory.weight("log_ratio_mask", estimator="k3").coefficients(log_ratio)
    np.testing.assert_allclose(c, [[0, math.exp(-2), 0, 0, 1]])
    wide = theory.weight("log_ratio_mask", estimator="k3", threshold=4.4).coefficients(log_ratio)
    np.testing.assert_allclose(wide, [[math.exp(2), math.exp(-2), 0, 0, 1]])


def test_cispos_mask_drops_what_ppo_drops_and_keeps_the_bound_elsewhere():
    """Ratios 4, 1, 1/4 within (1/2, 2): 4 is lost for A > 0, 1/4 for A < 0; the other side keeps the bound."""
    ratios, clip = [4, 1, 0.25], (0.5, 2.0)
    for sign, masked in ((1, [0, 1, 0.5]), (-1, [2, 1, 0]), (0, [2, 1, 0.5])):
        found = coefficients("cispo", ratios, [sign] * 3, clip=clip, mask=True)
        np.testing.assert_allclose(found, masked, rtol=1e-15)
    np.testing.assert_allclose(coefficients("cispo", ratios, clip=clip), [2, 1, 0.5], rtol=1e-15)


def test_the_mixture_draws_the_ratio_to_one():
    np.testing.assert_allclose(coefficients("mixed_ratio", [2, 0.5, 0], alpha=0.25), [1.75, 0.625, 0.25])
    np.testing.assert_array_equal(coefficients("mixed_ratio", [2, 0.5, 0], alpha=0.0), [2, 0.5, 0])
    log_ratio = np.array([[800.0, -np.inf]])
    np.testing.assert_array_equal(theory.weight("mixed_ratio", alpha=1.0).coefficients(log_ratio), [[1, 1]])
    np.testing.assert_array_equal(theory.weight("mixed_ratio").coefficients(log_ratio), [[math.inf, 0.1]])


# GMPO


def test_gmpo_clips_before_the_mean_and_only_the_clipped_lose_their_gradient():
    """Ratios 4, 1/2, 1 within (1/2, 2): A > 0 clips the 4 to 2: (2 x 1/2 x 1)^(1/3) = 1."""
    clip = (0.5, 2.0)
    np.testing.assert_allclose(coefficients("gmpo", [4, 0.5, 1], [1] * 3, clip=clip), [0, 1, 1], rtol=1e-14)
    # A < 0 leaves the 4 and keeps 1/2, which is on the bound: (4 x 1/2)^(1/3).
    np.testing.assert_allclose(coefficients("gmpo", [4, 0.5, 1], [-1] * 3, clip=clip), [2 ** (1 / 3)] * 3, rtol=1e-14)
    # GSPO clips the mean itself: all or nothing.
    np.testing.assert_allclose(coefficients("gspo", [4, 0.5, 1], [1] * 3, clip=(0.8, 1.2)), [0] * 3)


def test_gmpo_at_zero_advantage_and_at_the_ends():
    # A = 0 is not clipped: (4 x 2)^(1/2) for the token with A > 0, and the 4 counts in full.
    np.testing.assert_allclose(coefficients("gmpo", [4, 2], [0, 1], clip=(0.5, 2.0)), [8**0.5] * 2, rtol=1e-14)
    # A ratio of zero: clipped to the lower bound where A < 0, all of the mean where A > 0.
    np.testing.assert_allclose(coefficients("gmpo", [0, 1], [-1, -1], clip=(0.25, 2.0)), [0, 0.5], rtol=1e-14)
    np.testing.assert_array_equal(coefficients("gmpo", [0, 1], [1, 1]), [0, 0])
    log_ratio, one = np.array([[800.0, 0.0]]), np.ones((1, 2))
    np.testing.assert_allclose(theory.weight("gmpo").coefficients(log_ratio, None, one), [[0, math.exp(0.2)]])
    np.testing.assert_array_equal(theory.weight("gmpo").coefficients(log_ratio, None, -one), np.exp([[400.0, 400.0]]))


# VESPO


def test_vespo_is_a_power_times_an_exponential():
    # W = 2 x 1/4 = 1/2: (1/2)^2 e^(3/2) for A > 0, (1/2)^3 e^(2/2) for A < 0; A = 0 goes with A > 0.
    expected = [0.25 * math.exp(1.5), 0.125 * math.e, 0.25 * math.exp(1.5)]
    np.testing.assert_allclose(coefficients("vespo", [2, 0.25, 1], [1, -1, 0]), expected, rtol=1e-14)
    np.testing.assert_array_equal(coefficients("vespo", [2, 0.5], [1, -1]), [1, 1])


def test_vespo_is_largest_at_k_over_lambda():
    log_w = np.linspace(-1, 1, 2001)[:, None]
    for sign, peak in ((1.0, 2 / 3), (-1.0, 3 / 2)):
        c = theory.weight("vespo").coefficients(log_w, None, sign * np.ones_like(log_w))[:, 0]
        assert np.exp(log_w[c.argmax(), 0]) == pytest.approx(peak, abs=2e-3)


def test_vespo_cuts_log_ratios_at_20():
    one = np.ones((1, 2))
    log_ratio = np.array([[-np.inf, 0.0]])
    c = theory.weight("vespo").coefficients(log_ratio, None, one)
    np.testing.assert_allclose(c, np.full((1, 2), math.exp(3 - 40 - 3 * math.exp(-20))), rtol=1e-13)
    # Each token first: -800 and 25 are -20 and 20, W = 1.
    np.testing.assert_array_equal(theory.weight("vespo").coefficients(np.array([[-800.0, 25.0]]), None, one), one)
    np.testing.assert_array_equal(theory.weight("vespo").coefficients(np.array([[800.0, 0.0]]), None, one), 0 * one)


# Sequence masks


@pytest.mark.parametrize(
    ("statistic", "value"),
    [
        ("geometric", 2 ** (1 / 3)),  # of 4, 1/2, 1
        ("product", 2.0),
        ("k1", -math.log(2) / 3),
        ("k2", (math.log(4) ** 2 + math.log(2) ** 2) / 6),
        ("k3", (3 - math.log(4) - 0.5 + math.log(2)) / 3),
        ("sum_k2", (math.log(4) ** 2 + math.log(2) ** 2) / 2),
        ("sum_k3", 3 - math.log(4) - 0.5 + math.log(2)),
        ("max_k2", math.log(4) ** 2 / 2),
        ("max_k3", 3 - math.log(4)),
        ("largest_kl", 0.5),
        ("mean_kl", 0.25),
    ],
)
def test_a_sequence_is_kept_where_its_statistic_is_inside(statistic, value):
    given = {"kl": [0.5, 0.25, 0.0]} if statistic.endswith("_kl") else {}
    carried = {"none": [1, 1, 1], "token": [4, 0.5, 1], "sequence": [2, 2, 2]}
    small = 1e-9
    for tokens, kept in carried.items():
        for interval, result in (
            ((value - small, value + small), kept),
            ((value + small, value + 1), [0, 0, 0]),
            ((min(value, 0.0) - (statistic == "k1"), value - small), [0, 0, 0]),
        ):
            c = coefficients(
                "sequence_mask", [4, 0.5, 1], given=given, statistic=statistic, interval=interval, tokens=tokens
            )
            np.testing.assert_allclose(c, result, rtol=1e-14)


def test_a_statistic_on_its_bound_is_kept():
    for interval in ((1.0, 2.0), (2.0, 3.0)):
        c = coefficients("sequence_mask", [2, 1], statistic="product", interval=interval)
        np.testing.assert_array_equal(c, [1, 1])
    c = coefficients(
        "sequence_mask", [2, 1], given={"kl": [0.5, 0.0]}, statistic="mean_kl", interval=(0.0, 0.25), tokens="token"
    )
    np.testing.assert_array_equal(c, [2, 1])


def test_opposite_drifts_pass_the_geometric_mean_and_not_k2():
    """Ratios 10 and 1/10."""
    ratios = [10, 0.1]
    np.testing.assert_array_equal(coefficients("sequence_mask", ratios), [1, 1])
    np.testing.assert_array_equal(
        coefficients("sequence_mask", ratios, statistic="k2", interval=(0.0, 2.0)), [0, 0]
    )  # (ln 10)^2 / 2 = 2.65


def test_sequence_masks_at_the_ends():
    """A ratio of zero, and an overflow: outside every finite interval but those of 0, and never NaN."""
    for log_ratio in ([[-np.inf, 0.0]], [[800.0, 0.0]], [[-np.inf, 800.0]]):
        for statistic in ("k2", "k3"):
            weight = theory.weight("sequence_mask", statistic=statistic, interval=(0.0, 1e300), tokens="token")
            if statistic == "k3" or -np.inf in log_ratio[0]:
                np.testing.assert_array_equal(weight.coefficients(np.array(log_ratio)), [[0, 0]])
    everything = theory.weight("sequence_mask", statistic="k1", interval=(-math.inf, math.inf), tokens="token")
    log_ratio = np.array([[-np.inf, 800.0, 0.5]])
    np.testing.assert_array_equal(everything.coefficients(log_ratio), theory.weight("token").coefficients(log_ratio))
    assert everything.baseline_invariant
    assert not theory.weight(
        "sequence_mask", statistic="k1", interval=(0.0, math.inf), tokens="token"
    ).baseline_invariant


def test_off_policy_sequences_are_dropped_where_the_advantage_is_negative():
    """Ratios 1/4 and 1: the mean of -l is ln 2 = 0.693. Ratios 1/2 and 1: 0.347, below 0.5."""
    mask = "off_policy_sequence_mask"
    np.testing.assert_allclose(coefficients(mask, [0.25, 1], [-1, -1]), [0, 0])
    np.testing.assert_allclose(coefficients(mask, [0.25, 1], [1, 0]), [0.25, 1])
    np.testing.assert_allclose(coefficients(mask, [0.5, 1], [-1, -1]), [0.5, 1])
    np.testing.assert_allclose(coefficients(mask, [0.25, 1], [-1, -1], threshold=0.7), [0.25, 1])
    # Ratios above one are no reason to drop; one of zero is.
    np.testing.assert_allclose(coefficients(mask, [9, 9], [-1, -1]), [9, 9])
    np.testing.assert_allclose(coefficients(mask, [0, 9], [-1, 1]), [0, 9])
    for tokens, carried in (("none", [1, 1]), ("sequence", [0.25, 0.25])):
        np.testing.assert_allclose(coefficients(mask, [0.25, 1], [1, 1], tokens=tokens), carried)
        np.testing.assert_allclose(coefficients(mask, [0.25, 1], [-1, -1], tokens=tokens), [0, 0])
    # On its bound a sequence is kept.
    at = np.array([[-0.5, -0.5]])
    found = theory.weight(mask).coefficients(at, None, -np.ones((1, 2)))
    np.testing.assert_allclose(found, np.exp(at))


def test_masked_at_sequence_level_is_a_sequence_mask():
    log_ratio = np.random.default_rng(1).normal(size=(20, 4))
    mask = theory.weight("sequence_mask", statistic="product", interval=(0.5, 2.0), tokens="sequence")
    other = theory.weight("masked", level="sequence", interval=(0.5, 2.0))
    np.testing.assert_allclose(mask.coefficients(log_ratio), other.coefficients(log_ratio), rtol=1e-14)


# TRM


def test_trm_keeps_a_response_by_its_largest_and_its_mean_divergence():
    ratios = [3, 0.5]
    for kl, kept in (([0.05, 0.0], True), ([0.0501, 0.0], False), ([0.001, 0.0], True)):
        c = coefficients("trm", ratios, given={"kl": kl}, mean=None)
        np.testing.assert_allclose(c, ratios if kept else [0, 0])
    for kl, kept in (([0.002, 0.0], True), ([0.0021, 0.0], False)):
        np.testing.assert_allclose(coefficients("trm", ratios, given={"kl": kl}), ratios if kept else [0, 0])
        np.testing.assert_allclose(coefficients("trm", ratios, given={"kl": kl}, mean=None), ratios)
    # Infinite where mu takes what pi never takes; a ratio of zero and an overflow in a dropped response are dropped.
    np.testing.assert_array_equal(coefficients("trm", [0, 1e300], given={"kl": [math.inf, 0.0]}), [0, 0])
    np.testing.assert_allclose(coefficients("trm", ratios, given={"kl": [9, 9]}, largest=None, mean=None), ratios)


def test_trm_max_is_a_sequence_mask():
    rng = np.random.default_rng(2)
    log_ratio, kl = rng.normal(size=(20, 4)), 0.03 * rng.exponential(size=(20, 4))
    for largest, mean, statistic, high in ((0.05, None, "largest_kl", 0.05), (None, 0.03, "mean_kl", 0.03)):
        mask = theory.weight("sequence_mask", statistic=statistic, interval=(0.0, high), tokens="token")
        expected = theory.weight("trm", largest=largest, mean=mean).coefficients(log_ratio, kl=kl)
        np.testing.assert_array_equal(mask.coefficients(log_ratio, kl=kl), expected)
        assert 0 < (expected == 0).mean() < 1


# Options


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sapo", {"tau_positive": 0.0}),
        ("sapo", {"tau_negative": math.inf}),
        ("aspo", {"clip": (0.2, 0.2)}),
        ("aspo", {"cap": 0.0}),
        ("aspo", {"dual": 0.5}),
        ("topr", {"level": "prefix"}),
        ("topr", {"cap": -1.0}),
        ("dppo", {"divergence": "top_k"}),
        ("dppo", {"delta": -0.1}),
        ("dppo", {"delta": math.nan}),
        ("dppo", {"cap": 0.0}),
        ("drpo", {"epsilon": 0.0}),
        ("drpo", {"epsilon": True}),
        ("log_ratio_mask", {"threshold": None}),
        ("log_ratio_mask", {"threshold": -1.0}),
        ("log_ratio_mask", {"estimator": "k1"}),
        ("cispo", {"mask": 1}),
        ("off_policy_sequence_mask", {"threshold": math.nan}),
        ("off_policy_sequence_mask", {"tokens": "prefix"}),
        ("mixed_ratio", {"alpha": 1.1}),
        ("gmpo", {"clip": (0.4, 0.4)}),
        ("vespo", {"k_positive": -1.0}),
        ("vespo", {"lambda_negative": math.inf}),
        ("sequence_mask", {"statistic": "median"}),
        ("sequence_mask", {"interval": (2.0, 1.0)}),
        ("sequence_mask", {"tokens": "truncated"}),
        ("trm", {"largest": -1.0}),
        ("trm", {"mean": "0.1"}),
    ],
)
def test_an_option_without_meaning_is_refused_in_one_sentence(name, options):
    (option, value), = options.items()  # fmt: skip
    with pytest.raises(ValueError, match=f"^{option} is .*; expected ") as error:
        theory.weight(name, **options)
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 140


def test_the_interval_of_k1_may_be_negative_and_no_other():
    theory.weight("sequence_mask", statistic="k1", interval=(-0.1, 0.1))
    for statistic, interval in (("k1", (0.1, -0.1)), ("k1", 0.1), ("k1", ("0", "1")), ("k2", (-0.1, 0.1))):
        with pytest.raises(ValueError, match=r"^interval is "):
            theory.weight("sequence_mask", statistic=statistic, interval=interval)


def test_what_is_left_out_is_not_registered():
    known = {name.lower() for name in theory.weight_cards()}
    for name, why in LEFT_OUT.items():
        assert name.lower() not in known
        assert why.endswith(".")
        assert "\n" not in why
