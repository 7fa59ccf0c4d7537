"""What is refused at the door, and what a weight says of itself."""

import math
import pickle

import numpy as np
import pytest
import torch

import theory
from tests.instances import random_instance
from tests.theory.weights.variants import IDS, VARIANTS
from theory.weights.hybrid import hybrid
from theory.weights.registry import FAMILIES

ZEROS = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("minpr", "minpro"), ("ppo-clip", "ppo_clip"), ("vtrace", "v_trace"), ("truncate", "truncated"),
        ("sequnce", "sequence"), ("gsp", "gspo"), ("CISP", "cispo"), ("m2p", "m2po"), ("mask", "masked"),
        ("GRPO", "ppo_clip"), ("dapo", "ppo_clip"), ("IcePop", "masked"), ("TIS", "truncated"), ("CISPO", "cispo"),
        ("SNIS", "self_normalised"), ("decoupled PPO", "decoupled"), ("reinforce_pro", "prefix_mask"), ("CPPO", "cppo"),
        ("marginalized importance sampling", "marginalised"), ("PDIS", "prefix"), ("Sentence Prefix IS", "pnpo"),
    ],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"nearest known name is '{nearest}'"):
        theory.weight(name)


@pytest.mark.parametrize(
    ("name", "option", "nearest"),
    [
        ("minpro", "clp", "clip"),
        ("decoupled", "behavior", "behaviour"),
        ("truncated", "capp", "cap"),
        ("v_trace", "trace", "trace_cap"),
        ("m2po", "bud", "budget"),
    ],
)
def test_an_unknown_option_gets_the_nearest(name, option, nearest):
    with pytest.raises(
        ValueError, match=f"unknown option '{option}' of weight '{name}'; the nearest known name is '{nearest}'"
    ):
        theory.weight(name, **{option: 1.0})


def test_an_unrelated_name_gets_the_known_ones_only():
    with pytest.raises(ValueError, match="unknown weight 'xyz'") as caught:
        theory.weight("xyz")
    assert "nearest" not in str(caught.value)
    assert "known: aspo, " in str(caught.value)


def test_an_option_where_there_are_none():
    with pytest.raises(ValueError, match="weight 'token' has no options; got 'cap'"):
        theory.weight("token", cap=2.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("minpro", {"clip": (1.2, 0.8)}),
        ("minpro", {"clip": 0.2}),
        ("cispo", {"clip": (-0.1, 2.0)}),
        ("cispo", {"clip": None}),
        ("cispo", {"clip": ("0.8", "1.2")}),
        ("cispo", {"clip": (0.0, math.nan)}),
        ("cispo", {"clip": (False, True)}),
        ("masked", {"interval": (5.0, 0.5)}),
        ("masked", {"interval": (0.5, 1.0, 5.0)}),
        ("masked", {"level": "geometric"}),
        ("truncated", {"cap": 0.0}),
        ("truncated", {"cap": -1.0}),
        ("truncated", {"cap": math.nan}),
        ("truncated", {"cap": "2"}),
        ("truncated", {"cap": True}),
        ("truncated", {"level": "prefixes"}),
        ("self_normalised", {"level": "batch"}),
        ("self_normalised", {"cap": 0.0}),
        ("ctpo", {"epsilon_low": -0.1}),
        ("ctpo", {"power": math.inf}),
        ("ctpo", {"epsilon_dual": -1.0}),
        ("pnpo", {"epsilon_high": math.nan}),
        ("pnpo", {"gate": 1}),
        ("window", {"size": -1}),
        ("window", {"size": 1.5}),
        ("nfpo", {"steps": 0}),
        ("retrace", {"decay": 0.0}),
        ("retrace", {"decay": 1.1}),
        ("prefix_mask", {"statistic": "mean"}),
        ("prefix_mask", {"interval": (2.0, 0.5)}),
        ("cppo", {"delta": 0.0}),
        ("cppo", {"w_min": 1.2}),
        ("cppo", {"w_min": 0.0}),
        ("cppo", {"divergence": "kl"}),
        ("cppo", {"delta_b": "p95"}),
        ("cppo", {"delta_b": -0.1}),
        ("decoupled", {"anchor": "new"}),
        ("decoupled", {"anchor": 1.5}),
        ("decoupled", {"anchor": True}),
        ("v_trace", {"cap": 0.0}),
        ("v_trace", {"trace_cap": 0.0}),
        ("ppo_clip", {"clip": (0.2, 0.28)}),  # offsets, not bounds
        ("ppo_clip", {"clip": (1.1, 1.2)}),
        ("ppo_clip", {"dual": 1.0}),
        ("ppo_clip", {"dual": math.nan}),
        ("gspo", {"clip": (3e-4, 4e-4)}),
        ("m2po", {"budget": -0.1}),
        ("m2po", {"budget": math.inf}),
        ("m2po", {"clip": (0.7, 0.9)}),
        ("minpro", {"inclusive": "no"}),
        ("minpro", {"inclusive": 1}),
    ],
)
def test_an_option_without_meaning_is_refused_in_one_sentence(name, options):
    (option, value), = options.items()  # fmt: skip
    with pytest.raises(ValueError, match=f"^{option} is .*; expected ") as error:
        theory.weight(name, **options)
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 120


