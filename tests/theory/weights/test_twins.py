"""Each weight against its scalar twin, on batches with holes in the mask, ratios of zero and ratios that overflow."""

import numpy as np
import pytest
import torch

import theory
from tests.theory.weights import twins
from tests.theory.weights.variants import IDS, ONE_AT_ONE, VARIANTS

EVERY_WEIGHT = pytest.mark.parametrize("weight", VARIANTS, ids=IDS)


def batch(seed, shape=(6, 7), scale=0.6, extremes=False):
    """Log-ratios, a mask with interior holes and one row without tokens, and advantages with some zeros."""
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
    log_ratio[~mask] = np.nan
    advantage[~mask] = np.nan
    return log_ratio, mask, advantage


def slowly(weight, log_ratio, mask, advantage, one_batch=True):
    return np.array(twins.batch_coefficients(weight, *(x.tolist() for x in (log_ratio, mask, advantage)), one_batch))


@EVERY_WEIGHT
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(6, 7), (5, 1), (1, 1), (3, 16)])
def test_equals_its_twin(weight, seed, shape):
    arrays = batch(seed, shape)
    np.testing.assert_allclose(weight.coefficients(*arrays), slowly(weight, *arrays), rtol=1e-12)
    np.testing.assert_allclose(weight.coefficients_of_each(*arrays), slowly(weight, *arrays, False), rtol=1e-12)


@EVERY_WEIGHT
@pytest.mark.parametrize("seed", range(5))
def test_equals_its_twin_at_extremes(weight, seed):
    arrays = batch(seed, extremes=True)
    result = weight.coefficients(*arrays)
    assert not np.isnan(result).any()
    np.testing.assert_allclose(result, slowly(weight, *arrays), rtol=1e-11)
    np.testing.assert_allclose(weight.coefficients_of_each(*arrays), slowly(weight, *arrays, False), rtol=1e-11)


@EVERY_WEIGHT
@pytest.mark.parametrize("extremes", [False, True])
def test_torch_equals_numpy(weight, extremes):
    log_ratio, mask, advantage = batch(7, extremes=extremes)
    tensors = torch.tensor(log_ratio), torch.tensor(mask), torch.tensor(advantage)
    result = weight.coefficients(*tensors)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), weight.coefficients(log_ratio, mask, advantage), rtol=1e-12)


@EVERY_WEIGHT
def test_single_precision_stays_single_precision(weight):
    arrays = batch(8)
    expected = weight.coefficients(*arrays)
    log_ratio, mask, advantage = arrays[0].astype(np.float32), arrays[1], arrays[2].astype(np.float32)
    for result in (
        weight.coefficients(log_ratio, mask, advantage),
        weight.coefficients(torch.tensor(log_ratio), torch.tensor(mask), torch.tensor(advantage)),
        weight.coefficients(torch.tensor(log_ratio), torch.tensor(mask), torch.tensor(arrays[2])),
    ):
        assert str(result.dtype).removeprefix("torch.") == "float32"
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-5)


@EVERY_WEIGHT
def test_is_a_constant_of_the_surrogate(weight):
    log_ratio, mask, advantage = (torch.tensor(x) for x in batch(9))
    result = weight.coefficients(log_ratio.requires_grad_(), mask, advantage.requires_grad_())
    assert not result.requires_grad


@EVERY_WEIGHT
def test_leaves_its_arguments_alone(weight):
    arrays = batch(10)
    copies = [x.copy() for x in arrays]
    weight.coefficients(*arrays)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("weight", ONE_AT_ONE, ids=[weight.label for weight in ONE_AT_ONE])
def test_equal_policies_have_weight_one(weight):
    result = weight.coefficients(np.zeros((2, 3)), None, np.array([[1.0, -1.0, 0.0]] * 2))
    np.testing.assert_array_equal(result, np.ones((2, 3)))


@EVERY_WEIGHT
def test_the_layout_of_a_batch_does_not_matter(weight):
    """Masked tokens, wherever they stand, change nothing: the counted tokens pushed together give the same."""
    log_ratio, mask, advantage = batch(11)
    order = np.argsort(~mask, axis=1, kind="stable")
    packed = (np.take_along_axis(x, order, axis=1) for x in (log_ratio, mask, advantage))
    expected = np.take_along_axis(weight.coefficients(log_ratio, mask, advantage), order, axis=1)
    np.testing.assert_allclose(weight.coefficients(*packed), expected, rtol=1e-12)


@EVERY_WEIGHT
def test_only_a_coupling_weight_looks_at_other_sequences(weight):
    arrays = batch(12, scale=1.0)
    alone = weight.coefficients_of_each(*arrays)
    if not weight.family.couples_batch:
        np.testing.assert_array_equal(weight.coefficients(*arrays), alone)
    for n in range(len(alone)):
        row = weight.coefficients(*(x[n : n + 1] for x in arrays))
        np.testing.assert_allclose(row, alone[n : n + 1], rtol=1e-13)


def test_the_batch_sets_the_bounds_of_m2po():
    """What a calm sequence leaves of the budget, a wild one of the same batch may spend."""
    weight = theory.weight("m2po", budget=1.0, clip=(1.0, 1.0))
    log_ratio, advantage = np.array([[1.2], [0.5]]), np.ones((2, 1))
    # Together: squares 1.44 and 0.25, mean capped at tau 0.5 (tau^2 + 0.25) / 2 <= 1 holds up to tau^2 = 1.75: no clip.
    np.testing.assert_allclose(weight.coefficients(log_ratio, None, advantage), np.exp(log_ratio))
    # Alone: tau = 1 < 1.2, clipped.
    np.testing.assert_allclose(weight.coefficients_of_each(log_ratio, None, advantage), [[0.0], [np.exp(0.5)]])


def test_every_weight_has_a_twin():
    assert set(twins.TWINS) == set(theory.weight_cards())
