"""Local processes: what an interrupt does to them, at any moment of their lives."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor

import pytest

from testbed.sweep.pool import local_executor

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="the system has no signal masks")


def interrupt_children(before: set) -> int:
    children = set(multiprocessing.active_children()) - before
    for child in children:
        os.kill(child.pid, signal.SIGINT)
    return len(children)


def test_a_process_that_is_starting_is_deaf_to_interrupts():
    before = set(multiprocessing.active_children())
    with local_executor(2) as pool:
        first, second = pool.submit(abs, -1), pool.submit(abs, -2)
        assert interrupt_children(before) == 2
        assert (first.result(60), second.result(60)) == (1, 2)


def test_processes_of_an_ordinary_pool_are_not(capfd):
    """Negative control: the interrupt comes early enough to end a process that hears it."""
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(abs, -1)
        assert interrupt_children(before) == 1
        with pytest.raises(BrokenExecutor):
            future.result(60)


def test_an_interrupt_during_a_submission_reaches_the_parent(monkeypatch):
    submit = ProcessPoolExecutor.submit

    def interrupted(self, *args, **kwargs):
        future = submit(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)
        return future

    monkeypatch.setattr(ProcessPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt), local_executor(1) as pool:
        pool.submit(abs, -1)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
