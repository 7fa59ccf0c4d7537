"""Weights of prefixes, windows, three policies and batches, in numbers that can be checked with pencil and paper."""

import math

import numpy as np
import pytest

import theory

LOG = np.log


def coefficients(name, ratios, advantages=None, mask=None, given=None, **options):
    """One sequence in, its coefficients out."""
    with np.errstate(divide="ignore"):
        log_ratio = LOG(np.array([ratios], dtype=float))
    advantage = None if advantages is None else np.array([advantages], dtype=float)
    beside = {name: np.array([values], dtype=float) for name, values in (given or {}).items()}
    mask = None if mask is None else np.array([mask])
    return theory.weight(name, **options).coefficients(log_ratio, mask, advantage, **beside)[0]


def test_ctpo_clips_the_cumulative_ratio_at_bounds_that_widen():
    """Bounds 1/2, 1/4, 1/8 and 3, 9, 27; cumulative ratios 4, 6, 12."""
    options = {"epsilon_low": math.log(2), "epsilon_high": math.log(3), "power": 1.0}
    ratios = [4, 1.5, 2]
    np.testing.assert_allclose(coefficients("ctpo", ratios, [1] * 3, **options), [0, 6, 12])
    np.testing.assert_allclose(coefficients("ctpo", ratios, [1] * 3, cap=10.0, **options), [0, 6, 0])
    np.testing.assert_allclose(coefficients("ctpo", ratios, [-1] * 3, epsilon_dual=None, **options), [4, 6, 12])
    # Dual thresholds 5, 25, 125 keep all; 2, 4, 8 keep nothing.
    np.testing.assert_allclose(coefficients("ctpo", ratios, [-1] * 3, epsilon_dual=math.log(5), **options), [4, 6, 12])
    np.testing.assert_allclose(coefficients("ctpo", ratios, [-1] * 3, epsilon_dual=math.log(2), **options), [0, 0, 0])
    # From below: cumulative ratios 0.25, 0.2, 0.2.
    below = coefficients("ctpo", [0.25, 0.8, 1], [-1] * 3, **options)
    np.testing.assert_allclose(below, [0, 0, 0.2])
    np.testing.assert_allclose(coefficients("ctpo", [0.25, 0.8, 1], [1] * 3, **options), [0.25, 0.2, 0.2])


def test_ctpo_counts_the_tokens_that_count():
    options = {"epsilon_low": math.log(2), "epsilon_high": math.log(3), "power": 1.0}
    kept = coefficients("ctpo", [2, 99, 3.5, 1], [1] * 4, [True, False, True, True], **options)
    np.testing.assert_allclose(kept, [2, 0, 7, 7])


def test_ctpo_clamps_the_log_ratio_of_a_token():
    """e^25 counts as e^20, and an action that the target never takes as e^-20."""
    wide = {"epsilon_low": 100.0, "epsilon_high": 100.0, "epsilon_dual": None, "cap": math.inf}
    np.testing.assert_allclose(coefficients("ctpo", [math.exp(25)], [1], **wide), [math.exp(20)], rtol=1e-14)
    np.testing.assert_allclose(coefficients("ctpo", [0], [1], **wide), [math.exp(-20)], rtol=1e-14)
    np.testing.assert_allclose(coefficients("ctpo", [4, 9], [1, 1], normalised=True, **wide), [4, 6], rtol=1e-14)


def test_a_slope_of_zero_is_a_bound_of_one_at_any_power():
    """Bounds exp(0 t^1000) = 1 below, and above e at t = 1 and infinity afterwards, where t^1000 overflows."""
    options = {"epsilon_low": 0.0, "epsilon_high": 1.0, "epsilon_dual": None, "power": 1000.0}
    np.testing.assert_allclose(coefficients("ctpo", [2, 2, 0.2], [1] * 3, **options), [2, 4, 0.8])
    np.testing.assert_allclose(coefficients("ctpo", [2, 2, 0.2], [-1] * 3, **options), [2, 4, 0])
    np.testing.assert_allclose(coefficients("ctpo", [3, 2, 0.2], [1] * 3, **options), [0, 6, 1.2])


