"""A sweep that is killed, wherever it stands, ends with the same bytes once it is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.sweep import Sweep, run_sweep
from testbed.sweep.journal import FILE
from testbed.sweep.tasks import cells
from tests.testbed.sweep.small import Inline

# Enough work for a kill to fall into the middle: eight batches of a third of a second.
SLOW = Sweep(
    name="slow",
    environments=[{"name": "modular_sum", "horizon": 8}],
    drifts=["noise"],
    kl=[0.05, 0.2],
    seeds=[0, 1, 2, 3],
    weights=["token", "gspo", "m2po", "minpro", {"name": "masked", "level": "sequence"}],
    signals=["target_advantage", "behaviour_advantage", "outcome", "reward_to_go"],
)
TABLES = ("table.csv", "table.parquet")


def start(settings: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "testbed", "sweep", str(settings), "--out", str(folder), "--workers", "2"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finished(folder: Path) -> int:
    journal = folder / FILE
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        # A process that has ended but that nobody has asked about is a zombie: state Z.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_sweep(SLOW, folder, executor=Inline())
    return folder


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill")
def test_killed_and_resumed_gives_the_same_bytes(reference, tmp_path):
    settings, folder = tmp_path / "slow.toml", tmp_path / "killed"
    settings.write_text(SLOW.to_toml())
    total = len(cells(SLOW))
    before = 0
    for _ in range(2):
        process = start(settings, folder)
        wait_for(lambda before=before: finished(folder) > before)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = finished(folder)
        assert 0 < before < total, "the kill did not fall into the middle"
        assert not (folder / "table.csv").exists()
        # Workers must not outlive the parent that would give them tasks.
        wait_for(lambda workers=workers: not any(map(alive, workers)))
    process = start(settings, folder)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert f"{before} of them from earlier runs" in messages
    for name in TABLES:
        assert (folder / name).read_bytes() == (reference / name).read_bytes()
    # Negative control: the comparison can tell two sweeps apart that differ in one number.
    run_sweep(replace(SLOW, kl=(0.05, 0.2001)), folder, executor=Inline())
    for name in TABLES:
        assert (folder / name).read_bytes() != (reference / name).read_bytes()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="the system has no process groups")
def test_interrupt_says_how_to_go_on(reference, tmp_path):
    settings, folder = tmp_path / "slow.toml", tmp_path / "interrupted"
    settings.write_text(SLOW.to_toml())
    process = start(settings, folder)
    wait_for(lambda: finished(folder) > 0)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends to the whole group
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in messages
    assert "Traceback" not in messages
    assert len(messages.splitlines()) == 1
    wait_for(lambda: not any(map(alive, workers)))
    assert 0 < finished(folder) < len(cells(SLOW))
    assert run_sweep(SLOW, folder, executor=Inline()).reused > 0
    for name in TABLES:
        assert (folder / name).read_bytes() == (reference / name).read_bytes()
