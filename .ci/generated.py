"""What the repository keeps of what its commands generate is what they generate: words as they are, numbers nearly.

Run after the commands of README.md, which write docs/ anew. Compares every text file of docs/ with its committed
version; numbers may differ in what processors may differ in. Needs git and Python; without a repository there is
nothing to compare with.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = {".md", ".csv"}
NUMBER = re.compile(r"[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def git(*arguments: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def same(committed: str, generated: str) -> bool:
    """Equal but for numbers that differ in the sixth digit, or by what is rounding beside 1."""
    if NUMBER.sub("#", committed) != NUMBER.sub("#", generated):
        return False
    pairs = zip(NUMBER.findall(committed), NUMBER.findall(generated), strict=True)
    return all(
        a == b or math.isclose(float(a.replace(",", "")), float(b.replace(",", "")), rel_tol=1e-5, abs_tol=1e-9)
        for a, b in pairs
    )


def main() -> int:
    """Returns the exit status: 1 where a file is another one."""
    if not (ROOT / ".git").exists():
        print("generated files are not compared: this is no repository")
        return 0
    status, count = 0, 0
    for name in git("ls-files", "docs").splitlines():
        path = ROOT / name
        if path.suffix not in KINDS:
            continue
        count += 1
        committed, generated = git("show", f"HEAD:{name}").splitlines(), path.read_text(encoding="utf-8").splitlines()
        differing = next((pair for pair in zip(committed, generated, strict=False) if not same(*pair)), None)
        if differing is not None or len(committed) != len(generated):
            print(f"{name} is not what its command writes: {differing or 'another length'}", file=sys.stderr)
            status = 1
    print(f"{count} files of docs/ are what their commands write" if not status else "commit what they write")
    return status


if __name__ == "__main__":
    sys.exit(main())