def test_pnpo_gates_the_mean_of_the_ratios_so_far():
    """Means 4, sqrt(4) and 1; gates [1 - h/2, 1 + h] with h = sqrt(3), sqrt(3/2), 1."""
    ratios, options = [4, 1, 0.25], {"epsilon_low": 0.5, "epsilon_high": 1.0}
    np.testing.assert_allclose(coefficients("pnpo", ratios, **options), [0, 2, 1])
    np.testing.assert_allclose(coefficients("pnpo", ratios, gate=False), [4, 2, 1])
    # A length of one: h = 1, and 2.5 is out where h = sqrt(3) would let it in.
    np.testing.assert_allclose(coefficients("pnpo", [2.5], **options), [0])
    np.testing.assert_allclose(coefficients("pnpo", [2.5, 0.4, 1], **options), [2.5, 1, 1])


def test_windows_look_back_or_forth():
    ratios = [2, 0.5, 4, 3]
    np.testing.assert_allclose(coefficients("window", ratios, size=1), [2, 1, 2, 12])
    np.testing.assert_allclose(coefficients("window", ratios, size=2), [2, 1, 4, 6])
    np.testing.assert_allclose(coefficients("nfpo", ratios), [1, 2, 12, 3])
    np.testing.assert_allclose(coefficients("nfpo", ratios, steps=3), [4, 6, 12, 3])
    for short, long, other in (("window", {"size": 3}, "prefix"), ("nfpo", {"steps": 4}, "suffix")):
        np.testing.assert_allclose(coefficients(short, ratios, **long), coefficients(other, ratios))
    for one, options in (("window", {"size": 0}), ("nfpo", {"steps": 1})):
        np.testing.assert_allclose(coefficients(one, ratios, **options), ratios)


def test_a_window_steps_over_what_does_not_count():
    ratios, mask = [2, 99, 0.5, 99, 4], [True, False, True, False, True]
    np.testing.assert_allclose(coefficients("window", ratios, mask=mask, size=1), [2, 0, 1, 0, 2])
    np.testing.assert_allclose(coefficients("nfpo", ratios, mask=mask), [1, 0, 2, 0, 4])


def test_retrace_fades_and_keeps_the_tokens_own_ratio():
    np.testing.assert_allclose(coefficients("retrace", [0.5, 2, 0.8]), [0.5, 1, 0.4])
    np.testing.assert_allclose(coefficients("retrace", [0.5, 2, 0.8], decay=0.5), [0.5, 0.5, 0.1])
    np.testing.assert_allclose(
        coefficients("retrace", [0.5, 9, 2, 0.8], mask=[True, False, True, True], decay=0.5), [0.5, 0, 0.5, 0.1]
    )


def test_marginalised_weighs_the_state_and_the_action():
    given = {"state_ratio": [1, 0.5, 0]}
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(coefficients("marginalised", [2, 3, 1e308], given=given), [2, 1.5, 0])


@pytest.mark.parametrize(
    ("statistic", "inclusive", "expected"),
    [
        ("geometric", True, [0, 0.25, 4]),  # 4, 1, (4)^(1/3) = 1.59
        ("geometric", False, [4, 0, 4]),  # 1, 4, 1
        ("product", True, [0, 0.25, 0]),  # 4, 1, 4
        ("product", False, [4, 0, 4]),  # 1, 4, 1
        ("minimum", True, [0, 0, 0]),  # 4, 1/4, 1/4
        ("minimum", False, [4, 0, 0]),  # 1, 4, 1/4
    ],
)
def test_a_prefix_mask_keeps_the_tokens_own_ratio(statistic, inclusive, expected):
    found = coefficients(
        "prefix_mask", [4, 0.25, 4], statistic=statistic, inclusive=inclusive, interval=(0.5, 2.0)
    )  # fmt: skip
    np.testing.assert_allclose(found, expected)


