"""What the command line changes in a sweep's settings, and what it refuses to ignore."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.sweep import Sweep
from testbed.sweep.command import _settings
from testbed.sweep.tasks import cells


@pytest.fixture
def written(tmp_path):
    """A sweep with these changes, as a file."""

    def write(**changes):
        plain = {"environments": ["parity"], "drifts": ["noise"], "weights": ["token"], "signals": ["outcome"]}
        path = tmp_path / "mine.toml"
        path.write_text(Sweep(name="mine", **{**plain, **changes}).to_toml(), encoding="utf-8")
        return path

    return write


def settings_of(file, *, seeds=None, quick=False, length=None, kl=None):
    return _settings(file, seeds, quick, length, kl)


def test_divergences_take_the_place_of_a_drifts_own(written):
    file = written(drifts=["noise", {"name": "noise", "kl": [0.5]}, {"name": "mixture", "kl": [0.7]}], kl=[0.1])
    assert [cell.pair.kl for cell in cells(settings_of(file))] == [0.1, 0.5, 0.7]
    found = [(cell.pair.drift.name, cell.pair.kl) for cell in cells(settings_of(file, kl="0.2,0.3"))]
    assert found == [("noise", 0.2), ("noise", 0.3), ("mixture", 0.2), ("mixture", 0.3)]


def test_a_length_takes_the_place_of_all_lengths(written):
    file = written(environments=[{"name": "parity", "horizon": [3, 4]}, {"name": "chain", "horizon": 5}])
    found = [environment.label for environment in settings_of(file, length="6,7").environments]
    assert found == ["parity(horizon=6)", "parity(horizon=7)", "chain(horizon=6)", "chain(horizon=7)"]


def test_divergences_that_nothing_is_solved_for_are_refused(written):
    stated = [{"name": "top_p", "p": 0.9}, {"name": "noise", "strength": 0.5}, "given"]
    message = r"--kl is '0.3', but no drift of sweep 'mine' .*: top_p\(p=0.9\), noise\(strength=0.5\), given$"
    with pytest.raises(ValueError, match=message):
        settings_of(written(drifts=stated), kl="0.3")
    with pytest.raises(ValueError, match="no drift of sweep 'samplers' is solved for a divergence"):
        settings_of(Path("samplers"), kl="0.3")
    assert settings_of(written(drifts=[*stated, "mixture"]), kl="0.3").kl == (0.3,)


def test_seeds_that_nothing_is_drawn_with_are_refused(written):
    fixed = ["mixture", {"name": "noise", "seed": 3}]
    with pytest.raises(ValueError, match=r"--seeds is '1,2', .* 'mine' draws one: mixture, noise\(seed=3\)$"):
        settings_of(written(drifts=fixed), seeds="1,2")
    with pytest.raises(ValueError, match="no drift of sweep 'samplers' draws one"):
        settings_of(Path("samplers"), seeds="1,2")
    assert settings_of(written(drifts=[*fixed, "noise"]), seeds="1,2").seeds == (1, 2)
