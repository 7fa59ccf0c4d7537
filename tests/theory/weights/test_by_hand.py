"""Each weight in numbers that can be checked with pencil and paper, and its edges."""

import math

import numpy as np
import pytest

import theory
from theory.weights.m2po import largest_threshold


def coefficients(name, ratios, advantages=None, mask=None, **options):
    """One sequence in, its coefficients out."""
    with np.errstate(divide="ignore"):
        log_ratio = np.log(np.array([ratios], dtype=float))
    advantage = None if advantages is None else np.array([advantages], dtype=float)
    mask = None if mask is None else np.array([mask])
    return theory.weight(name, **options).coefficients(log_ratio, mask, advantage)[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", [1, 1, 1]),
        ("token", [2, 0.5, 4]),
        ("prefix", [2, 1, 4]),
        ("suffix", [4, 2, 4]),
        ("sequence", [4, 4, 4]),
        ("geometric", [4 ** (1 / 3)] * 3),
        ("minpro", [2, 1, 2]),  # nothing earlier; 2 x 0.5; min(2, 0.5) x 4
    ],
)
def test_unclipped_weights_of_ratios_2_half_4(name, expected):
    np.testing.assert_allclose(coefficients(name, [2, 0.5, 4]), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", [1, 0, 1, 0]),
        ("token", [2, 0, 3, 0]),
        ("prefix", [2, 0, 6, 0]),
        ("suffix", [6, 0, 3, 0]),
        ("sequence", [6, 0, 6, 0]),
        ("geometric", [6**0.5, 0, 6**0.5, 0]),
        ("minpro", [2, 0, 6, 0]),
        ("v_trace", [1, 0, 1, 0]),
    ],
)
def test_a_masked_token_has_no_ratio(name, expected):
    """The second and the last token do not count: their 0.1 and 9 enter no product, no minimum and no length."""
    result = coefficients(name, [2, 0.1, 3, 9], mask=[True, False, True, False])
    np.testing.assert_allclose(result, expected, rtol=1e-14)


def test_minpro_clips_the_product():
    np.testing.assert_allclose(coefficients("minpro", [2, 0.5, 4], clip=(0.8, 1.28)), [1.28, 1, 1.28])
    # Inclusive: 2 x 2, 0.5 x 0.5, 0.5 x 4.
    np.testing.assert_allclose(coefficients("minpro", [2, 0.5, 4], inclusive=True), [4, 0.25, 2])


def test_truncated_at_both_levels():
    np.testing.assert_allclose(coefficients("truncated", [3, 0.5, 1]), [2, 0.5, 1])
    np.testing.assert_allclose(coefficients("truncated", [3, 0.5, 1], level="sequence"), [1.5] * 3)
    np.testing.assert_allclose(coefficients("truncated", [3, 0.5, 1], level="sequence", cap=1.25), [1.25] * 3)


def test_masked_at_both_levels_and_on_its_bounds():
    np.testing.assert_allclose(coefficients("masked", [6, 0.4, 2]), [0, 0, 2])
    np.testing.assert_array_equal(coefficients("masked", [1, 1], interval=(1.0, 1.0)), [1, 1])
    np.testing.assert_allclose(coefficients("masked", [6, 0.4], level="sequence"), [2.4] * 2)
    np.testing.assert_allclose(coefficients("masked", [6, 0.4], level="sequence", interval=(0.5, 2.0)), [0] * 2)


def test_ppo_clip_loses_the_gradient_on_one_side_only():
    ratios = [1.5, 1.5, 0.5, 0.5, 1.1, 1.1]
    np.testing.assert_allclose(coefficients("ppo_clip", ratios, [1, -1, 1, -1, 1, -1]), [0, 1.5, 0.5, 0, 1.1, 1.1])
    # Without an advantage there is nothing to clip, and c_t A_t is zero whatever c_t is.
    np.testing.assert_allclose(coefficients("ppo_clip", [1.5, 0.5], [0, 0]), [1.5, 0.5])


def test_the_dual_clip_bounds_large_ratios_of_negative_advantages():
    np.testing.assert_allclose(coefficients("ppo_clip", [4, 4, 2.5], [1, -1, -1], dual=3.0), [0, 0, 2.5])


def test_ppo_clip_is_the_gradient_of_the_clipped_objective():
    """By differences, away from the kinks: d/d log rho of min(rho A, clip(rho) A), and of its dual clip."""

    def objective(ratio, advantage, dual):
        clipped = min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
        return max(clipped, dual * advantage) if dual is not None and advantage < 0 else clipped

    step = 1e-6
    for ratio in (0.3, 0.79, 0.81, 1.0, 1.27, 1.29, 2.9, 3.1):
        for advantage in (-1.5, 2.0):
            for dual in (None, 3.0):
                up, down = (objective(ratio * math.exp(h), advantage, dual) for h in (step, -step))
                c = coefficients("ppo_clip", [ratio], [advantage], clip=(0.8, 1.28), dual=dual)[0]
                assert c * advantage == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_gspo_clips_the_geometric_mean():
    # sqrt(4 x 1) = 2, above the clip: positive advantages lose their gradient, negative ones keep it.
    np.testing.assert_allclose(coefficients("gspo", [4, 1], [1, 1]), [0, 0])
    np.testing.assert_allclose(coefficients("gspo", [4, 1], [-1, -1]), [2, 2])
    np.testing.assert_allclose(coefficients("gspo", [4, 1], [-1, 1]), [2, 0])
    np.testing.assert_allclose(coefficients("gspo", [2, 0.5], [1, -1]), [1, 1])


def test_cispo_keeps_the_bound_as_weight():
    np.testing.assert_allclose(coefficients("cispo", [5, 0.1, 1]), [3, 0.1, 1])
    np.testing.assert_allclose(coefficients("cispo", [5, 0.1, 1], clip=(0.8, 1.28)), [1.28, 0.8, 1])


