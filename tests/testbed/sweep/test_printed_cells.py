"""What is printed of awkward cells: long names, drifts that differ in little, steps, draws of several trajectories."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest

import theory
from testbed import drift, environment
from testbed.sweep import Sweep, read_table, run_sweep
from testbed.sweep.layouts import drifts_lines, numbers_lines
from testbed.sweep.printing import WIDTH, number, print_summary, text_width
from testbed.sweep.summary import summarise
from tests.testbed.sweep.small import Inline

TREE = {"name": "token_tree", "depth": 2, "vocabulary": 3}


@pytest.fixture
def table_of(tmp_path):
    def run(**changes):
        plain = {"environments": [TREE], "drifts": ["noise"], "kl": [0.2], "weights": ["token"], "signals": ["outcome"]}
        sweep = Sweep(**{**plain, "trajectories": [6], "layout": "numbers", **changes})
        assert run_sweep(sweep, tmp_path, executor=Inline()).failures == ()
        return {name: column.copy() for name, column in read_table(tmp_path).items()}

    return run


def text_of(lines):
    return [str(line) for line in lines]


def heads_of(lines):
    """The heads above the columns of each part of the layout "drifts", read by where the numbers below them end."""
    parts = []
    for start, line in enumerate(lines):
        if not line.startswith("KL per "):
            continue
        top = next(k for k in range(start, 0, -1) if not lines[k - 1].startswith("   "))
        ends = [i + 1 for i in range(len(line)) if line[i] != " " and (i + 1 == len(line) or line[i + 1] == " ")]
        ends = [end for end in ends if end > len("KL per sequence")]
        bounds = list(zip([len("KL per token"), *ends[:-1]], ends, strict=True))
        parts.append([tuple(head[a:b].strip() for head in lines[top:start]) for a, b in bounds])
    return parts


def test_weights_that_couple_a_batch_have_no_statistics_where_a_draw_has_several(table_of):
    table = table_of(
        weights=["token", "self_normalised", {"name": "self_normalised", "level": "sequence"}],
        reductions=["sum", {"name": "token_mean", "batch": [1, 2, 3]}],
    )
    several = table["trajectories_per_draw"] > 1
    coupled = np.char.startswith(table["weight"], "self_normalised")
    assert several.sum() == 6
    for column in ("mean_weight", "median_weight", "share_zero_weight"):
        assert np.isnan(table[column][several & coupled]).all()
        assert np.isfinite(table[column][~(several & coupled)]).all()
    # A sequence alone is normalised by itself: its ratio over its own.
    alone = coupled & ~several & np.char.endswith(table["weight"], "(level=sequence)")
    assert table["median_weight"][alone] == pytest.approx([1.0, 1.0], rel=1e-12)
    text = " ".join(" ".join(text_of(numbers_lines(table, "token"))).split())
    for size in (1, 2, 3):
        assert f"all trajectories of a draw, here {size}; mse@6 is of the mean of such draws" in text
    token = {name: column[table["weight"] == "token"] for name, column in table.items()}
    assert "of a draw, here" not in " ".join(text_of(numbers_lines(token, "token")))


def test_a_batch_that_is_no_whole_number_of_draws_has_no_error(table_of):
    table = table_of(signals=["outcome", {"name": "group", "size": 3}], trajectories=[2, 3, 5, 6])
    group = table["trajectories_per_draw"] == 3
    assert group.sum() == 1
    for n in (2, 3, 5, 6):
        assert np.isnan(table[f"relative_mse_at_{n}"][group]).all() == (n % 3 != 0)
        assert np.isfinite(table[f"relative_mse_at_{n}"][~group]).all()
    made = environment("token_tree", depth=2, vocabulary=3)
    drifted = drift.at("noise", made.process, made.target, kl=0.2, seed=0)
    m = theory.moments(made.process, drifted.target, drifted.behaviour, theory.Estimator("token", theory.group(3)))
    scale = float(np.linalg.norm(m.gradient))
    assert table["relative_mse_at_6"][group] == pytest.approx((m.bias @ m.bias + m.variance / 2) / scale**2, rel=1e-9)
    # std is per trajectory: three of them make a draw.
    [row] = [line.split() for line in block(text_of(numbers_lines(table, "token")), "group") if line[:6] == "token "]
    assert row[2] == number(math.sqrt(3.0 * m.variance) / scale) != number(math.sqrt(m.variance) / scale)


def block(lines, signal):
    start = next(i for i, line in enumerate(lines) if line.startswith(f"signal {signal}"))
    return lines[start : next((i for i in range(start, len(lines)) if not lines[i]), None)]


def test_sampled_draws_of_several_trajectories_are_counted_by_trajectory(table_of):
    table = table_of(signals=[{"name": "group", "size": 3}], engine="sampling", sampled_trajectories=600)
    assert table["draws"].tolist() == [200]
    assert "which are of 600 sampled trajectories" in " ".join(text_of(numbers_lines(table, "token")))


def test_what_draws_that_were_all_the_same_say_of_the_error_is_nothing(table_of):
    table = table_of(engine="sampling", sampled_trajectories=100, weights=["token", "none"])
    table["standard_error"][table["weight"] == "token"] = 0.0
    text = " ".join(" ".join(text_of(numbers_lines(table, "token"))).split())
    i = int(np.flatnonzero(table["weight"] == "none")[0])
    said = number(table["standard_error"][i] / table["gradient_norm"][i])
    assert f"token unknown (its draws were all the same), none {said}" in text


def test_only_a_bias_is_rounded_to_zero(table_of):
    table = table_of()
    for column in ("effective_step", "relative_standard_deviation", "ess_sequence", "relative_bias"):
        table[column][:] = 5.8e-11
    lines = text_of(numbers_lines(table, "token"))
    assert "effective sample size of sequence ratios 6e-11" in " ".join(lines)
    [row] = [line.split() for line in lines if line.startswith("token ")]
    assert (row[1], row[2], row[5]) == ("0", "6e-11", "6e-11")


def test_long_names_stand_on_a_line_of_their_own(table_of):
    name = "truncated(level=sequence, cap=2.5)"
    table = table_of(weights=["token", {"name": "truncated", "level": "sequence", "cap": [2.5, 1.5]}])
    lines = text_of(numbers_lines(table, "token"))
    assert max(map(len, lines)) <= WIDTH
    i = lines.index(name)
    [row] = np.flatnonzero(table["weight"] == name)
    assert lines[i + 1].split()[0] == number(table["relative_bias"][row])
    assert lines[i + 1].startswith(" " * 30)
    assert name.replace("2.5", "1.5") in lines


def test_lost_mass_is_said_where_there_is_some(table_of):
    table = table_of(drifts=[{"name": "top_p", "p": 0.7}, "noise"])
    cut = float(table["lost_mass"][table["drift"] == "top_p"][0])
    assert cut > 0.01
    text = " ".join(text_of(numbers_lines(table, "token")))
    support = number(float(table["support_bias"][table["drift"] == "top_p"][0]))
    assert text.count("lost mass") == 1
    assert f"; lost mass {number(cut)}, support {support}" in text


def test_between_two_steps_both_are_named(table_of):
    table = table_of(drifts=["top_p"], kl=[0.1])
    made = environment("token_tree", depth=2, vocabulary=3)
    with pytest.raises(drift.UnreachableError) as caught:
        drift.at("top_p", made.process, made.target, 0.1)
    below, above = caught.value.below[1], caught.value.above[1]
    assert below < 0.1 < above
    assert (table["kl_below"][0], table["kl_above"][0]) == (below, above)
    assert np.isnan(table["kl_maximum"][0])
    text = text_of(numbers_lines(table, "token"))
    assert f"out of reach: this drift goes in steps, the nearest are {number(below)} and {number(above)} nats" in text


def test_heads_of_drifts_are_never_cut(table_of):
    drifts = [
        {"name": "temperature", "direction": ["hot", "cold"], "strength": [0.1, 0.12]}, {"name": "noise"},
        {"name": "noise", "strength": 0.1}, {"name": "staleness", "steps": [1, 11]},
    ]  # fmt: skip
    table = table_of(drifts=drifts, kl=[0.01, 0.010000001], seeds=[0, 1], layout="drifts")
    lines = text_of(drifts_lines(table, "token"))
    assert max(map(len, lines)) <= WIDTH
    heads = [head for part in heads_of(lines) for head in part]
    assert len(heads) == len(set(heads)) == 14
    assert ("temperature", "direction=cold", "strength=0.12") in [tuple(filter(None, head)) for head in heads]
    assert ("noise", "KL 0.010000001", "seed 1") in [tuple(filter(None, head)) for head in heads]


def test_the_divergence_above_the_columns_is_counted_as_asked(table_of):
    table = table_of(drifts=[{"name": "top_k", "k": 2}], per="sequence", layout="drifts")
    [line] = [line for line in text_of(drifts_lines(table, "sequence")) if line.startswith("KL per ")]
    assert line.split() == ["KL", "per", "sequence", number(table["kl_sequence"][0])]
    assert number(table["kl_sequence"][0]) != number(table["kl_token"][0])


@pytest.mark.parametrize(
    ("terminal", "columns", "expected"), [(True, 60, 80), (True, 91, 91), (True, 200, 100), (False, 60, 100)]
)
def test_text_fits_the_terminal(terminal, columns, expected, monkeypatch):
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((columns, 24)))
    assert text_width() == expected


@pytest.mark.parametrize("columns", [80, 91, 100])
def test_no_line_is_wider_than_what_it_is_laid_out_for(columns, table_of):
    weights = ["token", "none", {"name": "truncated", "level": "sequence", "cap": 2.5}, "ppo_clip"]
    drifts = [{"name": "top_p", "p": [0.9, 0.8, 0.7]}, {"name": "temperature", "direction": ["hot", "cold"]}, "noise"]
    table = table_of(weights=weights, drifts=drifts, kl=[0.01, 0.1], trajectories=[256], sampled_trajectories=100)
    every = text_of(numbers_lines(table, "token", columns))
    assert max(map(len, every)) <= columns
    beside = text_of(drifts_lines(table, "token", columns))
    assert max(map(len, beside)) <= columns
    # The same numbers, whatever the width: of each weight in the first block.
    numbers = {line.split()[0]: line.split()[1:] for line in every if line.split()[:1] in (["token"], ["none"])}
    wide = {line.split()[0]: line.split()[1:] for line in text_of(numbers_lines(table, "token"))
            if line.split()[:1] in (["token"], ["none"])}  # fmt: skip
    assert numbers == wide
    assert set(numbers) == {"token", "none"}
    assert len({head for part in heads_of(beside) for head in part}) == 9


def test_the_summary_fits_a_narrow_terminal(table_of, monkeypatch, capsys):
    long = {"name": "truncated", "level": "sequence", "cap": [2.0, 2.0000001]}
    kl = [0.001, 0.002, 0.003, 0.004]
    table = table_of(weights=["token", long], kl=kl, layout="divergences")
    monkeypatch.setattr("testbed.sweep.printing.text_width", lambda: 80)
    print_summary(summarise(table))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    i = lines.index("truncated(level=sequence, cap=2.0000001)")
    row = [number(float(x)) for x in table["relative_bias"][table["weight"] == lines[i]]]
    assert lines[i + 1].split()[:4] == row