def test_lists_and_numpy_numbers_are_bounds_too():
    assert theory.weight("ppo_clip", clip=[0.8, 1.28]).options["clip"] == (0.8, 1.28)
    weight = theory.weight("truncated", cap=np.float32(2.0))
    np.testing.assert_array_equal(weight.coefficients(np.log([[3.0]])), [[2.0]])
    for clip in (np.array([0.8, 1.28]), (np.float64(0.8), 1.28), torch.tensor([0.8, 1.28], dtype=torch.float64)):
        assert repr(theory.weight("ppo_clip", clip=clip)) == repr(theory.weight("ppo_clip", clip=(0.8, 1.28)))
    assert theory.weight("minpro", inclusive=np.bool_(True)) == theory.weight("minpro", inclusive=True)
    with pytest.raises(ValueError, match=r"clip is \(1\.2, 0\.8\); expected \(low, high\)"):
        theory.weight("ppo_clip", clip=np.array([1.2, 0.8]))


@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_pickles_and_prints_as_it_is_made(weight):
    copy = pickle.loads(pickle.dumps(weight))
    assert repr(copy) == repr(weight)
    inf = math.inf
    assert repr(eval(repr(weight), {"theory": theory, "inf": inf})) == repr(weight)


@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_a_weight_is_its_family_with_its_options(weight):
    again = theory.weight(weight.name, **weight.options)
    assert pickle.loads(pickle.dumps(weight)) == again == weight
    assert hash(pickle.loads(pickle.dumps(weight))) == hash(again) == hash(weight)
    assert [other for other in VARIANTS if other == weight] == [weight]
    assert weight != weight.name


def test_estimators_of_the_same_choices_are_equal():
    one = theory.Estimator("token", "outcome")
    assert one == theory.Estimator(theory.weight("token"), theory.signal("outcome"), "own", theory.reduction("sum"))
    assert one == pickle.loads(pickle.dumps(one))
    assert len({one, pickle.loads(pickle.dumps(one)), theory.Estimator("token", "outcome")}) == 1
    assert one != theory.Estimator("prefix", "outcome")
    assert theory.Estimator(theory.weight("cispo", clip=[0, 3]), "outcome") == theory.Estimator("cispo", "outcome")


def test_hybrids_are_their_parts():
    parts, other = theory.Parts("minimum", "full", "full"), theory.Parts("root", "full", "none")
    one = hybrid(parts)
    assert pickle.loads(pickle.dumps(one)) == one == hybrid(theory.Parts(*parts))
    assert hash(pickle.loads(pickle.dumps(one))) == hash(one)
    assert one != hybrid(other)
    assert hybrid(theory.Parts("none", "full", "none")) != theory.weight("token")
    log_ratio = np.random.default_rng(0).normal(size=(3, 4))
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(again.coefficients(log_ratio), one.coefficients(log_ratio))


@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_a_missing_advantage_is_said(weight):
    given = dict.fromkeys(weight.needs, ZEROS)
    if weight.uses_advantage:
        with pytest.raises(ValueError, match=f"weight '{weight.name}' looks at the sign of the advantage"):
            weight.coefficients(ZEROS, **given)
    else:
        weight.coefficients(ZEROS, **given)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_ratio_without_meaning_is_refused_where_it_counts(bad):
    log_ratio, mask = ZEROS.copy(), np.ones((2, 3))
    log_ratio[0, 1], mask[0, 1] = bad, 0
    theory.weight("token").coefficients(log_ratio, mask)
    with pytest.raises(ValueError, match="log_ratio is NaN or \\+inf at a token that counts"):
        theory.weight("token").coefficients(log_ratio)


