"""The printed summary: medians worked by hand, numbers that fit, and the main findings of a small sweep."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from testbed.sweep import Sweep, read_table, run_sweep, summarise
from testbed.sweep.printing import WIDTH, as_data, number, print_summary
from tests.testbed.sweep.small import Inline


def table(rows):
    """Columns of (weight, kl, status, bias)."""
    weight, kl, status, bias = (np.array(column) for column in zip(*rows, strict=True))
    n = len(rows)
    same = {
        "signal": "outcome",
        "score": "own",
        "reduction": "sum",
        "environment": "e",
        "environment_options": "",
        "drift": "noise",
        "engine": "recursion",
    }
    return {
        **{name: np.array([value] * n) for name, value in same.items()},
        "weight": weight, "kl_target": kl, "status": status, "relative_bias": bias,
        "relative_standard_deviation": 2 * bias, "relative_mse_at_1": bias, "relative_mse_at_16": bias**2,
        "trajectories_per_draw": np.ones(n), "standard_error": np.zeros(n), "gradient_norm": np.ones(n),
        "draws": np.full(n, 100_000.0),
    }  # fmt: skip


def test_medians_by_hand():
    nan = math.nan
    summary = summarise(table([
        ("token", 0.1, "ok", 3.0), ("token", 0.1, "ok", 1.0), ("token", 0.1, "ok", 2.0),
        ("token", 0.2, "unreachable", nan), ("token", 0.2, "ok", 5.0),
        ("prefix", 0.1, "ok", 0.0), ("prefix", 0.2, "ok", 1e-12), ("prefix", nan, "ok", 0.0),
    ]))  # fmt: skip
    assert summary.kl == (0.1, 0.2)
    assert summary.unreachable == 1
    [block] = summary.blocks
    token, prefix = block.rows
    assert summary.levels == ("0.1", "0.2", "set")
    assert token.relative_bias == pytest.approx((2.0, 5.0, nan), nan_ok=True)
    assert token.relative_standard_deviation == pytest.approx((4.0, 10.0, nan), nan_ok=True)
    assert token.relative_error == pytest.approx((2.0, 5.0, nan), nan_ok=True)
    assert token.worst_relative_bias == 5.0
    assert prefix.weight == "prefix"
    assert summary.unbiased == {"outcome": ["prefix"]}
    assert summary.least_error == {"outcome": ["prefix", "prefix", "prefix"]}


def test_bias_in_a_single_cell_is_enough_to_be_biased():
    """Also in a cell without a column: policies that the environment brings."""
    summary = summarise(table([("token", 0.1, "ok", 0.0), ("token", math.nan, "ok", 0.1)]))
    assert summary.unbiased == {}


@pytest.mark.parametrize(
    "value", [0.0, 1e-16, 3e-5, 0.0123, 0.9999, 1.0, 9.999, 99.99, 999.9, 9999.4, 9999.6, 1e17, math.nan]
)
def test_numbers_fit_their_column(value):
    assert len(number(value)) <= 7
    if value >= 1e-9:
        assert float(number(value)) == pytest.approx(value, rel=0.5 if value < 0.001 else 0.06)


def test_the_main_findings_can_be_read(tmp_path, capsys):
    sweep = Sweep(
        environments=["token_tree", "parity"], drifts=["noise"], kl=[0.01, 0.3],
        weights=["token", "prefix", "sequence", "minpro"],
        signals=["target_advantage", "behaviour_advantage", "outcome"],
    )  # fmt: skip
    run_sweep(sweep, tmp_path, executor=Inline())
    summary = summarise(read_table(tmp_path))
    assert summary.unbiased == {"target_advantage": ["prefix", "sequence"], "outcome": ["sequence"]}
    print_summary(summary)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in "".join(lines)
    assert "  target_advantage: prefix, sequence" in lines
    prefix = next(line for line in lines if line.startswith("prefix"))
    assert prefix.split()[1:3] == ["0", "0"]
    text = json.dumps(as_data(summary), allow_nan=False)
    assert json.loads(text)["unbiased"] == summary.unbiased


def printed(capsys, summary):
    print_summary(summary)
    return " ".join(capsys.readouterr().out.split())


def test_where_nothing_is_reached_nothing_wins(capsys):
    summary = summarise(table([(w, 0.1, "unreachable", math.nan) for w in ("token", "prefix")]))
    assert summary.least_error == {"outcome": [None]}
    assert json.loads(json.dumps(as_data(summary), allow_nan=False))["least_error"] == {"outcome": [None]}
    text = printed(capsys, summary)
    assert "outcome: - at 0.1" in text
    assert "exact in every cell" not in text
    # The control: with numbers, the sentence is there.
    assert "Nothing is exact in every cell" in printed(capsys, summarise(table([("token", 0.1, "ok", 1.0)])))


def test_standard_deviations_are_per_trajectory(tmp_path):
    """Two independent trajectories in a batch have half the variance; per trajectory it is the same."""
    sweep = Sweep(
        environments=["parity"], drifts=["noise"], kl=[0.1], weights=["token"], signals=["outcome"],
        reductions=["sum", {"name": "token_mean", "batch": 2}, {"name": "token_mean", "batch": 1}],
    )  # fmt: skip
    run_sweep(sweep, tmp_path, executor=Inline())
    data = read_table(tmp_path)
    assert data["trajectories_per_draw"].tolist() == [1, 2, 1]
    draw = data["relative_standard_deviation"]
    found = [block.rows[0].relative_standard_deviation[0] for block in summarise(data).blocks]
    assert found == pytest.approx([draw[0], draw[1] * 2**0.5, draw[2]], rel=1e-12)
    # Every episode of parity has the same length: the mean over a batch's tokens is the mean of two means.
    assert found[1] == pytest.approx(found[2], rel=1e-8)


def test_sampled_numbers_are_not_called_exact(capsys):
    data = table([("token", 0.1, "ok", 1e-12), ("prefix", 0.1, "ok", 1e-12)])
    assert "0 is exact, to rounding" in printed(capsys, summarise(data))
    data |= {"engine": np.array(["sampling", "recursion"]), "standard_error": np.array([0.5, 0.0])}
    text = printed(capsys, summarise(data))
    assert "those of 1 cells are sampled with 100,000 trajectories per cell" in text
    assert "error of the mean of 0.500 (median)" in text
    assert summarise(data).unbiased == {"outcome": ["prefix"]}
    data["engine"][:] = "sampling"
    text = printed(capsys, summarise(data))
    assert "all are sampled" in text
    assert "0 is exact" not in text
    assert "exact in every cell" not in text.lower()


def test_cells_behind_each_divergence_are_counted(capsys):
    rows = [("token", 0.1, "ok", 1.0), ("token", 0.1, "ok", 1.0), ("token", 0.3, "ok", 1.0)]
    text = printed(capsys, summarise(table([*rows, ("token", 0.3, "unreachable", math.nan)])))
    assert "Cells behind the columns, all rows together: 2 at 0.1, 1 at 0.3." in text
    assert "Cells behind" not in printed(capsys, summarise(table(rows[1:])))


def test_drifts_that_say_how_strong_they_are_have_a_column(capsys):
    data = table([("token", 0.1, "ok", 1.0), ("token", math.nan, "ok", 4.0), ("token", math.nan, "ok", 5.0)])
    assert summarise(data).levels == ("0.1", "set")
    assert summarise(data).blocks[0].rows[0].relative_bias == (1.0, 4.5)
    assert "'set' is of drifts whose strength the settings say" in printed(capsys, summarise(data))
    data["drift"] = np.array(["noise", "noise", "given"])
    assert summarise(data).levels == ("0.1", "given/set")
    text = printed(capsys, summarise(data))
    assert "'given/set' is of the policies that an environment brings and drifts whose strength the settings" in text


def test_policies_that_an_environment_brings_have_a_column(tmp_path, capsys):
    sweep = Sweep(
        environments=["two_token_counterexample"], drifts=["given"], weights=["token", "sequence"], signals=["outcome"]
    )
    run_sweep(sweep, tmp_path, executor=Inline())
    data = read_table(tmp_path)
    summary = summarise(data)
    assert summary.levels == ("given",)
    [block] = summary.blocks
    assert [row.relative_bias for row in block.rows] == [(bias,) for bias in data["relative_bias"]]
    text = printed(capsys, summary)
    assert "KL given given" in text
    assert "sequence at given" in text or "token at given" in text
    json.dumps(as_data(summary), allow_nan=False)
