"""Follow README.md as a new user would: run each command of its `sh` blocks in order, and compare what is printed.

A `text` block that follows in the same section is (an excerpt of) the output of the last command: its lines must be
printed in this order, words as they are, numbers to 2 % or one unit of their last digit, which may differ between
processors. `make test` is left to the caller, because it takes long. Needs nothing but Python.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVERS = ("make explore", "testbed explore")
"""Commands that answer at an address until they are stopped."""
LEFT_OUT = ("make test",)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$|^## [^\n]*$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")


def steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a page, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    open_block = False
    for match in FENCE.finditer(text):
        language, body = match.groups()
        if language == "sh":
            found += [(line.split("  #")[0].strip(), []) for line in body.splitlines() if line.strip()]
            open_block = True
        elif language == "text" and open_block:
            found[-1][1].extend(line for line in body.splitlines() if line.strip())
            open_block = False
        elif language is None:
            open_block = False
    return found


def same_line(said: str, printed: str) -> bool:
    """Words as they are, numbers nearly."""
    ours, theirs = said.split(), printed.split()
    return len(ours) == len(theirs) and all(map(same_word, ours, theirs))


def same_word(said: str, printed: str) -> bool:
    """Equal, or numbers that differ in what processors may differ in."""
    if said == printed:
        return True
    if not (NUMBER.fullmatch(said) and NUMBER.fullmatch(printed)):
        return False
    decimals = len(said.partition(".")[2]) if "e" not in said else 0
    unit = 10.0**-decimals if "." in said else 0.0
    a, b = (float(word.replace(",", "")) for word in (said, printed))
    return abs(a - b) <= max(0.02 * abs(a), 1.01 * unit)


def missing(said: list[str], printed: str) -> str | None:
    """The first line that is not printed, after those before it."""
    lines = iter(printed.splitlines())
    for line in said:
        if not any(same_line(line, other) for other in lines):
            return line
    return None


def serve(script: str, command: str) -> None:
    """Start a server, ask it for its page, stop it."""
    script += f"exec env BROWSER=true {command}"  # no window is opened
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell starts in the background is deaf to Ctrl+C, and so would be what is started from here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)), None)
        if found is None:
            raise RuntimeError(f"{command!r} ended without printing an address")
        address = found.group()
        for attempt in range(60):
            try:
                with urllib.request.urlopen(address, timeout=10) as answer:
                    print(f"{address} answers {answer.status}", flush=True)
                    return
            except OSError:
                if attempt == 59:
                    raise
                time.sleep(0.5)
    finally:
        os.killpg(process.pid, signal.SIGINT)  # make and what it started, as Ctrl+C does
        process.wait(timeout=30)


def main() -> int:
    """Returns the exit status: 1 where a command fails or prints something else."""
    environment = ""  # commands such as `. .venv/bin/activate`, which last
    for command, said in steps((ROOT / "README.md").read_text(encoding="utf-8")):
        print(f"\n$ {command}", flush=True)
        if command in LEFT_OUT:
            continue
        if command.startswith(". "):
            environment += command + "\n"
            continue
        began = time.perf_counter()
        if command in SERVERS:
            serve(environment, command)
            continue
        done = subprocess.run(
            ["bash", "-c", f"set -eo pipefail\n{environment}{command}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, f"({time.perf_counter() - began:.0f} s)", flush=True)
        absent = missing(said, done.stdout)
        if done.returncode or absent is not None:
            why = f"exit status {done.returncode}" if done.returncode else f"README.md says it prints {absent!r}"
            print(f"README.md: {command!r}: {why}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
