"""`python -m figures`: draw every figure from the results of a sweep."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from figures import draw_all


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 drawn, 2 where there is nothing to draw from."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=draw_all.__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--results", type=Path, default=Path("results/default"), help="folder of a sweep's results")
    parser.add_argument("--out", type=Path, help="where images and data go; RESULTS/figures by default")
    options = parser.parse_args(arguments)
    if not (options.results / "table.parquet").is_file():
        print(
            f"figures: there is no table in {str(options.results)!r}; run `testbed sweep` first, which draws the "
            "figures as well",
            file=sys.stderr,
        )
        return 2
    for path in draw_all(options.results, options.out or options.results / "figures"):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
