"""`testbed audit`: run an audit, print it, and say whether the loss is what was expected."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from testbed import spelling
from testbed.auditing.record import Audit
from testbed.auditing.running import audit


def audit_command(loss: str, option: Sequence[str], expect: str, reduction: str, *, as_json: bool, **where: Any) -> int:
    """Audit a loss as the command line asks for it. Returns the exit status."""
    start = time.perf_counter()
    step = _step if sys.stderr.isatty() else (lambda _: None)
    # What the loss prints is no part of the report.
    with contextlib.redirect_stdout(sys.stderr):
        found = audit(
            loss, options=spelling.options(option), expect=expect, reduction=reduction, progress=step, **where
        )
    step("")
    print(json.dumps(found.as_dict(), indent=2) if as_json else found.table())
    sys.stdout.flush()
    _say(f"audited {loss} in {time.perf_counter() - start:.1f} s")
    return _status(found, expect, reduction)


def _status(found: Audit, expect: str, reduction: str) -> int:
    if not expect and not reduction:
        return 0
    wanted = " x ".join(name for name in (expect, reduction) if name)
    matched = found.holds(expect, reduction)
    if matched:
        _say(f"the loss is {wanted}")
        return 0
    near = found.expected if expect else found.nearest
    reason = next((f.identifier for f in found.faults), "")
    told = f"; {reason}" if reason else "" if near is None else f"; relative distance {near.distance:.3g}"
    _say(f"the loss is not {wanted}{told}")
    return 1


def _step(what: str) -> None:
    print(f"\r{what:<20}\r", end="", file=sys.stderr, flush=True)


def _say(message: str) -> None:
    print(message, file=sys.stderr)
