"""Each weight against its scalar twin, on batches with holes in the mask, ratios of zero and ratios that overflow."""

from typing import NamedTuple

import array_api_compat.numpy
import numpy as np
import pytest
import torch

import theory
from tests.theory.weights import twins
from tests.theory.weights.variants import IDS, ONE_AT_ONE, VARIANTS
from theory.weights.tokens import Tokens

EVERY_WEIGHT = pytest.mark.parametrize("weight", VARIANTS, ids=IDS)


class Data(NamedTuple):
    """A batch, and what some weights need beside it."""

    log_ratio: np.ndarray
    mask: np.ndarray
    advantage: np.ndarray
    given: dict

    def map(self, function):
        """The same with every array changed."""
        given = {name: function(values) for name, values in self.given.items()}
        return Data(function(self.log_ratio), function(self.mask), function(self.advantage), given)

    def ask(self, weight, **options):
        """The weight's coefficients."""
        needed = {name: self.given[name] for name in weight.needs}
        return weight.coefficients(self.log_ratio, self.mask, self.advantage, **needed, **options)


def data_of(seed, shape=(6, 7), scale=0.6, extremes=False):
    """Log-ratios, a mask with interior holes and one row without tokens, advantages with some zeros, and the rest."""
    rng = np.random.default_rng(seed)
    log_ratio = scale * rng.normal(size=shape)
    if extremes:
        log_ratio[rng.random(shape) < 0.2] = -np.inf
        log_ratio[rng.random(shape) < 0.2] = 800.0
        log_ratio[rng.random(shape) < 0.2] = -800.0
    mask = rng.random(shape) < 0.75
    mask[-1] = False
    mask[0] = True
    advantage = np.round(rng.normal(size=shape), 1)
    advantage[0, 0] = 0.0
    # Log-probabilities below zero for both policies.
    log_probability = -rng.exponential(size=shape) + np.minimum(log_ratio, 0.0)
    given = {
        "log_probability": log_probability,
        "total_variation": rng.random(shape),
        "kl": 0.1 * rng.exponential(size=shape),
        "old_log_ratio": 0.5 * scale * rng.normal(size=shape),
        "state_ratio": rng.exponential(size=shape) * (rng.random(shape) < 0.8),
        "lag": rng.integers(0, 4, size=shape).astype(float),
    }
    assert set(given) == set(theory.NEEDS)
    for array in (log_ratio, advantage, *given.values()):
        array[~mask] = np.nan
    return Data(log_ratio, mask, advantage, given)


def extremes_of(weight, seed):
    """Ratios of zero and ratios that overflow; for a weight that refuses a ratio of zero, very small ones."""
    data = data_of(seed, extremes=True)
    if weight.options.get("divergence") == "binary_tv" and weight.name == "cppo":
        given = data.given | {"log_probability": np.maximum(data.given["log_probability"], -1600.0)}
        return data._replace(log_ratio=np.maximum(data.log_ratio, -1500.0), given=given)
    return data


def slowly(weight, data, batch=None):
    given = {name: values.tolist() for name, values in data.given.items()}
    arrays = (x.tolist() for x in data[:3])
    return np.array(twins.batch_coefficients(weight, *arrays, given, batch))


@EVERY_WEIGHT
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(6, 7), (5, 1), (1, 1), (3, 16)])
def test_equals_its_twin(weight, seed, shape):
    data = data_of(seed, shape)
    np.testing.assert_allclose(data.ask(weight), slowly(weight, data), rtol=1e-12)
    np.testing.assert_allclose(data.ask(weight, batch=1), slowly(weight, data, 1), rtol=1e-12)
    if shape[0] == 6:
        np.testing.assert_allclose(data.ask(weight, batch=2), slowly(weight, data, 2), rtol=1e-12)


@EVERY_WEIGHT
@pytest.mark.parametrize("seed", range(5))
def test_equals_its_twin_at_extremes(weight, seed):
    data = extremes_of(weight, seed)
    result = data.ask(weight)
    assert not np.isnan(result).any()
    np.testing.assert_allclose(result, slowly(weight, data), rtol=1e-11)
    np.testing.assert_allclose(data.ask(weight, batch=1), slowly(weight, data, 1), rtol=1e-11)


@EVERY_WEIGHT
@pytest.mark.parametrize("extremes", [False, True])
def test_torch_equals_numpy(weight, extremes):
    data = extremes_of(weight, 7) if extremes else data_of(7)
    result = data.map(torch.tensor).ask(weight)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), data.ask(weight), rtol=1e-12)


