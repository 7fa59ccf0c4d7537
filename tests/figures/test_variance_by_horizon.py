import numpy as np
import pytest

from figures import variance_by_horizon as figure
from testbed import environment
from tests.figures.exact import moments

HORIZONS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return figure.draw(None, tmp_path_factory.mktemp("out"), horizons=HORIZONS)


@pytest.mark.parametrize("weight", figure.WEIGHTS)
def test_the_recursion_agrees_with_enumeration(paths, read, weight):
    found = [row for row in read(paths[-1]) if row["weight"] == weight]
    assert [int(row["horizon"]) for row in found] == list(HORIZONS)
    policy = environment("garnet", **figure.OPTIONS, horizon=max(HORIZONS)).target
    for row in found:
        options = {**figure.OPTIONS, "horizon": int(row["horizon"])}
        m = moments("garnet", options, weight, figure.SIGNAL, figure.KL, policy=policy)
        deviation = np.sqrt(m.variance) / np.linalg.norm(m.gradient)
        assert row["engine"] == "recursion"
        assert float(row["kl_token"]) == pytest.approx(figure.KL, rel=1e-9)
        assert float(row["relative_standard_deviation"]) == pytest.approx(deviation, rel=1e-8)
        assert float(row["relative_bias"]) == pytest.approx(m.relative_bias, abs=1e-12)


def test_the_check_tells_horizons_apart(paths, read):
    """The control: the numbers of one horizon would not pass for those of another."""
    found = [float(r["relative_standard_deviation"]) for r in read(paths[-1]) if r["weight"] == "token"]
    assert np.all(np.abs(np.diff(found)) > 1e-3)


def test_what_float64_cannot_hold_is_said(tmp_path, read):
    *_, svg, data = figure.draw(None, tmp_path, horizons=(10, 1000), kl=0.8)
    infinite = {r["weight"] for r in read(data) if r["relative_standard_deviation"] == "inf"}
    text = svg.read_text(encoding="utf-8")
    assert "sequence" in infinite
    for weight in figure.WEIGHTS:
        assert (f"{weight}: beyond float64 from T = 1000" in text) == (weight in infinite)


def test_the_title_names_signal_environment_and_drift(paths):
    text = paths[1].read_text(encoding="utf-8")
    for part in ("signal target_advantage", "garnet(states=6, actions=4)", "0.01 nats per token", "prefix, sequence"):
        assert part in text