def test_v_trace_multiplies_truncated_ratios():
    # Traces 1, min(1, 0.5), then min(1, 0.5) min(1, 2); own min(1, rho).
    np.testing.assert_allclose(coefficients("v_trace", [0.5, 2, 0.8]), [0.5, 0.5, 0.4])
    np.testing.assert_allclose(coefficients("v_trace", [0.5, 2, 0.8], cap=3.0, trace_cap=1.5), [0.5, 1, 0.6])


def test_m2po_spends_its_budget():
    """Three harmful tokens with log-ratios 0.1, 0.2, 0.6: (0.01 + 0.04 + tau^2) / 3 = 0.04 gives tau = sqrt(0.07)."""
    squares = np.array([[0.6, 0.0, 0.1, 0.2]]) ** 2
    tau = largest_threshold(np, squares, squares > 0, 0.04)
    np.testing.assert_allclose(tau, [[math.sqrt(0.07)]], rtol=1e-14)
    # e^tau = 1.303 lies between e^0.2 = 1.221 and e^0.6 = 1.822. The token at 0.5 is harmless: A < 0 and rho > 1.
    ratios, advantages = np.exp([0.1, 0.2, 0.6, 0.5]), [1, 1, 1, -1]
    kept = np.array([1, 1, 0, 1])
    np.testing.assert_allclose(coefficients("m2po", ratios, advantages, clip=(1.0, 1.0)), kept * ratios, rtol=1e-14)
    # Never narrower than clip: the default widens 1.303 to 1.5, and 1.9 lets the third token pass.
    np.testing.assert_allclose(coefficients("m2po", ratios, advantages), kept * ratios, rtol=1e-14)
    np.testing.assert_allclose(coefficients("m2po", ratios, advantages, clip=(0.7, 1.9)), ratios, rtol=1e-14)
    # The same mirrored: A < 0 and rho < 1.
    lower = coefficients("m2po", 1 / ratios, [-1, -1, -1, 1], clip=(1.0, 1.0))
    np.testing.assert_allclose(lower, kept / ratios, rtol=1e-14)


@pytest.mark.parametrize(
    ("squares", "budget", "tau_squared"),
    [
        ([1.0, 1.0], 1.0, math.inf),  # the budget does not bind
        ([1.0, 1.0], 0.25, 0.25),
        ([0.1, 4.0], 1.0, 1.9),
        ([0.0, 4.0], 1.0, 1.0),  # zero: a harmless token, not counted
        ([1.0, math.inf], 1.0, 1.0),  # an action the target never takes
        ([math.inf, math.inf], 0.5, 0.5),
        ([0.0, 0.0], 0.0, math.inf),  # nothing harmful
        ([1.0, 4.0], 0.0, 0.0),
    ],
)
def test_the_threshold_of_m2po(squares, budget, tau_squared):
    squares = np.array([squares])
    tau = largest_threshold(np, squares, squares > 0, budget)
    np.testing.assert_allclose(tau, [[math.sqrt(tau_squared)]], rtol=1e-14)


@pytest.mark.parametrize("name", sorted(theory.weight_cards()))
def test_an_action_the_target_never_takes(name):
    """rho = 0 after a large ratio: zero in every product, and never NaN."""
    ratios = np.array([[1e300, 1e300, 0, 1e300, 1e300, 1e300]])
    with np.errstate(divide="ignore"):
        log_ratio = np.log(ratios)
    given = dict.fromkeys(theory.NEEDS, np.ones_like(ratios)) | {
        "log_probability": np.where(ratios > 0, -1.0, -np.inf),
        "kl": np.where(ratios > 0, 1.0, np.inf),
    }
    weight = theory.weight(name)
    beside = {need: given[need] for need in weight.needs}
    result = weight.coefficients(log_ratio, None, np.array([[1, -1, 1, -1, 1, -1]]), **beside)[0]
    assert not np.isnan(result).any()
    if name in ("sequence", "geometric"):
        np.testing.assert_array_equal(result, 0)
    if name in ("prefix", "minpro", "v_trace"):
        np.testing.assert_array_equal(result[2:], 0)
    if name == "suffix":
        np.testing.assert_array_equal(result[:3], 0)
        assert np.isinf(result[3])


def test_a_cap_holds_where_the_product_overflows():
    log_ratio = np.full((1, 4), 500.0)
    assert theory.weight("truncated", level="sequence").coefficients(log_ratio)[0, 0] == 2.0
    assert theory.weight("masked", level="sequence").coefficients(log_ratio)[0, 0] == 0.0
    assert theory.weight("masked", level="sequence", interval=(0.0, math.inf)).coefficients(log_ratio)[0, 0] == math.inf
    assert theory.weight("minpro", clip=(0.5, 2.0)).coefficients(log_ratio)[0, 3] == 2.0


def test_infinite_caps_are_the_weights_without_caps():
    log_ratio = np.random.default_rng(0).normal(size=(3, 5))
    for capped, plain in [
        (theory.weight("truncated", cap=math.inf), "token"),
        (theory.weight("truncated", cap=math.inf, level="sequence"), "sequence"),
        (theory.weight("masked", interval=(0.0, math.inf)), "token"),
        (theory.weight("cispo", clip=(0.0, math.inf)), "token"),
        (theory.weight("v_trace", cap=math.inf, trace_cap=math.inf), "prefix"),
        (theory.weight("minpro", clip=(0.0, math.inf)), "minpro"),
    ]:
        expected = theory.weight(plain).coefficients(log_ratio)
        np.testing.assert_allclose(capped.coefficients(log_ratio), expected, rtol=1e-12)
