import itertools

import numpy as np
import pytest

import theory
from figures import weight_by_position as figure

POSITIONS = (1, 2, 3, 5)
ACTIONS = 5
WEIGHTS = {
    "token": theory.weight("token"),
    "prefix": theory.weight("prefix"),
    "minpro": theory.weight("minpro"),
    figure.CLIPPED: theory.weight("minpro", clip=figure.CLIP),
}


@pytest.fixture(scope="module")
def tokens():
    return figure.token_law(5, actions=ACTIONS, kl=0.05)


@pytest.fixture(scope="module")
def rows(tokens):
    return {(row["weight"], row["position"]): row for row in figure.laws(*tokens, POSITIONS)}


@pytest.fixture(scope="module")
def every_sequence(tokens):
    """All 5^5 sequences: their log-ratios, and their probabilities under mu."""
    log_ratio, chance = tokens
    actions = np.array(list(itertools.product(range(ACTIONS), repeat=5)))
    return log_ratio[actions], chance[actions].prod(axis=1)


def quantile(value, probability, level):
    order = np.argsort(value)
    return value[order][np.searchsorted(np.cumsum(probability[order]), level - 1e-9)]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_laws_are_those_of_all_sequences(rows, every_sequence, name, position):
    log_ratio, probability = every_sequence
    weight = WEIGHTS[name].coefficients(log_ratio)[:, position - 1]
    row = rows[name, position]
    tolerance = position * figure.STEP / 2 if name == "prefix" else 1e-12
    for column, level in zip(("quantile_05", "median", "quantile_95"), figure.QUANTILES, strict=True):
        assert row[column] == pytest.approx(quantile(weight, probability, level), rel=1.01 * tolerance)
    assert row["mean"] == pytest.approx(weight @ probability, rel=1e-9)
    if name == figure.CLIPPED:
        assert row["share_at_floor"] == pytest.approx(probability[weight <= figure.CLIP[0]].sum(), abs=1e-12)
    else:
        assert np.isnan(row["share_at_floor"])


def test_the_check_rejects_the_inclusive_minimum(rows, every_sequence):
    """The control: the misreading of MinPRO, with the current token in the minimum, has another law."""
    log_ratio, probability = every_sequence
    weight = theory.weight("minpro", inclusive=True).coefficients(log_ratio)[:, 4]
    assert abs(rows["minpro", 5]["mean"] - weight @ probability) > 1e-3


def test_a_long_product_is_nearly_log_normal():
    """Far out, the lattice is checked by the central limit theorem and its skewness correction."""
    log_ratio, chance = figure.token_law(1000)
    low, median, high = np.log(figure._Product(log_ratio, chance).quantiles(1000))
    mean = chance @ log_ratio
    deviation = np.sqrt(chance @ (log_ratio - mean) ** 2)
    skewness = chance @ (log_ratio - mean) ** 3 / deviation**3 / np.sqrt(1000)
    for found, z in ((low, -1.6448536269514722), (median, 0.0), (high, 1.6448536269514722)):
        expected = 1000 * mean + np.sqrt(1000) * deviation * (z + skewness * (z**2 - 1) / 6)
        assert found == pytest.approx(expected, abs=500 * figure.STEP + 0.01)
    assert mean == pytest.approx(-figure.KL)


def test_drawing(tmp_path, read):
    *_, svg, data = figure.draw(None, tmp_path, positions=(1, 10, 100))
    floor = [float(r["share_at_floor"]) for r in read(data) if r["weight"] == figure.CLIPPED]
    assert floor == sorted(floor)
    assert floor[0] < 0.1
    assert floor[-1] > 0.5
    text = svg.read_text(encoding="utf-8")
    assert "none enters these weights" in text
    assert "0.01 nats per token" in text