def test_an_advantage_that_is_nan_is_refused_where_its_sign_counts():
    advantage = np.array([[np.nan, 1.0, 1.0]] * 2)
    with pytest.raises(ValueError, match="advantage is NaN at a token that counts"):
        theory.weight("ppo_clip").coefficients(ZEROS, None, advantage)
    theory.weight("ppo_clip").coefficients(ZEROS, np.array([[0, 1, 1]] * 2), advantage)
    theory.weight("token").coefficients(ZEROS, None, advantage)


@pytest.mark.parametrize(
    ("mask", "advantage", "message"),
    [
        (np.ones((2, 2)), None, "mask has shape \\(2, 2\\); expected \\(2, 3\\)"),
        (None, np.ones((3, 2)), "advantage has shape \\(3, 2\\); expected \\(2, 3\\)"),
    ],
)
def test_shapes_that_disagree(mask, advantage, message):
    with pytest.raises(ValueError, match=message):
        theory.weight("token").coefficients(ZEROS, mask, advantage)
    with pytest.raises(ValueError, match="log_ratio has shape \\(3,\\); expected \\(N, T\\)"):
        theory.weight("token").coefficients(np.zeros(3))


TENSOR = torch.zeros((2, 3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ZEROS.tolist(),), r"log_ratio is of type list; expected an array of shape \(N, T\)"),
        ((0.5,), r"log_ratio is of type float; expected an array"),
        ((None,), r"log_ratio is of type NoneType; expected an array"),
        ((ZEROS.astype(int),), r"log_ratio is of type int64; expected floating-point numbers"),
        ((TENSOR.int(),), r"log_ratio is of type torch\.int32; expected floating-point numbers"),
        ((ZEROS + 0j,), r"log_ratio is of type complex128; expected floating-point numbers"),
        ((ZEROS, [[1, 1, 1]] * 2), r"mask is of type list; expected an array of shape \(N, T\)"),
        ((ZEROS, np.full((2, 3), np.nan)), r"mask contains NaN"),
        ((TENSOR, torch.full((2, 3), torch.nan)), r"mask contains NaN"),
        ((TENSOR, np.ones((2, 3))), r"mask is of type numpy\.ndarray and log_ratio of type torch\.Tensor"),
        ((ZEROS, TENSOR), r"mask is of type torch\.Tensor and log_ratio of type numpy\.ndarray"),
        ((TENSOR, None, ZEROS), r"advantage is of type numpy\.ndarray and log_ratio of type torch\.Tensor"),
        ((ZEROS, None, 1.0), r"advantage is of type float; expected an array of shape \(N, T\)"),
        ((ZEROS, None, np.float64(1.0)), r"advantage has shape \(\); expected \(2, 3\)"),
        ((ZEROS, None, [[1.0] * 3] * 2), r"advantage is of type list; expected an array of shape \(N, T\)"),
        ((ZEROS, None, ZEROS + 1j), r"advantage is of type complex128; expected real numbers"),
    ],
)
@pytest.mark.parametrize("name", ["minpro", "ppo_clip"])
def test_what_is_no_array_of_the_same_library_is_refused(name, arguments, message):
    weight = theory.weight(name)
    for batch in (None, 1):
        with pytest.raises(ValueError, match=message):
            weight.coefficients(*arguments, batch=batch)


def test_half_precision_and_whole_advantages_are_let_in():
    weight, advantage = theory.weight("ppo_clip"), np.array([[1, -1, 0]] * 2)
    np.testing.assert_array_equal(weight.coefficients(ZEROS, ZEROS.astype(int) + 2, advantage), np.ones((2, 3)))
    result = weight.coefficients(TENSOR.bfloat16(), TENSOR == 0, torch.tensor(advantage))
    assert result.dtype == torch.bfloat16
    assert (result == 1).all()


def test_every_card_is_filled_in():
    for name, card in theory.weight_cards().items():
        assert card.name == name
        for field in ("summary", "formula", "source", "defaults"):
            assert getattr(card, field), (name, field)
        assert "\n" not in card.summary
        assert card.baseline_invariant is not None
        family = theory.weight(name).family
        for option in family.options:
            assert f"{option}=" in card.defaults, (name, option)


