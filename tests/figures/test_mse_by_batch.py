import numpy as np
import pytest

import theory
from figures import mse_by_batch as figure
from testbed import drift, environment
from tests.figures.exact import moments


@pytest.fixture(scope="module")
def paths(results, tmp_path_factory):
    return figure.draw(results, tmp_path_factory.mktemp("out"))


def exact(weight, signal):
    # The small sweep lacks the favourite environment: the first one it has is drawn, and the title says so.
    return moments("parity", {"horizon": 3}, weight, signal, 0.1)


def test_the_title_names_what_is_drawn(paths):
    text = paths[1].read_text(encoding="utf-8")
    assert "parity(horizon=3), noise drift (seed 0), KL = 0.1 nats per token" in text
    assert all(f"signal {signal}" in text for signal in figure.SIGNALS)


@pytest.mark.parametrize("weight", ["token", "prefix", "minpro"])
@pytest.mark.parametrize("signal", figure.SIGNALS)
def test_errors_are_those_of_an_enumeration(paths, read, weight, signal):
    m = exact(weight, signal)
    found = [r for r in read(paths[2]) if r["weight"] == weight and r["signal"] == signal]
    assert len(found) == figure.BATCHES.size
    for row in found:
        expected = m.mean_squared_error(float(row["trajectories"])) / (m.gradient @ m.gradient)
        assert float(row["relative_mse"]) == pytest.approx(expected, rel=1e-8)


def test_at_the_crossover_both_errors_agree(paths, read):
    rows = read(paths[3])
    assert {(r["signal"], r["unbiased"]) for r in rows} == {
        ("target_advantage", "prefix"),
        ("target_advantage", "sequence"),
        ("outcome(baseline=expected_return)", "sequence"),
    }
    checked = 0
    for row in rows:
        n = float(row["trajectories"])
        unbiased, biased = exact(row["unbiased"], row["signal"]), exact(row["biased"], row["signal"])
        if n < 1.0:
            assert unbiased.mean_squared_error(1) < biased.mean_squared_error(1)
            continue
        checked += 1
        assert unbiased.mean_squared_error(n) == pytest.approx(biased.mean_squared_error(n), rel=1e-6)
        # The control: elsewhere they differ, and in the direction that the figure says.
        assert unbiased.mean_squared_error(2 * n) < 0.999 * biased.mean_squared_error(2 * n)
        if n > 2.0:
            assert unbiased.mean_squared_error(n / 2) > 1.001 * biased.mean_squared_error(n / 2)
    assert checked >= 4


def test_a_crossover_that_never_comes():
    assert figure.crossover(variance=1.0, other_variance=3.0, other_squared_bias=0.5) < 0.0
    assert figure._until(-4.0) == "never"
    assert figure._until(1234.5) == "n < 1,234"


def test_crossover_by_simulation():
    """Averages of drawn estimators, not formulas: before the crossover the biased one is nearer, after it it is not."""
    e = environment("parity", horizon=3)
    pair = drift.at("noise", e.process, e.target, kl=0.3)
    prefix, none = (
        theory.moments(e.process, pair.target, pair.behaviour, theory.Estimator(w, "target_advantage"), covariance=True)
        for w in ("prefix", "none")
    )
    n = figure.crossover(prefix.variance, none.variance, float(none.bias @ none.bias))
    rng = np.random.default_rng(0)

    def error(m, batch):
        root = np.linalg.svd(m.covariance)
        noise = rng.standard_normal((4000, m.mean.size)) * np.sqrt(root.S / batch) @ root.U.T
        squares = ((m.mean - m.gradient + noise) ** 2).sum(axis=1)
        return squares.mean(), squares.std() / np.sqrt(squares.size)

    for factor, sign in ((0.25, 1), (4.0, -1)):
        (a, sa), (b, sb) = error(prefix, factor * n), error(none, factor * n)
        assert sign * (a - b) > 4 * np.hypot(sa, sb)


def test_no_panel_is_cut_by_the_limits_of_another(results):
    panels = figure._panels(figure._one_cell(figure.table_of(results))[0])
    rows = [row for signal, lines in panels.items() for row in figure.errors(signal, lines)]
    least, most = min(r["relative_mse"] for r in rows), max(r["relative_mse"] for r in rows)
    ranges = {s: max(r["relative_mse"] for r in rows if r["signal"] == s) for s in panels}
    assert min(ranges.values()) < 0.9 * max(ranges.values())  # else nothing could be cut
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(figure.style, "save", lambda fig, *_: seen.append([ax.get_ylim() for ax in fig.axes]) or [])
        patch.setattr(figure, "write_csv", lambda path, _: path)
        figure.draw(results, results)
    for low, high in seen[0]:
        assert low < least
        assert high > most
