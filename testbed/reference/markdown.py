"""The reference as one Markdown file: an index of names and spellings, then every card."""

from __future__ import annotations

import re
from collections.abc import Iterable

from testbed.reference.sections import Entry, Section, sections

COMMAND = "make docs"

_HEAD = f"""# Reference

Everything that has a name, as the code has it: formulas, sources, defaults, cautions, and what libraries and papers
call it. Written by `{COMMAND}` (`testbed list --markdown`); edit the cards, not this file.

Symbols: pi is the policy that is trained, mu the one that generated the data, rho_t = pi(a_t|s_t) / mu(a_t|s_t), P_t
the product of rho_j over j < t, C_t that over j <= t, S_t that over j > t, W that of all, m_t the smallest rho_j of
j < t, L the length of the sequence, A the advantage. Bounds are of the ratio itself: a library's epsilon of 0.2 is
(0.8, 1.2).
"""

# Underscores within words, brackets without a target and comparisons with spaces around them mean nothing in Markdown;
# what is left alone can be found by its spelling.
_MEANT = re.compile(r"\*|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|<(?=[A-Za-z/!])|](?=\()")


def reference_text(parts: Iterable[Section] | None = None) -> str:
    """The whole file, from the registries or from these sections."""
    known = sections() if parts is None else tuple(parts)
    blocks = [_HEAD, _contents(known), _index(known), *map(_section, known)]
    return "\n".join(blocks).rstrip() + "\n"


def _contents(known: Iterable[Section]) -> str:
    lines = []
    for section in known:
        groups: dict[str, list[str]] = {}
        for entry in section.entries:
            groups.setdefault(entry.group, []).append(_link(section, entry))
        lines.append(f"- [{section.title}](#{section.kind})" + (f": {', '.join(groups[''])}" if "" in groups else ""))
        lines += [f"  - {_prose(group)}: {', '.join(links)}" for group, links in groups.items() if group]
    return "## Contents\n\n" + "\n".join(lines) + "\n"


def _index(known: Iterable[Section]) -> str:
    rows = [(spelling, s, e, here) for s in known for e in s.entries for spelling, here in e.spellings]
    rows.sort(key=lambda row: (row[0].lower(), row[1].kind))
    lines = ["| spelling | here | kind |", "|---|---|---|"]
    for spelling, section, entry, here in rows:
        lines.append(f"| {_cell(spelling)} | [{_cell(here)}](#{_anchor(section, entry)}) | {section.kind} |")
    return "## What libraries and papers call it\n\n" + "\n".join(lines) + "\n"


def _section(section: Section) -> str:
    head = f'<a id="{section.kind}"></a>\n\n## {section.title}\n\n`{section.call}`\n'
    return "\n".join([head, *(_entry(section, entry) for entry in section.entries)])


def _entry(section: Section, entry: Entry) -> str:
    lines = [f'<a id="{_anchor(section, entry)}"></a>', "", f"### {_prose(entry.name)}", "", _prose(entry.summary)]
    if entry.details:
        lines += ["", *(f"- **{label}**: {_set(label, text)}" for label, text in entry.details)]
    return "\n".join(lines) + "\n"


def _set(label: str, text: str) -> str:
    """Formulas and options as code, the rest as prose."""
    as_code = label in ("formula", "options") and "`" not in text and text != "none"
    return f"`{text}`" if as_code else _prose(text)


def _prose(text: str) -> str:
    """Text that Markdown shows as it is written; what stands between backticks is left alone."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return _MEANT.sub(_escaped, text.replace("`", "\\`"))
    return "`".join(piece if i % 2 else _MEANT.sub(_escaped, piece) for i, piece in enumerate(pieces))


def _escaped(found: re.Match[str]) -> str:
    return "&lt;" if found[0] == "<" else f"\\{found[0]}"


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _link(section: Section, entry: Entry) -> str:
    return f"[{_prose(entry.name)}](#{_anchor(section, entry)})"


def _anchor(section: Section, entry: Entry) -> str:
    plain = "".join(c if c.isalnum() or c in "_-" else "-" for c in entry.name)
    return f"{section.kind}-{plain}"
