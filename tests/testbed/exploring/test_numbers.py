from dataclasses import replace

import numpy as np
import pytest

import testbed
import theory
from testbed import drift, spelling
from testbed.exploring import charts
from testbed.exploring.case import MOST_TRAJECTORIES, MOST_WORK, case_of, exact_moments, work_of
from testbed.exploring.contents import notes, table
from testbed.exploring.numbers import Numbers, WeightNumbers, causes_of, crossover, numbers_of, place_of
from testbed.exploring.page import answer, causes
from testbed.exploring.state import State

CASES = [
    State(environment="token_tree", options="depth=3", signal="outcome(baseline=expected_return)"),
    State(environment="parity", options="horizon=6", drift="staleness", kl=0.05),
    State(environment="garnet", options="horizon=4", signal="group(size=2)", weights=("token", "minpro(clip=clip)")),
    State(environment="token_tree", options="depth=3", drift_options="seed=4"),
    State(environment="token_tree", options="depth=3", drift="top_p", weights=("prefix", "gspo(clip=clip)", "vespo")),
]


def made(state):
    environment = testbed.environment(state.environment, **spelling.call(f"_({state.options})")[1])
    moved = spelling.call(f"_({state.drift_options})")[1]
    pair = drift.at(state.drift, environment.process, environment.target, kl=state.kl, nearest=True, **moved)
    return environment.process, pair.target, pair.behaviour


@pytest.mark.parametrize("state", CASES, ids=lambda s: f"{s.environment}-{s.signal}-{s.drift}{s.drift_options}")
def test_the_numbers_are_those_of_theory(state):
    numbers, three = numbers_of(state), made(state)
    assert len(numbers.weights) == len(state.weights)
    for w, cause in zip(numbers.weights, causes_of(state), strict=True):
        assert not w.reason
        estimator = theory.Estimator(spelling.weight(w.label), spelling.signal(state.signal))
        m = theory.moments(*three, estimator, missing_support="allow")  # whichever engine is cheapest
        assert m.engine != "sampling"
        length = np.linalg.norm(m.gradient)
        np.testing.assert_allclose([w.relative_bias, w.cosine, w.effective_step],
                                   [m.relative_bias, m.cosine, m.effective_step], atol=1e-9)  # fmt: skip
        for n in (m.trajectories_per_draw, 64, 4096):
            np.testing.assert_allclose(w.relative_mse(n), m.mean_squared_error(n) / length**2, rtol=1e-8)
        parts = theory.decompose(*three, estimator, missing_support="allow")
        assert cause.label == w.label
        assert dict(cause.terms).keys() == parts.terms.keys()
        for name, value in cause.terms:
            np.testing.assert_allclose(value, np.linalg.norm(parts.terms[name]) / length, atol=1e-9)
    # The control: another divergence has other numbers.
    other = numbers_of(replace(state, kl=state.kl / 4))
    assert abs(other.weights[0].relative_std - numbers.weights[0].relative_std) > 1e-6
    if state.drift_options:
        plain = numbers_of(replace(state, drift_options=""))
        assert abs(plain.weights[0].relative_std - numbers.weights[0].relative_std) > 1e-6


def test_the_law_of_a_weight_is_that_of_plain_loops():
    state = State(environment="two_token_counterexample", options="", weights=("token", "prefix", "minpro"), kl=0.2)
    process, target, behaviour = made(state)
    found = {w.label: w.positions for w in numbers_of(state).weights}
    law = {name: [[], []] for name in found}
    first = int(np.flatnonzero(process.initial)[0])
    for a in range(process.actions):
        chance, ratio = (
            behaviour.probabilities[first, a],
            target.probabilities[first, a] / behaviour.probabilities[first, a],
        )
        for positions in law.values():
            positions[0].append((ratio, chance))
        second = int(np.argmax(process.transition[first, a]))
        for b in range(process.actions):
            both, own = (
                chance * behaviour.probabilities[second, b],
                target.probabilities[second, b] / behaviour.probabilities[second, b],
            )
            law["token"][1].append((own, both))
            law["prefix"][1].append((ratio * own, both))
            law["minpro"][1].append((min(ratio, np.inf) * own, both))
    for name, positions in law.items():
        for t, pairs in enumerate(positions):
            pairs = sorted(pairs)
            mass = np.cumsum([p for _, p in pairs])
            quantiles = [pairs[int(np.argmax(mass >= level - 1e-12))][0] for level in (0.05, 0.5, 0.95)]
            mean = sum(c * p for c, p in pairs)
            np.testing.assert_allclose(found[name][t], [*quantiles, mean], rtol=1e-10)
    assert found["token"] != found["prefix"]


