"""The tables cell by cell: every printed number by hand from `theory.moments`, and headings that say what it is."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import theory
from testbed import drift, environment
from testbed.sweep import Sweep, read_table, run_sweep
from testbed.sweep.building import beside
from testbed.sweep.layouts import drifts_lines, numbers_lines, print_cells, rows_as_data
from testbed.sweep.printing import WIDTH, number
from tests.testbed.sweep.small import Inline

OUTCOME = {"name": "outcome", "baseline": "expected_return"}


def lines_of(table, layout):
    lines = {"numbers": numbers_lines, "drifts": drifts_lines}[layout](table, "token")
    return [str(line) for line in lines]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Two lengths, one of which no tree reaches, and two signals."""
    folder = tmp_path_factory.mktemp("numbers")
    sweep = Sweep(
        layout="numbers", environments=[{"name": "modular_sum", "horizon": [4, 40]}], drifts=["noise"], kl=[0.05],
        signals=["target_advantage", OUTCOME], trajectories=[100], old="halfway", sampled_trajectories=500,
        weights=[
            "token", "prefix", "minpro", "gspo", "ppo_clip", "decoupled", {"name": "masked", "interval": [0.5, 2.0]},
        ],
    )  # fmt: skip
    assert run_sweep(sweep, folder, executor=Inline()).failures == ()
    return read_table(folder)


def pair(horizon):
    made = environment("modular_sum", horizon=horizon)
    return made.process, drift.at("noise", made.process, made.target, kl=0.05, seed=0)


def block(lines, title, signal):
    start = next(i for i, line in enumerate(lines) if line.startswith(title) and lines[i + 1] == signal)
    return lines[start : next((i for i in range(start, len(lines)) if not lines[i]), None)]


@pytest.mark.parametrize("horizon", [4, 40])
@pytest.mark.parametrize("name", ["token", "minpro", "ppo_clip", "decoupled"])
def test_the_numbers_are_those_of_moments(numbers, horizon, name):
    process, drifted = pair(horizon)
    for written, signal in (("target_advantage", theory.signal("target_advantage")),
                            ("outcome(baseline=expected_return)", theory.signal(**OUTCOME))):  # fmt: skip
        found = block(
            lines_of(numbers, "numbers"), f"modular_sum(horizon={horizon}), noise drift (seed 0), KL 0.05 per token",
            f"signal {written}",
        )  # fmt: skip
        row = next(line for line in found if line.split()[0] == name).split()[1:]
        estimator = theory.Estimator(name, signal)
        third = beside("halfway", drifted.target, drifted.behaviour)
        m = theory.moments(process, drifted.target, drifted.behaviour, estimator, **third)
        scale = float(np.linalg.norm(m.gradient))
        expected = [
            float(np.linalg.norm(m.mean - m.gradient)) / scale, m.variance**0.5 / scale,
            (float(m.bias @ m.bias) + m.variance / 100) / scale**2,
            float(m.mean @ m.gradient) / float(np.linalg.norm(m.mean)) / scale,
            float(np.linalg.norm(m.mean)) / scale,
        ]  # fmt: skip
        assert row[:5] == [number(x) for x in expected]
        assert row[:5] != [number(1.01 * x) for x in expected]
        assert row[6] != "-" if horizon == 4 else row[6] == "-"