def test_sequence_levels_do_not_factorise():
    assert theory.weight("truncated").factorises
    assert not theory.weight("truncated", level="sequence").factorises
    assert theory.weight("masked").factorises
    assert not theory.weight("masked", level="sequence").factorises
    assert not theory.weight("gspo").factorises
    assert not theory.weight("m2po").factorises


# A weight of one's own


@pytest.fixture
def registry():
    """The registry, which forgets afterwards what the test enters."""
    before = dict(FAMILIES)
    yield FAMILIES
    FAMILIES.clear()
    FAMILIES.update(before)


CARD = theory.Card("tempered", "A power of the ratio.", "c_t = rho_t^power", source="here", defaults="power=0.5")


def enter(**properties):
    @theory.register(CARD, parts=theory.Parts(), **properties)
    def function(tokens, *, power=0.5):
        return tokens.xp.exp(power * tokens.log_ratio)


def tempered_factors(log_ratio, length, power):
    return theory.Factors(before=None, own=lambda stat, advantage: np.exp(power * log_ratio)[:, :, None])


def test_a_weight_of_ones_own_is_a_function_and_a_card(registry):
    enter(factors=tempered_factors, baseline_invariant=lambda power: power == 1.0)
    assert theory.weight_cards()["tempered"].engines == ("recursion", "enumeration", "sampling")
    assert theory.weight_cards()["tempered"].baseline_invariant is False
    assert CARD.engines == ()  # the card that was passed stays as it was
    instance, estimator = random_instance(), theory.Estimator(theory.weight("tempered", power=1.0), "outcome")
    assert estimator.weight.baseline_invariant
    token = theory.moments(*instance, theory.Estimator("token", "outcome"))
    for engine in ("recursion", "enumeration"):
        m = theory.moments(*instance, estimator, engine)
        np.testing.assert_allclose(m.mean, token.mean, rtol=1e-12, atol=1e-14)
    d = theory.decompose(*instance, theory.Estimator("tempered", "outcome"))
    assert np.abs(d["truncation"]).max() > 1e-3
    with pytest.raises(ValueError, match="unknown option 'powr' of weight 'tempered'"):
        theory.weight("tempered", powr=2.0)