def test_cppo_spends_a_budget():
    """w = 1, 3/4, 1/2: w D = 0.1, 0.135, 0.15; S = 0.1, 0.235, 0.385; allowed 0.15, 0.25, 0.325."""
    given, options = {"total_variation": [0.1, 0.18, 0.3]}, {"w_min": 0.5, "delta_b": 0.1}
    np.testing.assert_allclose(coefficients("cppo", [2, 3, 4], [1, 1, 1], given=given, **options), [2, 3, 0])
    np.testing.assert_allclose(coefficients("cppo", [2, 3, 4], [-1, -1, -1], given=given, **options), [2, 3, 4])
    np.testing.assert_allclose(coefficients("cppo", [0.2, 0.3, 0.4], [-1] * 3, given=given, **options), [0.2, 0.3, 0])
    soft = coefficients("cppo", [2, 3, 4], [1, 1, 1], given=given, soft=True, **options)
    np.testing.assert_allclose(soft, [2, 3, 4 * 0.325 / 0.385])
    # The 90th percentile, 0.18 + 0.8 x 0.12, is far above twice 0.02: allowed 0.15, 0.15 + 0.04, 0.15 + 0.07.
    options["delta_b"] = "p90"
    np.testing.assert_allclose(coefficients("cppo", [2, 3, 4], [1, 1, 1], given=given, **options), [2, 0, 0])
    # delta_b_min = 0.2 leaves the percentile 0.276 as it is: allowed 0.15, 0.426, 0.633, and only 0.15 binds.
    kept = coefficients("cppo", [2, 3, 4], [1, 1, 1], given=given, delta_b_min=0.2, w_min=0.5)
    np.testing.assert_allclose(kept, [2, 3, 4])


def test_cppo_bounds_a_token_and_a_prefix_apart():
    """A single token has w = 1, and its bound is delta."""
    for distance, kept in ((0.14, 2), (0.16, 0)):
        found = coefficients("cppo", [2], [1], given={"total_variation": [distance]})
        np.testing.assert_allclose(found, [kept])
    # The bound of the token alone: S = 0.2 is within 0.15 + 0.5, w D = 0.8 x 0.25 is not within 0.15.
    given = {"total_variation": [0.0, 0.25]}
    np.testing.assert_allclose(coefficients("cppo", [2, 2], [1, 1], given=given, delta_b=0.5), [2, 0])
    soft = coefficients("cppo", [2, 2], [1, 1], given=given, delta_b=0.5, soft=True)
    np.testing.assert_allclose(soft, [2, 2 * 0.15 / 0.2])


def test_cppo_by_the_sampled_token_alone():
    """pi = 1/2, 3/4, 1/4 and mu = 1/4, 1/2, 1/8: D = 1/4, 1/4, 1/8, ratios 2, 3/2, 2; w = 1, 3/4, 1/2.

    w D = 0.25, 0.1875, 0.0625; S = 0.25, 0.4375, 0.5; allowed 0.25, 0.25 + 0.2, 0.25 + 0.35 with delta_b = 0.2.
    """
    given = {"log_probability": LOG([0.5, 0.75, 0.25])}
    options = {"divergence": "binary_tv", "w_min": 0.5}
    for delta, delta_b, expected in ((0.251, 0.2, [2, 1.5, 2]), (0.24, 0.2, [0, 1.5, 2]), (0.251, 0.1, [2, 0, 0])):
        found = coefficients("cppo", [2, 1.5, 2], [1] * 3, given=given, delta=delta, delta_b=delta_b, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    with pytest.raises(ValueError, match="log_ratio is -inf at a token that counts, which does not tell mu; expected"):
        coefficients("cppo", [2, 0, 2], [1] * 3, given={"log_probability": LOG([0.5, 0.75, 0.25])}, **options)
    coefficients("cppo", [2, 0, 2], [1] * 3, [True, False, True], given=given, **options)


# Three policies


def three(ratios, old, advantages=None, **options):
    return coefficients("decoupled", ratios, advantages, given={"old_log_ratio": LOG(old)}, **options)


def test_decoupled_ppo_clips_the_update_and_weighs_the_mismatch():
    """pi / mu = 3, 1/2; pi_old / mu = 2, 1/4: the update is 3/2, 2."""
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], [-1, -1]), [3, 0.5])
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], [1, 1]), [0, 0])
    wider = theory.weight("ppo_clip", clip=(0.5, 1.6))
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], [1, 1], update=wider), [3, 0])
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], [-1, -1], behaviour="masked"), [3, 0])
    capped = theory.weight("truncated", cap=1.5)
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], [-1, -1], behaviour=capped), [2.25, 0.5])
    whole = theory.weight("truncated", level="sequence")  # 2 x 1/4 for both tokens
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], [-1, -1], behaviour=whole), [0.75, 1])
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], [-1, -1], behaviour="none"), [1.5, 2])
    np.testing.assert_allclose(three([3, 0.5], [2, 0.25], update="token"), [3, 0.5])