def test_means_of_weights_at_a_length_that_no_tree_reaches(numbers):
    """Of the token ratio it is 1, of minpro E[m_t rho_t] = E[m_t], by sampling."""
    long = (numbers["horizon"] == 40) & (numbers["signal"] == "target_advantage")
    mean = dict(zip(numbers["weight"][long], numbers["mean_weight"][long], strict=True))
    assert mean["token"] == pytest.approx(1.0, rel=1e-12)
    assert mean["prefix"] == pytest.approx(1.0, rel=1e-12)
    process, drifted = pair(40)
    rng, n = np.random.default_rng(0), 20_000
    state, smallest, total = np.zeros(n, int), np.full(n, np.inf), np.zeros(n)
    ratio = drifted.target.probabilities / drifted.behaviour.probabilities
    transition = np.asarray(process.transition).reshape(process.states, process.actions, -1)
    cumulative = drifted.behaviour.probabilities.cumsum(axis=1)
    assert process.initial[0] == 1.0
    for _ in range(40):
        action = np.minimum((rng.random(n)[:, None] > cumulative[state]).sum(axis=1), process.actions - 1)
        total += np.where(np.isinf(smallest), 1.0, smallest) * ratio[state, action]
        smallest = np.minimum(smallest, ratio[state, action])
        state = transition[state, action].argmax(axis=1)
    error = total.std() / 40 / n**0.5
    assert abs(total.mean() / 40 - mean["minpro"]) < 4 * error  # false alarm 6e-5
    assert abs(total.mean() / 40 - mean["token"]) > 40 * error
    share = dict(zip(numbers["weight"][long], numbers["share_zero_weight"][long], strict=True))
    assert 0.0 < share["masked(interval=(0.5, 2.0))"] < 0.1
    assert share["token"] == 0.0
    assert np.isnan(share["gspo"])
    assert np.isnan(numbers["median_weight"][long]).all()


def test_sampled_rows_are_marked_with_their_errors(numbers):
    sampled = numbers["engine"] == "sampling"
    assert set(numbers["weight"][sampled]) == {"gspo"}
    assert set(numbers["horizon"][sampled]) == {40}
    assert set(numbers["draws"][sampled]) == {500}
    lines = lines_of(numbers, "numbers")
    text = " ".join(lines)
    assert "those of rows with ~, which are of 500 sampled trajectories" in text
    marked = [line for line in lines if line.startswith("gspo ~")]
    assert len(marked) == 2
    errors = [line for line in lines if line.startswith("~ standard error of the mean over |g|")]
    assert len(errors) == 2
    i = np.flatnonzero(sampled)[0]
    assert f"gspo {number(numbers['standard_error'][i] / numbers['gradient_norm'][i])}" in text
    exact = {name: column[~sampled] for name, column in numbers.items()}
    assert "~" not in " ".join(lines_of(exact, "numbers"))


def test_the_heading_says_what_every_column_is_and_all_fits(numbers):
    lines = lines_of(numbers, "numbers")
    heading = " ".join(lines[: lines.index("")])
    head = next(line for line in lines if line.split()[:2] == ["bias", "std"])
    for column in ("bias", "std", "mse@100", "cosine", "step", "E[w]", "median w", "w = 0"):
        assert column in head
        assert column in heading
    assert "take pi_old halfway from mu to pi" in heading
    assert max(map(len, lines)) <= WIDTH
    found = block(lines, "modular_sum(horizon=4)", "signal target_advantage")
    errors = [float(line.split()[-6]) for line in found[found.index(head) + 1 :]]
    assert len(errors) == 7
    assert errors == sorted(errors)


def test_the_third_policy_is_half_of_the_way():
    _, drifted = pair(4)
    third = beside("halfway", drifted.target, drifted.behaviour)
    middle = np.sqrt(drifted.target.probabilities * drifted.behaviour.probabilities)
    assert np.allclose(third["old"].probabilities, middle / middle.sum(axis=1, keepdims=True), rtol=1e-12)
    # One update behind, as `building.OLD` says.
    assert third["lag"] == 1.0
    assert beside("none", drifted.target, drifted.behaviour) == {}
    # Without an action in common there is no way between the two.
    one, other = theory.SoftmaxPolicy([[0.0, -math.inf]]), theory.SoftmaxPolicy([[-math.inf, 0.0]])
    assert beside("halfway", one, other)["old"].probabilities.tolist() == [[0.0, 1.0]]


@pytest.fixture(scope="module")
def drifts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drifts")
    sweep = Sweep(
        layout="drifts", environments=[{"name": "token_tree", "depth": 2, "vocabulary": 4}],
        drifts=[{"name": "top_p", "p": [0.9, 0.5]}, {"name": "top_k", "k": 2}, {"name": "rounding", "format": "e4m3"},
                {"name": "mixture", "kl": [50.0]}],
        signals=["target_advantage", "outcome"], weights=["none", "prefix", "sequence"],
    )  # fmt: skip
    assert run_sweep(sweep, folder, executor=Inline()).failures == ()
    return read_table(folder)


