import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import drift
from testbed.environments import environment_cards
from testbed.exploring.controls import CLIPPED, CONTROLS, KLS, SIGNALS, changed, offered, shown_by
from testbed.exploring.page import answer
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
    lambda place, moved, **rest: State(
        environment=place[0], options=place[1], drift=moved[0], drift_options=moved[1], **rest
    ),
    st.sampled_from([(name, options) for name, several in OPTIONS.items() for options in several]),
    st.sampled_from([*((kind, "") for kind in sorted(drift.kinds())), ("noise", "seed=3"), ("staleness", "steps=2")]),
    kl=st.floats(0.0, 2.0),
    weights=st.lists(st.sampled_from(WEIGHTS), max_size=8, unique=True).map(tuple),
    clip=st.tuples(st.floats(0.0, 1.0), st.floats(1.0, 5.0) | st.just(math.inf)),
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
        State(drift_options="seed=1"),
    ]
    assert len({to_query(state) for state in others}) == len(others)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?environment=chainn", "nearest known name is 'chain'"),
        ("?options=dept%3D4", "nearest known name is 'depth'"),
        ("?drift_options=sed=1", "nearest known name is 'seed'"),
        ("?drift_options=steps=2", "unknown option 'steps' of drift 'noise'"),
        ("?options=depth=100000", "at most 500 for an answer at once"),
        ("?options=depth=11", "states; expected at most"),
        ("?signal=group(size=5000)", "at most 50 for an answer at once"),
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
    state, wrong = changed(State(options="depth=4"), {"environment": name})
    assert wrong == []
    assert state == (State(options="depth=4") if name == "token_tree" else State(environment=name))
    option = length_option(name)
    if option is not None:
        shorter, wrong = changed(state, {"length": 2})
        assert wrong == []
        assert f"{option}=2" in shorter.options or environment_cards()[name].options[option] == 2


def test_controls_change_what_they_name():
    expected = {
        "kl": (KLS.index(0.01), State(kl=0.01)),
        "batch": (3, State(batch=8)),
        "low": (None, State(clip=(0.0, 1.28))),
        "high": (None, State(clip=(0.8, math.inf))),
        "weights": (["gspo(clip=clip)"], State(weights=("gspo(clip=clip)",))),
        "signal": ("outcome", State(signal="outcome")),
        "drift": ("mixture", State(drift="mixture")),
        "drift_options": ("seed=2", State(drift_options="seed=2")),
        "length": (3, State(options="depth=3")),
        "options": ("seed=2", State(options="seed=2")),
        "environment": ("parity", State(environment="parity")),
    }
    assert expected.keys() == set(CONTROLS)
    for control, (value, state) in expected.items():
        assert changed(State(), {control: value}) == (state, []), control
    state, wrong = changed(State(), {"options": "sed=2"})
    assert state == State()
    assert "nearest known name is 'seed'" in wrong[0]
    # An option written down does not undo the length beside it.
    assert changed(State(options="depth=3"), {"options": "seed=2"})[0].options == "seed=2, depth=3"


@pytest.mark.parametrize("value", [0, 2.5, -3, None, 1e9])
def test_a_length_without_meaning_is_said_and_changes_nothing(value):
    state, wrong = changed(State(), {"length": value})
    assert state == State()
    assert wrong[0].startswith("length: ")
    assert "expected" in wrong[0]


def test_bounds_without_meaning_are_said():
    state, wrong = changed(State(), {"low": -1.0})
    assert state == State()
    assert wrong == ["clip: low: clip is (-1.0, 1.28); expected two bounds of the ratio, 0 <= low <= high"]


def test_the_slider_reaches_the_divergences_of_the_sweep_and_shows_others_between():
    assert {0.01, 0.03, 0.1, 0.3} < set(KLS)
    assert [shown_by(State(kl=kl))["kl"] for kl in (*KLS[:3], 0.0)] == [0.0, 1.0, 2.0, 0.0]
    assert KLS.index(0.03) < shown_by(State(kl=0.042))["kl"] < KLS.index(0.05)


@given(states)
def test_controls_that_nobody_moved_change_nothing(state):
    assert changed(state, shown_by(state)) == (state, [])


def test_several_controls_moved_at_once_are_all_heard():
    asked = {**shown_by(State()), "length": 4, "low": 0.5, "weights": ["tokn"]}
    state, wrong = changed(State(), asked)
    assert state == State(options="depth=4", clip=(0.5, 1.28))
    assert len(wrong) == 1
    assert "nearest known name is 'token'" in wrong[0]


@pytest.mark.parametrize("clip", [(0.5, 0.9), (1.1, 1.5), (math.inf, math.inf), (0.0, 0.0)])
def test_a_clip_that_some_weights_cannot_take_leaves_a_page(clip):
    texts = [choice["value"] for choice in offered(State(clip=clip))]
    assert "minpro(clip=clip)" in texts
    assert "gspo(clip=clip)" not in texts
    assert "gspo(clip=clip)" in [choice["value"] for choice in offered(State())]  # the control
    assert answer(State(clip=clip), [])["search"] == to_query(State(clip=clip))


def test_weights_that_are_all_zero_leave_a_page():
    state = State(weights=("sequence_mask(interval=(5.0, 6.0))",), options="depth=2", kl=0.01)
    page = answer(state, [])
    assert page["table"].children[1].children[0].children[-1].children == "1"  # the share of zeros
    assert len(page["chart_positions"].data) == 2
    assert len(answer(State(weights=()), [])["chart_positions"].data) == 0


def test_the_clip_stands_for_its_bounds():
    assert weight_of("minpro(clip=clip)", (0.5, 2.0)).options["clip"] == (0.5, 2.0)
    assert weight_of("minpro", (0.5, 2.0)).options["clip"] is None
