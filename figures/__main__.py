"""`python -m figures`: draw every figure, from the results of a sweep and of the staleness experiment.

`--gallery docs/figures` writes the page of all of them, with images and data beside it, and those of the experiment in
docs/staleness. Where the experiment has not been run here its figures are drawn from the data that are kept there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from figures import draw_all
from figures.gallery import write_gallery
from figures.runs import draw_experiment, holds_experiment

SWEEP, EXPERIMENT = Path("results/default"), Path("results/staleness")
KEPT = Path("docs/staleness")
"""The experiment's data behind its figures, which the repository has."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 drawn, 2 where there is nothing to draw from."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--results",
        type=Path,
        help=f"folder of results of a sweep or an experiment; by default {SWEEP} and {EXPERIMENT}",
    )
    parser.add_argument("--out", type=Path, help="where images and data go; RESULTS/figures by default")
    parser.add_argument(
        "--gallery", type=Path, metavar="FOLDER", help="write the gallery here, and FOLDER/../staleness"
    )
    options = parser.parse_args(arguments)
    experiment = KEPT if options.gallery and not holds_experiment(EXPERIMENT) else EXPERIMENT
    drawn: list[Path] = []
    of_sweep: Path | None = None
    for results in [SWEEP, experiment] if options.results is None else [options.results]:
        out = options.out or results / "figures"
        if (results / "table.parquet").is_file():
            drawn += draw_all(results, out)
            of_sweep = out
        elif holds_experiment(results):
            drawn += draw_experiment(results, options.gallery.parent / KEPT.name if options.gallery else out)
    if options.gallery and of_sweep:
        drawn += write_gallery(of_sweep, options.gallery)
    for path in drawn:
        print(path)
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
