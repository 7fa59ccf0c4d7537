"""One small sweep, whose table the figures are drawn from."""

import csv
from concurrent.futures import Executor, Future

import pytest

from testbed.sweep import Sweep, run_sweep

SWEEP = Sweep(
    name="small",
    environments=[{"name": "parity", "horizon": 3}, {"name": "token_tree", "depth": 3}],
    drifts=["noise", "staleness"],
    kl=[0.03, 0.1],
    weights=["token", "prefix", "sequence", "minpro", "geometric"],
    signals=["target_advantage", "behaviour_advantage", {"name": "outcome", "baseline": "expected_return"}],
)


class Inline(Executor):
    """Computes at once, without processes."""

    def submit(self, function, /, *arguments, **options):
        future = Future()
        future.set_result(function(*arguments, **options))
        return future


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert not run_sweep(SWEEP, folder, executor=Inline()).failures
    return folder


@pytest.fixture
def read():
    def rows(path):
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return rows
