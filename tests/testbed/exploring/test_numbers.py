from dataclasses import replace

import numpy as np
import pytest

import testbed
import theory
from testbed import drift, spelling
from testbed.exploring import charts
from testbed.exploring.numbers import MOST_TRAJECTORIES, Numbers, WeightNumbers, crossover, numbers_of
from testbed.exploring.state import State

CASES = [
    State(environment="token_tree", options="depth=3", signal="outcome(baseline=expected_return)"),
    State(environment="parity", options="horizon=6", drift="staleness", kl=0.05),
    State(environment="garnet", options="horizon=4", signal="group(size=2)", weights=("token", "minpro(clip=clip)")),
    State(environment="token_tree", options="depth=3", drift="top_p", weights=("prefix", "gspo(clip=clip)", "vespo")),
]


def made(state):
    environment = testbed.environment(state.environment, **spelling.call(f"_({state.options})")[1])
    pair = drift.at(state.drift, environment.process, environment.target, kl=state.kl, nearest=True)
    return environment.process, pair.target, pair.behaviour


@pytest.mark.parametrize("state", CASES, ids=lambda s: f"{s.environment}-{s.signal}-{s.drift}")
def test_the_numbers_are_those_of_theory(state):
    numbers, three = numbers_of(state), made(state)
    assert len(numbers.weights) == len(state.weights)
    for w in numbers.weights:
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
        assert dict(w.terms).keys() == parts.terms.keys()
        for name, value in w.terms:
            np.testing.assert_allclose(value, np.linalg.norm(parts.terms[name]) / length, atol=1e-9)
    # The control: another divergence has other numbers.
    other = numbers_of(replace(state, kl=state.kl / 4))
    assert abs(other.weights[0].relative_std - numbers.weights[0].relative_std) > 1e-6


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
    third = numbers_of(State(weights=("decoupled",))).weights[0]
    assert "old" in third.reason


def test_what_is_undefined_is_called_so():
    assert charts.shown(float("nan")) == "undefined"
    assert charts.shown(3e-16) == "0"
    assert charts.shown(3e-6) == "3e-06"