def weight(label, bias, std, least=1):
    return WeightNumbers(label, "recursion", relative_bias=bias, relative_std=std, least_batch=least)


def test_winners_are_those_of_every_batch_size():
    rng = np.random.default_rng(0)
    for _ in range(200):
        several = Numbers(
            tuple(weight(str(i), float(b), float(s)) for i, (b, s) in enumerate(rng.lognormal(size=(5, 2))))
        )
        winners = several.winners()
        for n in np.geomspace(1, 1e6, 60):
            expected = several.least_error(n)
            said = [name for since, name in winners if since <= n][-1]
            best = {w.label: w.relative_mse(n) for w in several.weights}
            np.testing.assert_allclose(best[said], best[expected.label], rtol=1e-9)
        starts = [since for since, _ in winners]
        assert starts == sorted(starts)


def test_where_two_errors_cross():
    biased, exact = weight("a", 0.5, 2.0), weight("b", 0.0, 4.0)
    n = crossover(biased, exact)
    assert n == pytest.approx(48.0)
    assert biased.relative_mse(n) == pytest.approx(exact.relative_mse(n))
    assert crossover(exact, biased) == np.inf
    assert np.isnan(weight("c", 0.1, 1.0, least=4).relative_mse(2))


def test_what_cannot_be_had_exactly_at_once_is_said():
    assert "too large for an answer at once" in numbers_of(State(environment="taxi")).reason
    assert numbers_of(State(environment="taxi")).weights == ()
    long = numbers_of(State(environment="modular_sum", options="horizon=40", weights=("token", "gspo(clip=clip)")))
    token, gspo = long.weights
    assert token.relative_bias > 0.0
    assert token.positions == ()
    assert f"{MOST_TRAJECTORIES:,}" in token.beside
    assert "every trajectory" in gspo.reason
    assert np.isnan(gspo.relative_bias)
    # A weight with a statistic costs more than one without: where the one fits, the other may not.
    cliff = {w.label: w for w in numbers_of(State(environment="cliff_walking", weights=("token", "minpro"))).weights}
    assert cliff["token"].relative_bias > 0.0
    assert "expected at most" in cliff["minpro"].reason
    assert np.isnan(cliff["minpro"].relative_bias)
    assert [c.label for c in causes_of(State(environment="cliff_walking", weights=("token", "minpro")))] == ["token"]
    assert causes_of(State(environment="taxi")) == ()
    third = numbers_of(State(weights=("decoupled",))).weights[0]
    assert "old" in third.reason


def test_what_is_undefined_is_called_so():
    assert charts.shown(float("nan")) == "undefined"
    assert charts.shown(3e-16) == "0"
    assert charts.shown(3e-6) == "3e-06"


def test_every_default_and_drift_is_answered_or_refused_before_it_is_computed():
    for name in testbed.environment_cards():
        state = State(environment=name)
        if numbers_of(state).reason:
            continue
        case = case_of(place_of(state))
        for w in numbers_of(state).weights:
            assert w.engine in ("enumeration", "recursion") or "expected at most" in w.reason
            if w.engine == "enumeration":
                assert case.trajectories <= MOST_TRAJECTORIES
            if w.engine == "recursion":
                assert work_of(*case.three[:2]) <= MOST_WORK
    with pytest.raises(ValueError, match="too large for an answer at once"):
        case_of(place_of(State(environment="chain", options="states=100, horizon=500")))
    with pytest.raises(ValueError, match="would take the recursion"):
        exact_moments(
            case_of(place_of(State(environment="modular_sum", options="horizon=50, modulus=40"))),
            theory.Estimator("minpro", "target_advantage"),
        )


