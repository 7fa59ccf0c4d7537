"""Local worker processes, each with one thread of linear algebra."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def local_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool(ProcessPoolExecutor):
    """A pool whose processes are born deaf to Ctrl-C, which goes to the whole group: the parent alone answers it."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        # Submitting may start a process, and a process inherits the mask of the thread that starts it. Until it has
        # come to its initializer, an interrupt would end it with a trace of its own.
        with _interrupts_held():
            return super().submit(*args, **kwargs)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """This thread gets interrupts afterwards; none is lost."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def local_executor(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of local processes. Tasks that have not started are given up when the block is left by an error."""
    # Fresh interpreters: a forked child inherits threads and locks in whatever state they are. The variables must stand
    # before the child starts, because a linear algebra library reads them when it is loaded.
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    others = set(multiprocessing.active_children())
    executor = _Pool(workers, multiprocessing.get_context("spawn"), initializer=_start)
    try:
        yield executor
    except KeyboardInterrupt:
        # Nobody waits for what is in flight: it is computed again by the next run.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_start(executor: Executor) -> None:
    """Raise unless a process of the executor gets as far as its first task.

    Raises:
        RuntimeError: it does not; the sentence says what a script needs.
    """
    try:
        executor.submit(_nothing).result()
    except BrokenExecutor:
        raise RuntimeError(
            "local processes end before their first task: each of them imports the script that starts them, so it must "
            'be a file that calls this under `if __name__ == "__main__":`; one worker needs neither'
        ) from None


def _nothing() -> None:
    """The task of a process that has only to start."""


def _start() -> None:
    # For as long as it lives, and where there is no mask to inherit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed cannot stop its workers, and they would wait for tasks for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