@EVERY_WEIGHT
def test_single_precision_stays_single_precision(weight):
    data = data_of(8)
    expected = data.ask(weight)

    def single(x):
        return x if x.dtype == bool else x.astype(np.float32)

    doubled = data.map(torch.tensor)._replace(log_ratio=torch.tensor(single(data.log_ratio)))
    for given in (data.map(single), data.map(lambda x: torch.tensor(single(x))), doubled):
        result = given.ask(weight)
        assert str(result.dtype).removeprefix("torch.") == "float32"
        # What is too small for single precision is zero there.
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-5, atol=np.finfo(np.float32).tiny)


@EVERY_WEIGHT
def test_is_a_constant_of_the_surrogate(weight):
    data = data_of(9).map(lambda x: torch.tensor(x, requires_grad=x.dtype != bool))
    assert data.advantage.requires_grad
    assert not data.ask(weight).requires_grad


@EVERY_WEIGHT
def test_leaves_its_arguments_alone(weight):
    data = data_of(10)
    copies = data.map(np.copy)
    data.ask(weight)
    for array, copy in zip((*data[:3], *data.given.values()), (*copies[:3], *copies.given.values()), strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("weight", ONE_AT_ONE, ids=[weight.label for weight in ONE_AT_ONE])
def test_equal_policies_have_weight_one(weight):
    zeros, one = np.zeros((2, 3)), np.ones((2, 3))
    given = dict.fromkeys(theory.NEEDS, zeros) | {"log_probability": zeros - 1.0, "state_ratio": one}
    data = Data(zeros, one, np.array([[1.0, -1.0, 0.0]] * 2), given)
    np.testing.assert_array_equal(data.ask(weight), one)


@EVERY_WEIGHT
def test_the_layout_of_a_batch_does_not_matter(weight):
    """Masked tokens, wherever they stand, change nothing: the counted tokens pushed together give the same."""
    data = data_of(11)
    order = np.argsort(~data.mask, axis=1, kind="stable")

    def packed(x):
        return np.take_along_axis(x, order, axis=1)

    np.testing.assert_allclose(data.map(packed).ask(weight), packed(data.ask(weight)), rtol=1e-12)


@EVERY_WEIGHT
def test_only_a_coupling_weight_looks_at_other_sequences(weight):
    data = data_of(12, scale=1.0)
    alone = data.ask(weight, batch=1)
    if not weight.family.couples_batch:
        np.testing.assert_array_equal(data.ask(weight), alone)
    for n in range(len(alone)):
        row = data.map(lambda x, n=n: x[n : n + 1]).ask(weight)
        np.testing.assert_allclose(row, alone[n : n + 1], rtol=1e-13)


def test_the_batch_sets_the_bounds_of_m2po():
    """What a calm sequence leaves of the budget, a wild one of the same batch may spend."""
    weight = theory.weight("m2po", budget=1.0, clip=(1.0, 1.0))
    log_ratio, advantage = np.array([[1.2], [0.5]]), np.ones((2, 1))
    # Together: squares 1.44 and 0.25, mean capped at tau 0.5 (tau^2 + 0.25) / 2 <= 1 holds up to tau^2 = 1.75: no clip.
    np.testing.assert_allclose(weight.coefficients(log_ratio, None, advantage), np.exp(log_ratio))
    # Alone: tau = 1 < 1.2, clipped.
    np.testing.assert_allclose(weight.coefficients(log_ratio, None, advantage, batch=1), [[0.0], [np.exp(0.5)]])


@EVERY_WEIGHT
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_token_has_no_coefficient(weight, shape):
    empty = np.zeros(shape)
    given = dict.fromkeys(weight.needs, empty)
    assert weight.coefficients(empty, None, empty, **given).shape == shape


def test_every_weight_has_a_twin():
    assert set(twins.TWINS) == set(theory.weight_cards())


def test_the_smallest_earlier_ratio_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    log_ratio, mask = rng.normal(size=(50, 7)), rng.random(size=(50, 7)) < 0.7
    tokens = Tokens(array_api_compat.numpy, log_ratio, mask, None)
    for row, counts, least in zip(log_ratio, mask, tokens.log_minimum, strict=True):
        for t in range(7):
            assert least[t] == min((row[j] for j in range(t) if counts[j]), default=0.0)
    # The control: tokens that do not count would lower it.
    everything = Tokens(array_api_compat.numpy, log_ratio, np.ones_like(mask), None).log_minimum
    assert (everything < tokens.log_minimum).any()
