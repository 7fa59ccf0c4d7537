"""Take the picture of `testbed explore` that README.md shows, docs/figures/explore.png: `make screenshot`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).resolve().parent / "figures" / "explore.png"
WIDTH = 1240
CHARTS = "['spread', 'causes'].every(name => document.querySelector(`#chart-${name} .main-svg .bars`) !== null)"


def main() -> int:
    """Returns the exit status."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("no chromium on this machine to take a picture with", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "testbed", "explore", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None:
                return 1
            opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = opened.new_page(viewport={"width": WIDTH, "height": 1600})
            page.goto(found.group())
            page.wait_for_function(CHARTS)
            page.wait_for_function("document.querySelector('[data-dash-is-loading=\"true\"]') === null")
            # Down to the first row of charts, whole.
            bottom = page.evaluate("document.querySelector('#chart-causes').getBoundingClientRect().bottom")
            page.screenshot(path=PICTURE, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 8})
            opened.close()
        finally:
            server.terminate()
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
