import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import drift
from testbed.environments import environment_cards
from testbed.exploring.page import CLIPPED, CONTROLS, SIGNALS, answer, changed
from testbed.exploring.state import State, from_query, length_option, to_query, weight_of

WEIGHTS = (
    "none",
    "token",
    "prefix",
    "sequence",
    "minpro",
    "truncated(cap=5)",
    *(f"{name}(clip=clip)" for name in CLIPPED),
)
OPTIONS = {"token_tree": ("", "depth=4", "depth=3, seed=2"), "parity": ("", "horizon=4")}
states = st.builds(
    lambda place, **rest: State(environment=place[0], options=place[1], **rest),
    st.sampled_from([(name, options) for name, several in OPTIONS.items() for options in several]),
    drift=st.sampled_from(sorted(drift.kinds())),
    kl=st.floats(0.0, 2.0).map(lambda x: float(f"{x:.12g}")),
    weights=st.lists(st.sampled_from(WEIGHTS), max_size=8, unique=True).map(tuple),
    clip=st.tuples(st.floats(0.0, 1.0), st.floats(1.0, 5.0) | st.just(math.inf)).map(
        lambda pair: tuple(float(str(x)) for x in pair)
    ),
    signal=st.sampled_from(SIGNALS),
    batch=st.integers(1, 2**30),
)


@given(states)
def test_an_address_gives_back_the_state(state):
    assert from_query(to_query(state)) == (state, [])


def test_different_states_have_different_addresses():
    assert to_query(State()) == ""
    others = [
        State(kl=0.2),
        State(batch=2),
        State(weights=("token",)),
        State(clip=(0.5, 2.0)),
        State(options="depth=4"),
    ]
    assert len({to_query(state) for state in others}) == len(others)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?environment=chainn", "nearest known name is 'chain'"),
        ("?options=dept%3D4", "nearest known name is 'depth'"),
        ("?drift=noisy", "nearest known name is 'noise'"),
        ("?kl=much", "'much' is no number"),
        ("?kl=nan", "not finite"),
        ("?kl=-1", "kl"),
        ("?weights=tokens", "nearest known name is 'token'"),
        ("?weights=minpro(clip=", "expected one such as"),
        (
            "?weights="
            + ";".join(["none", "token", "prefix", "suffix", "sequence", "minpro", "aspo", "cispo", "gspo"]),
            "at most 8",
        ),
        ("?clip=1", "expected two numbers"),
        ("?clip=2;1", "low <= high"),
        ("?signal=outcom", "nearest known name is 'outcome'"),
        ("?signal=outcome(base=1)", "signal"),
        ("?batch=0", "batch"),
        ("?batch=1.5", "no whole number"),
        ("?bacth=2", "nearest known name is 'batch'"),
    ],
)
def test_nonsense_is_one_sentence_and_the_rest_stays(query, words):
    state, wrong = from_query(query + "&batch=77" if "batch" not in query else query + "&kl=0.25")
    assert len(wrong) == 1
    assert words in wrong[0]
    assert state == (State(batch=77) if "batch" not in query else State(kl=0.25))
    # What the page makes of it is a page.
    assert len(answer(state, wrong)) > len(CONTROLS)


@pytest.mark.parametrize("name", environment_cards())
def test_every_environment_has_a_page(name):
    state, wrong = changed(State(options="depth=4"), "environment", {"environment": name})
    assert wrong == []
    assert (state.environment, state.options) == (
        name,
        "depth=4" if name == "token_tree" else "",
    ) or state.options == ""
    option = length_option(name)
    if option is not None:
        shorter, wrong = changed(state, "length", {"length": 2, "options": ""})
        assert wrong == []
        assert f"{option}=2" in shorter.options or environment_cards()[name].options[option] == 2


def test_controls_change_what_they_name():
    asked = {
        "kl": -2, "batch": 3, "low": None, "high": None, "weights": ["gspo(clip=clip)"], "signal": "outcome",
        "drift": "mixture", "length": 3, "options": "seed=2",
    }  # fmt: skip
    expected = {
        "kl": State(kl=0.01), "batch": State(batch=8), "low": State(clip=(0.0, math.inf)),
        "high": State(clip=(0.0, math.inf)), "weights": State(weights=("gspo(clip=clip)",)),
        "signal": State(signal="outcome"), "drift": State(drift="mixture"),
        "length": State(options="seed=2, depth=3"), "options": State(options="seed=2, depth=3"),
    }  # fmt: skip
    for control, state in expected.items():
        assert changed(State(), control, asked) == (state, []), control
    state, wrong = changed(State(), "options", {"length": 3, "options": "sed=2"})
    assert state == State()
    assert "nearest known name is 'seed'" in wrong[0]


def test_the_clip_stands_for_its_bounds():
    assert weight_of("minpro(clip=clip)", (0.5, 2.0)).options["clip"] == (0.5, 2.0)
    assert weight_of("minpro", (0.5, 2.0)).options["clip"] is None
