"""From batches of tasks to outcomes, through any `concurrent.futures.Executor`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any, Protocol

from testbed.sweep.computing import Outcome, compute
from testbed.sweep.pool import check_start, local_executor
from testbed.sweep.tasks import Cell, batches


class Task(Protocol):
    """What can be computed and told apart."""

    @property
    def key(self) -> str:
        """A hash of its settings."""
        ...


Compute = Callable[[list[Any]], list[Outcome]]
"""The outcome of each task of a batch; a function that another process can import."""
Take = Callable[[Sequence[Outcome]], None]
"""Called in the calling thread with the outcomes of a batch, in the order in which batches finish."""

DIED = "the worker process died while computing it (killed, or out of memory)"


def dispatch(todo: list[Cell], take: Take, executor: Executor | None, workers: int) -> None:
    """Compute every cell of a sweep and hand its outcome to `take`: `dispatch_batches` of its batches."""
    dispatch_batches(batches(todo), compute, take, executor, workers)


def dispatch_batches(
    todo: Iterable[Sequence[Task]], compute: Compute, take: Take, executor: Executor | None, workers: int
) -> None:
    """Compute every task and hand its outcome to `take`.

    With an executor of the user's, everything is submitted at once and it may order the batches as it likes. Without
    one, a single worker is this process, and several are local processes; if one of them dies, the tasks that were in
    its hands are computed again one by one, so that the deadly one is found and the others are not lost.

    Raises:
        RuntimeError: the executor broke, or local processes cannot start at all.
    """
    queue = deque(list(batch) for batch in todo)
    if executor is not None:
        suspects = _drain(executor, queue, compute, take, window=len(queue))
        if suspects or queue:
            raise RuntimeError("the executor broke before every task was done; what was done is kept, start again")
        return
    if workers == 1:
        while queue:
            take(compute(queue.popleft()))
        return
    while queue:
        with local_executor(min(workers, len(queue))) as pool:
            # One batch more than there are workers, so that none waits; more would be lost when a worker dies.
            suspects = _drain(pool, queue, compute, take, window=workers + 1)
        _one_by_one([task for batch in suspects for task in batch], compute, take)


def _drain(executor: Executor, queue: deque[list[Task]], compute: Compute, take: Take, window: int) -> list[list[Task]]:
    """Work through the queue. Returns the batches that were in flight when the executor broke, if it did."""
    flying: dict[Future[list[Outcome]], list[Task]] = {}
    try:
        while queue or flying:
            while queue and len(flying) < window:
                flying[executor.submit(compute, queue[0])] = queue[0]
                queue.popleft()
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes = future.result()
                del flying[future]
                take(outcomes)
    except BrokenExecutor:
        finished = [f for f in flying if f.done() and not f.cancelled() and f.exception() is None]
        for future in finished:
            del flying[future]
            take(future.result())
        return list(flying.values()) or [queue.popleft()]
    except BaseException:
        for future in flying:
            future.cancel()
        raise
    return []


def _one_by_one(tasks: list[Task], compute: Compute, take: Take) -> None:
    queue = deque(tasks)
    while queue:
        with local_executor(1) as pool:
            # A process that cannot even start says nothing about the task.
            check_start(pool)
            try:
                while queue:
                    outcomes = pool.submit(compute, [queue[0]]).result()
                    queue.popleft()
                    take(outcomes)
            except BrokenExecutor:
                take([Outcome(queue.popleft().key, None, DIED, 0.0)])
