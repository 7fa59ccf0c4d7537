"""`python -m benchmarks`: every target, measured on this machine with one thread."""

from __future__ import annotations

import os

# Before NumPy is loaded: two threads on small matrices are slower than one.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402
from importlib.util import find_spec  # noqa: E402

from benchmarks import report  # noqa: E402

PARTS = ("tree", "horizon", "draws", "page", "training")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. A missed target is printed as such; it is no error, for the machine may be busy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed of the engines, one thread.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; targets do not apply")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"{unknown[0]!r} is no part; expected {', '.join(PARTS)}")
    rows = []
    for name in options.parts or PARTS:
        if name == "training" and find_spec("torch") is None:
            print("training: PyTorch is not installed; pip install -c constraints.txt -e '.[torch]'", file=sys.stderr)
            continue
        part = import_module(f"benchmarks.{name}")
        if sys.stderr.isatty():
            print(f"{part.__doc__}".splitlines()[0], file=sys.stderr)
        rows += part.run(options.quick)
    if options.json:
        print(json.dumps({"quick": options.quick, "rows": [row.as_data() for row in rows]}, indent=2))
    else:
        print(report.table(rows, judged=not options.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