def test_an_interpolated_anchor_shares_the_ratio():
    """16^(1/4) = 2 and 16^(3/4) = 8."""
    for options in ({"anchor": 0.75}, {"anchor": "lag", "given": {"lag": [4]}}):
        np.testing.assert_allclose(coefficients("decoupled", [16], [-1], **options), [16])
        np.testing.assert_allclose(coefficients("decoupled", [16], [1], **options), [0])
        np.testing.assert_allclose(coefficients("decoupled", [16], [-1], behaviour="none", **options), [2])
        np.testing.assert_allclose(coefficients("decoupled", [16], update="none", **options), [8])
    for lag in (0, 1):
        found = coefficients("decoupled", [16], update="none", anchor="lag", given={"lag": [lag]})
        np.testing.assert_allclose(found, [1])
    for anchor in (0.0, 1.0):  # an action that the target never takes
        np.testing.assert_allclose(coefficients("decoupled", [0], [1], anchor=anchor), [0])


def test_a_zero_beside_an_overflow_is_zero():
    never = {"old_log_ratio": np.array([[0.0, -math.inf]])}
    log_ratio = np.array([[800.0, -math.inf]])
    found = theory.weight("decoupled", update="token", behaviour="sequence").coefficients(log_ratio, **never)
    np.testing.assert_array_equal(found, [[0, 0]])
    with pytest.raises(ValueError, match="old_log_ratio is -inf where log_ratio is not"):
        theory.weight("decoupled", update="token").coefficients(np.zeros((1, 2)), **never)


def test_a_weight_and_its_name_are_one_option():
    named, made = theory.weight("decoupled", update="token"), theory.weight("decoupled", update=theory.weight("token"))
    assert named == made
    assert hash(named) == hash(made)
    assert made.label == "decoupled(update=token)"
    other = theory.weight("decoupled", behaviour=theory.weight("masked", interval=(0.0, 5.0)))
    assert other.label == "decoupled(behaviour=masked(interval=(0.0, 5.0)))"
    assert other != theory.weight("decoupled", behaviour="masked")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "cppo"}, "update is 'cppo', which needs total_variation; expected a weight of one sequence's"),
        ({"behaviour": "decoupled"}, "behaviour is 'decoupled', which needs old_log_ratio; expected"),
        ({"behaviour": "self_normalised"}, "behaviour is 'self_normalised', which couples the batch; expected"),
        ({"update": "ppo_clp"}, "unknown weight 'ppo_clp'; the nearest known name is 'ppo_clip'"),
    ],
)
def test_what_cannot_be_one_of_two_factors_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        theory.weight("decoupled", **options)


