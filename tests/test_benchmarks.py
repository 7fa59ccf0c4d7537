"""The benchmarks' plain twins give the engines' numbers; floors and tables say what they claim."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import theory
from benchmarks import __main__ as command
from benchmarks import draws, floors, report, timing, training, twins
from benchmarks.problems import Problem, long_horizon, million_trajectories, problem

MINPRO = theory.Estimator(weight="minpro", signal="target_advantage")
# Random transitions, a tree of tokens, and episodes of different lengths that end in absorbing states.
SMALL = {
    "garnet": problem("garnet", states=3, actions=2, horizon=4),
    "modular_sum": million_trajectories(4),
    "brackets": problem("brackets"),
}


def engine(given: Problem, estimator=MINPRO):
    return theory.moments(given.process, given.target, given.behaviour, estimator, engine="recursion")


def agree(twin, moments):
    scale = np.linalg.norm(moments.mean)
    return np.linalg.norm(twin.mean - moments.mean) < 1e-10 * scale and twin.variance == pytest.approx(
        moments.variance, rel=1e-10
    )


@pytest.mark.parametrize("twin", [twins.recursion, twins.enumeration])
@pytest.mark.parametrize("name", SMALL)
def test_twins_give_the_numbers_of_the_engine(twin, name):
    given = SMALL[name]
    assert agree(twin(given), engine(given))
    # The controls: another weight, and the two policies swapped, are told apart.
    assert not agree(twin(given), engine(given, theory.Estimator(weight="token", signal="target_advantage")))
    swapped = given._replace(target=given.behaviour, behaviour=given.target)
    assert not agree(twin(swapped), engine(given))


def test_the_timed_sizes_are_those_of_the_targets():
    given = long_horizon(1000)
    assert (given.process.states, given.process.actions, given.process.horizon) == (10, 5, 1000)
    assert 4**10 >= 1_000_000
    assert million_trajectories().process.horizon == 10


def test_sampled_tokens_have_the_right_law():
    """Visits of (state, action) at the last step against exact probabilities; 8 cells, 4.5 sigma: 1 in 20,000."""
    given, n = problem("garnet", states=4, actions=2, horizon=3), 20_000
    paths = twins.sampling(given, n, seed=1)
    assert {len(path) for path in paths} == {3}
    counts = np.zeros((4, 2))
    for path in paths:
        counts[path[-1]] += 1

    def largest_deviation(policy):
        chance = theory.values(given.process, policy).occupancy[2][:, None] * policy.probabilities
        error = np.sqrt(chance * (1 - chance) / n)
        return np.max(np.abs(counts / n - chance) / np.where(error > 0, error, 1.0))

    assert largest_deviation(given.behaviour) < 4.5
    assert largest_deviation(given.target) > 4.5


def test_the_vector_environment_takes_every_token():
    given = long_horizon(draws.HORIZON)
    assert draws.step_vector_env(given, 2) == 2 * draws.COPIES * draws.HORIZON
    assert draws.draw(given, 30) == 30 * draws.HORIZON


def test_floors_count_what_their_docstrings_say(monkeypatch):
    monkeypatch.setattr(floors, "matmul_rate", lambda left, right: 1e9)
    given = long_horizon(100)
    S, A, P, K = 10, 5, 50, 51
    step = 2 * K * S**2 * P + 6 * K * S**2 * A + 4 * K * S * A + 2 * S**2 * A
    assert floors.minpro_recursion(given) == (100.0 * step, pytest.approx(100.0 * step / 1e9))
    operations, _ = floors.minpro_enumeration(million_trajectories(4), 256)
    assert operations == 256 * (4 * 4 + 1 + 6 * 20)


def test_matmul_rate_is_that_of_a_machine():
    assert 1e7 < timing.matmul_rate((64, 64), (64, 64)) < 1e14


def test_peak_memory_grows_with_what_is_held():
    script = "import numpy as np\nfrom benchmarks.timing import peak_memory\nbefore = peak_memory()\n"
    script += "x = np.ones(20_000_000)\nprint((peak_memory() - before) / x.nbytes)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0.8 < float(done.stdout) < 1.5


def test_rows_are_judged_in_their_own_direction():
    seconds = report.Row("a", "p", measured=2.0, unit="s", target=1.0, twin=8.0, floor=0.5)
    assert (seconds.met, seconds.twin_ratio, seconds.floor_ratio) == (False, 4.0, 4.0)
    rate = report.Row("b", "p", measured=2.0, unit="/s", target=1.0, twin=0.5, floor=8.0, higher_is_better=True)
    assert (rate.met, rate.twin_ratio, rate.floor_ratio) == (True, 4.0, 4.0)
    text = report.table([seconds, rate])
    assert [line.split("  ")[0] for line in text.splitlines()[2:4]] == ["a", "b"]
    assert "missed" in text
    assert "met" not in report.table([seconds, rate], judged=False)
    assert report.Row("c", "p", 1.0, "GB", 2.0).as_data()["twin"] is None


def test_a_part_without_a_target_is_not_judged():
    part = report.Row("d", "p", 1.0, "s", math.nan)
    assert part.as_data()["met"] is None
    assert "missed" not in report.table([part])
    assert "missed" in report.table([report.Row("d", "p", 1.0, "s", 0.5)])


def test_the_training_step_that_is_timed_learns():
    """It has the size of the target, and Adam's first step moves theta by the learning rate."""
    # Of random answers hardly any is right, and a group of wrong ones has no gradient.
    settings = training.Training(training.TASK, tree_prompts=0, signal="outcome(baseline=0.5)")
    assert (settings.prompts * settings.answers, settings.layers, settings.width) == (64, 2, 64)
    assert (settings.task.prompt_length, settings.task.maximum_length) == (6, 8)
    state = training.start(settings, training.initial_parameters(settings.config, 0))
    before = state.leaf.detach().clone()
    clocks, rollout = training.step(settings, state)
    assert clocks == sorted(clocks)
    assert rollout.mask.shape == (64, 8)
    assert float((state.leaf.detach() - before).abs().max()) == pytest.approx(settings.learning_rate, rel=0.01)


def test_quick_run_as_json(capsys):
    assert command.main(["--quick", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["quick"]
    assert len(data["rows"]) == 13
    for row in data["rows"]:
        assert row["measured"] > 0.0
    timed = [row for row in data["rows"] if row["twin"] is not None and "TRL" not in row["twin_note"]]
    assert len(timed) == 4
    assert all(row["floor"] > 0.0 and row["operations"] > 0.0 and row["seconds"]["best"] > 0.0 for row in timed)


def test_parts_are_chosen_by_name(capsys):
    assert command.main(["training", "--quick", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert names[0] == "training step"
    assert len(names) == 5
    with pytest.raises(SystemExit):
        command.main(["trainin"])
    assert "'trainin' is no part; expected tree, horizon, draws, page, training" in capsys.readouterr().err
