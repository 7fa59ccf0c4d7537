"""`testbed list`: what has a name, one line each."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping

KINDS = ("environments", "weights", "presets", "signals", "drifts", "diagnostics", "engines")


def listing(kind: str) -> dict[str, str]:
    """Name -> one line, of one kind.

    Raises:
        ValueError: an unknown kind.
    """
    import theory
    from theory import checks

    def environments() -> dict[str, str]:
        from testbed.environments import environment_cards

        return {name: f"{card.summary} Knob: {card.knob}." for name, card in environment_cards().items()}

    def signals() -> dict[str, str]:
        group = "Group-relative: the outcome against those of the same prompt; options size, centre, scale."
        return {**{name: card.summary for name, card in theory.signal_cards().items()}, "group": group}

    def drifts() -> dict[str, str]:
        from testbed.sweep.building import drift_cards

        return drift_cards()

    def engines() -> dict[str, str]:
        return dict(theory.ENGINES)

    makers: Mapping[str, Callable[[], dict[str, str]]] = {
        "environments": environments,
        "weights": lambda: {name: card.summary for name, card in theory.weight_cards().items()},
        "presets": lambda: {name: card.summary for name, card in theory.preset_cards().items()},
        "signals": signals,
        "drifts": drifts,
        "diagnostics": lambda: {name: card.formula for name, card in theory.diagnostic_cards().items()},
        "engines": engines,
    }
    return makers[checks.known_name("list", kind, KINDS)]()


def print_reference(what: str, *, as_json: bool) -> None:
    """Print every card in full, as Markdown, to standard output.

    Raises:
        ValueError: a kind or JSON is asked for beside it.
    """
    if what or as_json:
        beside = repr(what) if what else "--json"
        raise ValueError(f"--markdown prints every card there is; expected no {beside} beside it")
    from testbed.reference.markdown import reference_text

    print(reference_text(), end="")


def print_list(what: str, *, as_json: bool) -> None:
    """Print one kind, or all of them, to standard output."""
    lists = {kind: listing(kind) for kind in ([what] if what else KINDS)}
    if as_json:
        print(json.dumps(lists, indent=2))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for i, (kind, lines) in enumerate(lists.items()):
        if not what:
            print(("\n" if i else "") + kind.capitalize())
        first = max(map(len, lines)) + 2
        for name, line in lines.items():
            text = f"{name:<{first}}{line}"
            # A pipe gets one line each, a terminal gets them wrapped.
            print(text if width is None else textwrap.fill(text, max(width, 40), subsequent_indent=" " * first))