def test_decoupled_has_the_properties_of_its_factors():
    def made(**options):
        return theory.weight("decoupled", **options)

    assert made().uses_advantage
    assert not made(update="token").uses_advantage
    assert made(update="token", behaviour="ppo_clip").uses_advantage
    assert made().needs == ("old_log_ratio",)
    assert made(anchor="lag").needs == ("lag",)
    assert made(anchor=0.5).needs == ()
    assert made(update="prefix", behaviour="prefix").parts == theory.Parts("full")
    assert made(update="minpro", behaviour="minpro").parts == theory.Parts()
    for pair, factorises, invariant in (
        (("ppo_clip", "token"), True, False),
        (("prefix", "minpro"), True, True),
        (("minpro", "minpro"), False, True),  # two running minima
        (("suffix", "suffix"), True, True),
        (("suffix", "token"), True, False),  # later ratios of the update alone, under mu
        (("gspo", "token"), False, False),
        (("geometric", "token"), False, False),  # by length
    ):
        weight = made(update=pair[0], behaviour=pair[1])
        assert weight.factorises is factorises, pair
        assert weight.baseline_invariant is invariant, pair
    assert made(anchor="lag").factorises
    assert not made(update="prefix", anchor="lag").factorises


# Prefix levels, and batches


def test_prefix_levels_of_truncated_and_masked():
    """Cumulative ratios 3, 1.5, 6."""
    np.testing.assert_allclose(coefficients("truncated", [3, 0.5, 4], level="prefix"), [2, 1.5, 2])
    np.testing.assert_allclose(coefficients("masked", [3, 0.5, 4], level="prefix"), [3, 1.5, 0])


def batch(ratios, mask, **options):
    with np.errstate(divide="ignore"):
        log_ratio = LOG(np.array(ratios, dtype=float))
    return theory.weight("self_normalised", **options).coefficients(log_ratio, np.array(mask))


TWO = ([[2, 1], [3, 99]], [[True, True], [True, False]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[1, 0.5], [1.5, 0]]),  # mean of 2, 1, 3
        ({"cap": 2.0}, [[1.2, 0.6], [1.2, 0]]),  # mean of 2, 1, 2
        ({"level": "sequence"}, [[0.8, 0.8], [1.2, 0]]),  # mean of 2, 3
        ({"level": "prefix"}, [[0.8, 1], [1.2, 0]]),  # means of 2, 3 and of 2
        ({"level": "prefix", "cap": 2.0}, [[1, 1], [1, 0]]),
    ],
)
def test_ratios_over_their_mean(options, expected):
    np.testing.assert_allclose(batch(*TWO, **options), expected)


def test_places_are_counted_over_the_tokens_that_count():
    """The second row's first token stands at t = 1, wherever it stands."""
    found = batch([[2, 1], [99, 3]], [[True, True], [False, True]], level="prefix")
    np.testing.assert_allclose(found, [[0.8, 1], [0, 1.2]])


def test_a_sequence_without_a_token_enters_no_mean():
    for level in ("token", "prefix", "sequence"):
        found = batch([[2, 1], [9, 9], [3, 99]], [[True, True], [False, False], [True, False]], level=level)
        np.testing.assert_allclose(found[[0, 2]], batch(*TWO, level=level))


def test_where_all_ratios_are_zero_the_weight_is_zero():
    for level in ("token", "prefix", "sequence"):
        np.testing.assert_array_equal(batch([[0, 0], [0, 0]], [[True] * 2] * 2, level=level), np.zeros((2, 2)))
    # One place of two: the first tokens have ratios, the second ones none.
    found = batch([[1, 0], [3, 0]], [[True] * 2] * 2, level="prefix")
    np.testing.assert_allclose(found, [[0.5, 0], [1.5, 0]])


def test_ratios_that_overflow_still_have_a_quotient():
    log_ratio = np.array([[800.0, 800.0], [800.0, 800.0 - math.log(3)]])
    found = theory.weight("self_normalised", level="sequence").coefficients(log_ratio)
    np.testing.assert_allclose(found, [[1.5, 1.5], [0.5, 0.5]], rtol=1e-12)
