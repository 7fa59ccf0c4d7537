from dataclasses import replace

import numpy as np
import pytest

from figures import relative_bias_by_drift as figure
from figures.data import NothingToDrawError, labels, signal_titles
from testbed.sweep import run_sweep
from tests.figures.conftest import SWEEP, Inline
from tests.figures.exact import moments

ENVIRONMENTS = (("parity", {"horizon": 3}), ("token_tree", {"depth": 3}))


@pytest.fixture(scope="module")
def rows(results, tmp_path_factory):
    paths = figure.draw(results, tmp_path_factory.mktemp("out"))
    assert [p.suffix for p in paths] == [".png", ".svg", ".csv"]
    return paths[-1]


@pytest.mark.parametrize("weight", ["token", "minpro", "geometric"])
@pytest.mark.parametrize("signal", figure.SIGNALS)
def test_medians_are_those_of_an_enumeration(rows, read, weight, signal):
    found = [r for r in read(rows) if r["weight"] == weight and r["signal"] == signal]
    assert [float(r["kl"]) for r in found] == [0.03, 0.1]
    for row in found:
        biases = [
            moments(name, options, weight, signal, float(row["kl"]), kind).relative_bias
            for name, options in ENVIRONMENTS
            for kind in ("noise", "staleness")
        ]
        assert int(row["cells"]) == len(biases)
        expected = [np.min(biases), *np.quantile(biases, [0.25, 0.5, 0.75]), np.max(biases)]
        names = ("least", "quartile_low", "median", "quartile_high", "greatest")
        np.testing.assert_allclose([float(row[n]) for n in names], expected, rtol=1e-8)


def test_exact_weights_are_named_not_drawn(rows, read):
    def exact(signal):
        worst = {}
        for r in read(rows):
            if r["signal"] == signal:
                worst[r["weight"]] = max(worst.get(r["weight"], 0.0), float(r["greatest"]))
        return {weight for weight, bias in worst.items() if bias < figure.EXACT}

    text = rows.with_suffix(".svg").read_text(encoding="utf-8")
    assert exact("target_advantage") == {"prefix", "sequence"}
    assert exact("outcome(baseline=expected_return)") == {"sequence"}
    assert exact("behaviour_advantage") == set()  # the control: not everything is called exact
    for signal in figure.SIGNALS:
        assert f"signal {signal}" in text
    assert text.count("no weight is exact") == 1
    assert ": prefix, sequence" in text


def _table(**columns):
    n = len(columns["relative_bias"])
    texts = ("environment_options", "drift_options", "drift", "weight", "signal")
    table = {name: np.full(n, "x") for name in texts} | {"environment": np.full(n, "e")}
    table |= {"score": np.full(n, "own"), "reduction": np.full(n, "sum"), "seed": np.full(n, np.nan)}
    return table | {name: np.asarray(value) for name, value in columns.items()}


def test_a_line_summarises_the_same_cells_at_every_divergence():
    # Environment f does not reach 0.3; were it counted at 0.1 only, the line would jump for want of a cell.
    table = _table(
        environment=["e", "e", "f"], kl_target=[0.1, 0.3, 0.1], relative_bias=[0.2, 0.4, 9.0], weight=["token"] * 3
    )
    assert [row["median"] for row in figure.medians(figure._comparable(table))] == [0.2, 0.4]
    assert [row["median"] for row in figure.medians(table)] == [4.6, 0.4]


def test_a_table_without_a_finite_bias_has_nothing_to_draw():
    with pytest.raises(NothingToDrawError, match="finite relative bias"):
        figure.medians(_table(kl_target=[0.1], relative_bias=[np.nan]))


def test_titles_and_labels():
    table = _table(relative_bias=[0, 0], kl_target=[1, 1])
    table |= {"score": np.array(["own", "cumulative"]), "environment_options": np.array(["", "base=2"])}
    assert signal_titles(table).tolist() == ["x", "x, score cumulative"]
    assert labels(table, "environment", "environment_options").tolist() == ["e", "e(base=2)"]


def test_a_divergence_of_zero_has_no_place_on_a_logarithmic_axis(tmp_path, read):
    sweep = replace(SWEEP, drifts=("noise",), kl=(0.0, 0.1), signals=("outcome",))
    run_sweep(sweep, tmp_path / "both", executor=Inline())
    assert {row["kl"] for row in read(figure.draw(tmp_path / "both", tmp_path)[-1])} == {"0.1"}
    run_sweep(replace(sweep, kl=(0.0,)), tmp_path / "zero", executor=Inline())
    with pytest.raises(NothingToDrawError, match="divergence above zero"):
        figure.draw(tmp_path / "zero", tmp_path)