def words(children):
    return [child.children for child in children]


def test_what_the_page_says_beside_its_numbers():
    state = State(drift="top_p", options="depth=3")
    said = words(notes(numbers_of(state), state, ["first"]))
    assert said[0] == "first"
    assert any("cannot give 0.1 nats per token here" in text for text in said)
    assert any("μ cannot generate" in text for text in said)
    assert words(notes(numbers_of(State(options="depth=3")), State(options="depth=3"), [])) == []  # the control
    odd = State(signal="group(size=3)", options="depth=3", batch=4)
    assert any("no whole number of draws of 3" in text for text in words(notes(numbers_of(odd), odd, [])))
    cells = {cell.id: cell.children for cell in table(numbers_of(odd), odd).children[1].children[0].children}
    assert cells["cell-0-mse"] == "undefined"
    even = replace(odd, batch=6)
    cells = {cell.id: cell.children for cell in table(numbers_of(even), even).children[1].children[0].children}
    assert float(cells["cell-0-mse"]) > 0.0


def test_what_is_beyond_float64_is_called_so_and_the_rest_is_shown():
    state = State(environment="parity", options="horizon=500", kl=1.0)
    numbers = numbers_of(state)
    prefix = next(w for w in numbers.weights if w.label == "prefix")
    assert np.isinf(prefix.relative_std)
    page = answer(state, [])
    cells = {c.id: c.children for row in page["table"].children[1].children for c in row.children}
    assert "beyond float64" in cells.values()
    token = [w.label for w in numbers.weights].index("token")
    assert cells[f"cell-{token}-std"] == charts.shown(numbers.weights[token].relative_std)
    for name in ("chart_spread", "chart_error", "chart_positions"):
        assert page[name].to_json()
    assert answer(State(environment="parity", kl=20.0), [])["table"] is not None


def test_a_group_does_not_change_the_winner_where_it_begins():
    numbers = numbers_of(State(signal="group(size=4)", options="depth=3"))
    rings = next(t for t in charts.error_by_batch(numbers, 256).data if t.name == "the winner changes")
    winners = numbers.winners()
    assert winners[0][0] == 4.0
    assert list(rings.x) == [n for n, _ in winners[1:] if n <= charts.GREATEST_BATCH]


def test_a_note_that_several_weights_share_is_made_once():
    state = State(environment="modular_sum", options="horizon=20", weights=("none", "token", "prefix"))
    said = words(notes(numbers_of(state), state, []))
    assert [text for text in said if "distribution" in text] == [
        f"none, token, prefix: the weight's distribution is shown for at most {MOST_TRAJECTORIES:,} trajectories."
    ]
    cells = {c.id: c for row in table(numbers_of(state), state).children[1].children for c in row.children}
    assert cells["cell-0-zero"].children == "-"
    assert theory.weight("token").card.formula in cells["cell-1-weight"].title


def test_the_chart_of_causes_has_the_causes():
    found = {c.label: dict(c.terms) for c in causes_of(State(options="depth=3"))}
    drawn = causes("?options=depth=3")["figure"]
    bars = {trace.name: dict(zip(trace.y, trace.x, strict=True)) for trace in drawn.data}
    for label, terms in found.items():
        for name, value in terms.items():
            if name in bars:
                assert bars[name][label] == value
            else:
                assert value < charts.EXACT
    assert bars["occupancy"]["token"] > 0.05


@pytest.mark.parametrize("kl", [1e-4, 0.01, 0.1, 1.0])
def test_marks_of_a_logarithmic_axis_say_what_they_are(kl):
    numbers = numbers_of(State(options="depth=3", kl=kl))
    axis = charts.weight_by_position(numbers).layout.yaxis
    values = [value for w in numbers.weights for row in w.positions for value in row if value > 0.0]
    assert [float(text) for text in axis.ticktext] == list(axis.tickvals)
    # Enough to read values by, and where the values are.
    inside = [mark for mark in axis.tickvals if min(values) / 2.0 <= mark <= max(values)]
    assert charts.LEAST_MARKS <= len(inside) == len(axis.tickvals) <= charts.MOST_MARKS