def test_lost_support_is_the_term_of_the_decomposition(drifts):
    made = environment("token_tree", depth=2, vocabulary=4)
    for options, drift_options in (({"p": 0.5}, "p=0.5"), ({"k": 2}, "k=2")):
        kind = "top_p" if "p" in options else "top_k"
        cut = drift.measured(kind, made.process, made.target, **options)
        mine = (drifts["drift"] == kind) & (drifts["drift_options"] == drift_options)
        assert drifts["lost_mass"][mine] == pytest.approx(cut.lost_mass, rel=1e-12)
        assert 0.1 < cut.lost_mass < 1.0
        g = np.linalg.norm(theory.policy_gradient(made.process, made.target))
        for signal in ("target_advantage", "outcome"):
            for weight in ("none", "prefix"):
                d = theory.decompose(
                    made.process, made.target, cut.behaviour, theory.Estimator(weight, signal), missing_support="allow"
                )
                support = float(np.linalg.norm(d["support"]) / g)
                assert drifts["support_bias"][mine] == pytest.approx(support, rel=1e-9)
                [row] = np.flatnonzero(mine & (drifts["signal"] == signal) & (drifts["weight"] == weight))
                assert drifts["relative_bias"][row] == pytest.approx(np.linalg.norm(d.bias) / g, rel=1e-9)
    # Rounding loses nothing.
    assert set(drifts["support_bias"][drifts["drift"] == "rounding"]) == {0.0}
    # With target advantages the true prefix ratios keep that bias and nothing else; another weight has another.
    own = (drifts["signal"] == "target_advantage") & (drifts["drift"] == "top_k")
    bias = dict(zip(drifts["weight"][own], drifts["relative_bias"][own], strict=True))
    assert bias["prefix"] == pytest.approx(drifts["support_bias"][own][0], rel=1e-9)
    assert abs(bias["none"] / bias["prefix"] - 1.0) > 0.01


def test_drifts_stand_in_columns(drifts):
    lines = lines_of(drifts, "drifts")
    assert max(map(len, lines)) <= WIDTH
    start = lines.index("token_tree(depth=2, vocabulary=4); signal outcome")
    kinds, settings, lost, prefix = lines[start + 1], lines[start + 2], lines[start + 4], lines[start + 7]
    assert kinds.split() == ["top_p", "top_p", "top_k", "rounding", "mixture"]
    assert settings.split() == ["p=0.9", "p=0.5", "k=2", "e4m3", "mantissa", "KL", "50"]
    first = (drifts["signal"] == "outcome") & (drifts["weight"] == "prefix")
    assert lost.split()[2:] == [number(x) for x in drifts["lost_mass"][first]]
    assert lost.split()[-1] == "-"
    assert prefix.split() == ["prefix", *(number(x) for x in drifts["relative_bias"][first])]


def test_more_drifts_than_fit_are_broken_into_parts(drifts):
    many = {name: np.concatenate([column] * 3) for name, column in drifts.items()}
    n = len(drifts["drift"])
    many["drift_options"] = np.array([f"{text}{i // n}" for i, text in enumerate(many["drift_options"])])
    lines = lines_of(many, "drifts")
    assert max(map(len, lines)) <= WIDTH
    assert sum("top_p" in line for line in lines) > sum("top_p" in line for line in lines_of(drifts, "drifts"))


def test_out_of_reach_says_how_far_it_goes(drifts):
    far = {name: column[drifts["drift"] == "mixture"] for name, column in drifts.items()}
    made = environment("token_tree", depth=2, vocabulary=4)
    largest = drift.at("mixture", made.process, made.target, 50.0, nearest=True).kl
    assert far["kl_maximum"] == pytest.approx(largest, rel=1e-9)
    lines = lines_of(far, "numbers")
    assert f"out of reach: this drift can give {number(largest)} nats at the most" in lines


def test_rows_for_scripts_have_null_for_what_does_not_exist(drifts, capsys):
    data = json.loads(json.dumps(rows_as_data(drifts), allow_nan=False))
    assert len(data) == len(drifts["status"])
    assert data[-1]["relative_bias"] is None
    assert data[0]["relative_bias"] == pytest.approx(drifts["relative_bias"][0])
    print_cells(drifts, "drifts", "token")
    assert capsys.readouterr().out.splitlines() == lines_of(drifts, "drifts")
