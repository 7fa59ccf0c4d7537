"""What is refused at the door, and what a weight says of itself."""

import math
import pickle

import numpy as np
import pytest

import theory
from tests.theory.weights.variants import IDS, VARIANTS

ZEROS = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("minpr", "minpro"), ("ppo-clip", "ppo_clip"), ("vtrace", "v_trace"), ("truncate", "truncated"),
        ("sequnce", "sequence"), ("gsp", "gspo"), ("CISP", "cispo"), ("m2p", "m2po"), ("mask", "masked"),
        ("GRPO", "ppo_clip"), ("dapo", "ppo_clip"), ("IcePop", "masked"), ("TIS", "truncated"), ("CISPO", "cispo"),
    ],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"nearest known name is '{nearest}'"):
        theory.weight(name)


@pytest.mark.parametrize(
    ("name", "option", "nearest"),
    [
        ("minpro", "clp", "clip"),
        ("truncated", "capp", "cap"),
        ("v_trace", "trace", "trace_cap"),
        ("m2po", "bud", "budget"),
    ],
)
def test_an_unknown_option_gets_the_nearest(name, option, nearest):
    with pytest.raises(
        ValueError, match=f"option of weight '{name}' '{option}'; the nearest known name is '{nearest}'"
    ):
        theory.weight(name, **{option: 1.0})


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
        ("truncated", {"level": "prefix"}),
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


@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_pickles_and_prints_as_it_is_made(weight):
    copy = pickle.loads(pickle.dumps(weight))
    assert repr(copy) == repr(weight)
    inf = math.inf
    assert repr(eval(repr(weight), {"theory": theory, "inf": inf})) == repr(weight)


@pytest.mark.parametrize("weight", VARIANTS, ids=IDS)
def test_a_missing_advantage_is_said(weight):
    if weight.uses_advantage:
        with pytest.raises(ValueError, match=f"weight '{weight.name}' looks at the sign of the advantage"):
            weight.coefficients(ZEROS)
    else:
        weight.coefficients(ZEROS)


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