def test_a_local_weight_needs_no_factors(registry):
    enter(local=True)
    assert theory.weight_cards()["tempered"].engines == ("recursion", "enumeration", "sampling")
    instance, estimator = random_instance(), theory.Estimator("tempered", "outcome")
    by_cells, by_tree = (theory.moments(*instance, estimator, engine) for engine in ("recursion", "enumeration"))
    np.testing.assert_allclose(by_cells.mean, by_tree.mean, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(by_cells.variance, by_tree.variance, rtol=1e-10)


def test_a_weight_that_looks_around_is_not_local(registry):
    card = theory.Card("around", "A sum.", "c_t = W", source="here", defaults="none")
    with pytest.raises(ValueError, match="'around' is said to be local, but its coefficients look at other tokens"):
        theory.register(card, local=True)(lambda tokens: tokens.sequence_ratio)
    assert "around" not in registry
    with pytest.raises(ValueError, match="'around' is said to be local; expected neither factors nor couples_batch"):
        theory.register(card, local=True, couples_batch=True)(lambda tokens: tokens.ratio)


@pytest.mark.parametrize(
    ("need", "value"),
    [("kl", -0.1), ("total_variation", 1.1), ("total_variation", -7.0), ("state_ratio", -1.0), ("lag", -3.0),
     ("log_probability", 3.0), ("old_log_ratio", np.inf), ("state_ratio", np.inf)],
)  # fmt: skip
def test_a_need_that_cannot_be_is_refused(registry, need, value):
    enter(needs=(need,))
    weight, fine = theory.weight("tempered"), {"log_probability": -1.0}.get(need, 0.5)
    assert weight.coefficients(ZEROS, **{need: ZEROS + fine}).shape == ZEROS.shape
    with pytest.raises(ValueError, match=rf"{need} is {value:.6g} at a token that counts; expected "):
        weight.coefficients(ZEROS, **{need: ZEROS + value})
    # What stands at masked tokens is ignored.
    weight.coefficients(ZEROS, np.zeros((2, 3)), **{need: ZEROS + value})


def test_pspo_is_told_where_its_ratio_is():
    with pytest.raises(ValueError, match=r"is `mixed_ratio`; .* it is `token` times a constant"):
        theory.weight("PSPO")


def test_a_need_just_outside_its_range_is_put_on_its_bound():
    """Rounding: a divergence of -1e-17 is none, and no reason to drop a sequence whose bound is 0."""
    for statistic in ("mean_kl", "largest_kl"):
        weight = theory.weight("sequence_mask", statistic=statistic, interval=(0.0, 0.3))
        np.testing.assert_array_equal(weight.coefficients(ZEROS, kl=ZEROS - 1e-17), np.ones((2, 3)))
    # In single precision a sum of many terms misses by more.
    weight, single = theory.weight("dppo", divergence="total_variation"), np.ones((1, 1), dtype=np.float32)
    weight.coefficients(single, None, single, total_variation=single + np.float32(1e-4))
    with pytest.raises(ValueError, match=r"total_variation is 1\.0001 at a token that counts"):
        weight.coefficients(single.astype(float), None, single, total_variation=single + 1e-4)


@pytest.mark.parametrize("name", ["FSPO", "PSPO", "KPO", "mu-GRPO", "TEPO", "tic-grpo", "SC-GRPO"])
def test_a_method_that_is_left_out_is_said_to_be(name):
    with pytest.raises(ValueError, match=f"weight '{name}' is left out of the registry: "):
        theory.weight(name)


def test_a_need_is_one_of_the_known_ones(registry):
    with pytest.raises(ValueError, match="unknown need 'klt' of weight 'tempered'; the nearest known name is 'kl'"):
        enter(needs=("klt",))


def test_what_a_weight_needs_is_asked_for(registry):
    enter(needs=("kl",))
    with pytest.raises(ValueError, match=r"weight 'tempered' needs kl, KL\(mu.*; expected kl=\.\.\."):
        theory.weight("tempered").coefficients(ZEROS)
    with pytest.raises(ValueError, match=r"unknown argument 'kll' of coefficients; the nearest known name is 'kl'"):
        theory.weight("tempered").coefficients(ZEROS, kll=ZEROS)
    with pytest.raises(ValueError, match=r"kl has shape \(3, 2\); expected \(2, 3\)"):
        theory.weight("tempered").coefficients(ZEROS, kl=ZEROS.T)
    with pytest.raises(ValueError, match=r"kl is NaN at a token that counts"):
        theory.weight("tempered").coefficients(ZEROS, kl=ZEROS * np.nan)


def test_a_batch_divides_the_sequences():
    with pytest.raises(ValueError, match="batch is 3; expected a divisor of the 2 sequences"):
        theory.weight("token").coefficients(ZEROS, batch=3)


def test_a_weight_without_factors_is_enumerated(registry):
    enter()
    assert theory.weight_cards()["tempered"].engines == ("enumeration", "sampling")
    assert theory.moments(*random_instance(T=2), theory.Estimator("tempered", "outcome")).engine == "enumeration"


def test_a_name_is_given_once(registry):
    family = registry["token"]
    with pytest.raises(ValueError, match="weight 'token' is registered already"):
        theory.register(theory.Card("token", "", "", "", ""))(lambda tokens: tokens.ratio)
    assert registry["token"] is family


def test_a_cell_of_a_notebook_can_be_run_again(registry):
    card = theory.Card("mine", "One.", "c_t = 1", "none", "none")
    for number in (1.0, 2.0):
        theory.register(card, replaces=True)(lambda tokens, number=number: tokens.ratio * 0.0 + number)
        assert (theory.weight("mine").coefficients(ZEROS) == number).all()
    with pytest.raises(ValueError, match="weight 'mine' is registered already"):
        theory.register(card)(lambda tokens: tokens.ratio)


def test_a_function_in_the_place_of_a_name_is_told_the_way():
    for question in (theory.weight, lambda f: theory.Estimator(f, "outcome")):
        with pytest.raises(ValueError, match=r"weight is <function .*; expected a name: .* theory\.register\(card\)"):
            question(lambda tokens: tokens.ratio)


def test_the_doctest_leaves_no_weight_behind():
    assert "tempered" not in theory.weight_cards()
