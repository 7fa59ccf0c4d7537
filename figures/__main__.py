"""`python -m figures`: draw every figure from the results of a sweep, and of an experiment where there are some.

`--gallery docs/figures` writes the page of all of them, with the data beside each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from figures import draw_all
from figures.gallery import write_gallery
from figures.runs import draw_experiment, holds_experiment

SWEEP, EXPERIMENT = Path("results/default"), Path("results/staleness")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 drawn, 2 where there is nothing to draw from."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=draw_all.__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--results",
        type=Path,
        help=f"folder of results of a sweep or an experiment; by default {SWEEP}, and {EXPERIMENT} where it exists",
    )
    parser.add_argument("--out", type=Path, help="where images and data go; RESULTS/figures by default")
    parser.add_argument("--gallery", type=Path, metavar="FOLDER", help="write the gallery of a sweep's figures here")
    options = parser.parse_args(arguments)
    drawn = False
    for results in [SWEEP, EXPERIMENT] if options.results is None else [options.results]:
        out = options.out or results / "figures"
        paths: list[Path] = []
        if (results / "table.parquet").is_file():
            paths += draw_all(results, out)
            if options.gallery is not None:
                paths += write_gallery(out, options.gallery)
        if holds_experiment(results):
            paths += draw_experiment(results, out)
        for path in paths:
            print(path)
        drawn = drawn or bool(paths)
    if not drawn:
        print(
            f"figures: there is no table in {str(options.results or SWEEP)!r}; run `testbed sweep` first, or "
            "`testbed experiment`, which draw the figures as well",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
