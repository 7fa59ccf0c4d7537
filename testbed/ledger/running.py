"""Settle claims, several at a time, and compare each with its record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass

from testbed.ledger.record import Claim, Finding, deviations
from testbed.ledger.registry import claim, claim_names
from testbed.sweep.pool import local_executor, local_workers

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settled:
    """One claim with what came out."""

    name: str
    finding: Finding | None
    """None where it could not be computed."""
    deviations: tuple[str, ...]
    """From the record; empty where everything came out as recorded."""
    seconds: float

    @property
    def claim(self) -> Claim:
        """The claim."""
        return claim(self.name)


def settle(name: str) -> Settled:
    """Compute one claim now and compare it with its record.

    Raises:
        ValueError: an unknown name.
    """
    known, start = claim(name), time.perf_counter()
    try:
        finding = known.settle()
    except Exception as error:  # reported beside the claim: the others still have an answer
        return Settled(name, None, (f"{type(error).__name__}: {error}",), time.perf_counter() - start)
    departed = tuple(deviations(finding, known.recorded))
    return Settled(name, finding, departed, time.perf_counter() - start)


def verify(
    names: str | Sequence[str] | None = None, *, workers: int | None = None, progress: Progress | None = None
) -> list[Settled]:
    """Compute claims, all of them by default, and compare each with its record.

    Args:
        names: of claims, or one.
        workers: local processes of one thread each; default one per core, 0 computes here.
        progress: called with the numbers of claims done and of all.

    >>> (settled,) = testbed.verify("gspo_ratio_is_an_importance_weight")
    >>> settled.finding.verdict, settled.deviations
    ('fails', ())

    Raises:
        ValueError: an unknown name, or a negative number of workers.
    """
    asked = [names] if isinstance(names, str) else names
    chosen = [claim(name).name for name in (claim_names() if asked is None else asked)]
    if workers is not None and workers < 0:
        raise ValueError(f"workers is {workers!r}; expected a whole number >= 0")
    wanted = min(local_workers() if workers is None else workers, len(chosen))
    done: dict[str, Settled] = {}
    if wanted == 0 or len(chosen) == 1:
        for name in chosen:
            done[name] = settle(name)
            if progress is not None:
                progress(len(done), len(chosen))
        return [done[name] for name in chosen]
    with local_executor(wanted) as executor:
        for future in as_completed([executor.submit(settle, name) for name in chosen]):
            settled = future.result()
            done[settled.name] = settled
            if progress is not None:
                progress(len(done), len(chosen))
    return [done[name] for name in chosen]
