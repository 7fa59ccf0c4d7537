import numpy as np
import pytest

from figures import bias_against_spread as figure
from figures.data import NothingToDrawError
from tests.figures.exact import moments

ENVIRONMENTS = (("parity", {"horizon": 3}), ("token_tree", {"depth": 3}))


@pytest.fixture(scope="module")
def rows(results, tmp_path_factory):
    import csv

    paths = figure.draw(results, tmp_path_factory.mktemp("out"))
    assert [p.suffix for p in paths] == [".png", ".svg", ".csv"]
    with paths[-1].open(newline="", encoding="utf-8") as file:
        return {row["weight"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("weight", ["token", "prefix", "sequence", "minpro", "geometric"])
def test_medians_are_those_of_an_enumeration(rows, weight):
    found = [
        moments(name, options, weight, "target_advantage", 0.1, kind)
        for name, options in ENVIRONMENTS
        for kind in ("noise", "staleness")
    ]
    row = rows[weight]
    assert (float(row["kl"]), int(row["cells"])) == (0.1, 4)
    np.testing.assert_allclose(float(row["relative_bias"]), np.median([m.relative_bias for m in found]), atol=1e-9)
    spread = np.median([np.sqrt(m.variance) / np.linalg.norm(m.gradient) for m in found])
    np.testing.assert_allclose(float(row["relative_standard_deviation"]), spread, rtol=1e-8)


def test_the_front_is_who_nobody_beats(rows):
    place = {w: (float(r["relative_bias"]), float(r["relative_standard_deviation"])) for w, r in rows.items()}
    for weight, (bias, spread) in place.items():
        beaten = any(b <= bias and s <= spread and (b, s) != (bias, spread) for b, s in place.values())
        assert rows[weight]["beaten"] == str(int(beaten)), weight
    assert rows["prefix"]["beaten"] == "0"
    assert {row["beaten"] for row in rows.values()} == {"0", "1"}  # the control: not everyone is on it


def test_one_weight_is_no_comparison(monkeypatch, tmp_path):
    table = {
        "signal": np.array(["target_advantage"]), "weight": np.array(["token"]), "relative_bias": np.array([0.1]),
    }  # fmt: skip
    monkeypatch.setattr(figure, "table_of", lambda results: table)
    with pytest.raises(NothingToDrawError, match="fewer than two weights"):
        figure.draw(None, tmp_path)


def test_without_drift_everything_stands_at_zero(monkeypatch, tmp_path, results):
    whole = figure.table_of(results)
    still = {**whole, "relative_bias": np.zeros_like(whole["relative_bias"])}
    monkeypatch.setattr(figure, "table_of", lambda results: still)
    *_, path = figure.draw(results, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text.count(",0.1,0,") >= 5
