"""The recursion's form of a weight, walked along random trajectories, gives the coefficients of the trajectory."""

import numpy as np
import pytest

import theory
from tests.theory.weights.variants import VARIANTS

S, A, NEXT = 4, 3, 2
FACTORISING = [weight for weight in VARIANTS if weight.factorises]


def tables(rng, steps=1):
    """What weights need beside ratios, by (step, state, action)."""
    return {
        "log_probability": -rng.exponential(size=(1, S, A)),
        "total_variation": rng.random((1, S, A)),
        "kl": rng.exponential(size=(1, S, A)),
        "old_log_ratio": rng.normal(size=(1, S, A)),
        "state_ratio": rng.exponential(size=(steps, S, A)),
        "lag": rng.integers(0, 4, size=(steps, S, A)).astype(float),
    }


def along(weight, given, states, actions):
    """The same of the tokens of one trajectory, (1, T)."""
    steps = {name: np.minimum(np.arange(len(states)), len(given[name]) - 1) for name in weight.needs}
    return {name: given[name][t, states, actions][None] for name, t in steps.items()}


def rebuilt(factors, states, actions, advantages):
    """c_t = [product over j < t of before_j] own(stat_t) [product over j > t of after_j], by a loop."""
    result, smallest = [], np.inf
    steps = list(zip(states, actions, strict=True))
    for t, (s, a) in enumerate(steps):
        # The advantage of every (s, a, s') of a cell at once, as an engine passes it.
        advantage = np.full((1, S, A, NEXT), advantages[t])
        own = factors.own_at(t, np.full((1, 1, 1, 1), smallest), advantage)
        c = np.broadcast_to(own, (1, S, A, NEXT))[0, s, a, 0]
        for j in range(t):
            c = c * (1.0 if factors.before is None else factors.before[steps[j]])
        for j in range(t + 1, len(steps)):
            c = c * (1.0 if factors.after is None else factors.after[steps[j]])
        result.append(c)
        if factors.key is not None:
            smallest = min(smallest, factors.key[s, a])
    return np.array(result)


@pytest.mark.parametrize("weight", FACTORISING, ids=[weight.label for weight in FACTORISING])
@pytest.mark.parametrize("lost", [False, True])
def test_factors_give_the_coefficients(weight, lost):
    rng = np.random.default_rng(3)
    log_ratio = rng.normal(size=(S, A))
    if lost:
        log_ratio[0, 1] = -np.inf
    for length in (1, 2, 5, 5, 5, 9):
        given = tables(rng, steps=length if length > 2 else 1)
        states, actions = rng.integers(S, size=length), rng.integers(A, size=length)
        advantages = rng.choice([-1.0, 1.0], size=length) * rng.random(length)
        beside = along(weight, given, states, actions)
        expected = weight.coefficients(log_ratio[states, actions][None], None, advantages[None], **beside)[0]
        with np.errstate(divide="ignore"):
            factors = weight.factors(log_ratio, length, given)
        assert factors is not None
        np.testing.assert_allclose(rebuilt(factors, states, actions, advantages), expected, rtol=1e-12)
        # Both signs of the advantage.
        opposite = weight.coefficients(log_ratio[states, actions][None], None, -advantages[None], **beside)[0]
        np.testing.assert_allclose(rebuilt(factors, states, actions, -advantages), opposite, rtol=1e-12)


@pytest.mark.parametrize("weight", FACTORISING, ids=[weight.label for weight in FACTORISING])
def test_only_a_weight_by_length_depends_on_the_length(weight):
    rng = np.random.default_rng(4)
    log_ratio, given = rng.normal(size=(S, A)), tables(rng)
    stat, advantage = np.array([0.5, np.inf]).reshape(2, 1, 1, 1), np.ones((1, S, A, 1))
    short, long = (weight.factors(log_ratio, length, given) for length in (2, 5))
    same = all(
        (x is None and y is None) or np.array_equal(x, y)
        for x, y in [(short.before, long.before), (short.after, long.after), (short.key, long.key)]
    ) and np.array_equal(short.own(stat, advantage), long.own(stat, advantage))
    assert same is not weight.family.by_length


MINIMA = [
    theory.weight("minpro", clip=(0.8, 1.28)),
    theory.weight("minpro", clip=(0.8, 1.28), inclusive=True),
    theory.weight("prefix_mask", statistic="minimum", inclusive=False),
    theory.weight("prefix_mask", statistic="minimum"),
]


@pytest.mark.parametrize("weight", MINIMA, ids=[weight.label for weight in MINIMA])
def test_a_minimum_that_overflows_is_not_the_minimum_of_nothing(weight):
    """After a token whose ratio is e^800 the minimum is that, and not the 1 of a first token."""
    log_ratio = np.zeros((S, A))
    log_ratio[0, 0] = 800.0
    with np.errstate(over="ignore"):
        factors = weight.factors(log_ratio, 2)
    states, actions = np.array([0, 1]), np.array([0, 0])
    expected = weight.coefficients(log_ratio[states, actions][None])[0]
    np.testing.assert_allclose(rebuilt(factors, states, actions, [1.0, 1.0]), expected)


def test_the_walk_can_tell_two_weights_apart():
    """Negative control: the factors of one weight do not give the coefficients of another."""
    # Ratios at which every default bound binds: masked and token agree where no ratio leaves the interval.
    states, actions, advantages = [0, 1, 2, 3, 1], [0, 1, 2, 0, 2], [1.0, -1.0, 1.0, -1.0, 1.0]
    log_ratio = np.zeros((S, A))
    log_ratio[states, actions] = np.log([9.0, 0.3, 1.1, 0.9, 2.5])
    rng = np.random.default_rng(5)
    given = tables(rng)
    seen = {
        weight.label: rebuilt(weight.factors(log_ratio, 5, given), states, actions, advantages)
        for weight in FACTORISING
        if weight.label == weight.name
    }
    for name, values in seen.items():
        for other in map(theory.weight, seen):
            beside = along(other, given, states, actions)
            expected = other.coefficients(log_ratio[states, actions][None], None, np.array([advantages]), **beside)[0]
            assert np.allclose(values, expected, rtol=1e-12) == (name == other.name), (name, other)
