"""The reference: the committed file is what the registries say, every name and spelling is in it, every link leads."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import theory
from testbed import cli, drift, environment_cards
from testbed.reference import markdown, sections
from testbed.reference.markdown import COMMAND, reference_text
from testbed.reference.sections import Entry, Section
from theory.weights.left_out import LEFT_OUT
from theory.weights.registry import FAMILIES

COMMITTED = Path(__file__).parents[3] / "docs" / "cards.md"


@pytest.fixture(scope="module")
def text():
    return reference_text()


def differing(text):
    """The first line in which the committed file is not what the generator writes; None where there is none."""
    ours, theirs = text.splitlines(), COMMITTED.read_text(encoding="utf-8").splitlines()
    return next((f"{a!r} is now {b!r}" for a, b in zip(theirs, ours, strict=False) if a != b),
                None if len(ours) == len(theirs) else "its length")  # fmt: skip


def test_the_committed_file_is_what_the_generator_writes(text):
    found = differing(text)
    assert found is None, f"{COMMITTED.name} is not what the registries say; run `{COMMAND}`: {found}"


def test_examples_of_docstrings_are_no_part_of_it(text):
    assert ">>>" not in text
    assert "A group of equal returns contributes zero" in text  # the last sentence before them


def test_a_changed_card_makes_it_differ(monkeypatch):
    """The control: one word in one card is enough, and so is a weight more."""
    family = FAMILIES["token"]
    monkeypatch.setitem(FAMILIES, "token", replace(family, card=replace(family.card, caution="Changed.")))
    assert "Changed." in differing(reference_text())
    monkeypatch.undo()
    monkeypatch.setitem(FAMILIES, "another", replace(family, card=replace(family.card, name="another")))
    assert differing(reference_text()) is not None


def test_every_name_and_every_spelling_is_there(text):
    names = {
        "weight": theory.weight_cards(), "preset": theory.preset_cards(), "drift": drift.kinds(),
        "signal": [*theory.signal_cards(), "group"], "environment": environment_cards(),
        "diagnostic": theory.diagnostic_cards(), "left_out": LEFT_OUT, "critic": theory.critic_cards(),
        "engine": theory.ENGINES, "penalty": ["k1", "k2", "k3"],
        "reduction": ["sum", "length_mean", "constant", "token_mean"], "score": ["own", "cumulative"],
    }  # fmt: skip
    for kind, known in names.items():
        for name in known:
            anchor = markdown._anchor(Section(kind, "", "", ()), Entry(name, ""))
            assert text.count(f'<a id="{anchor}"></a>\n\n### {markdown._prose(name)}\n') == 1, (kind, name)
    index = text.split("## What libraries and papers call it")[1].split("<a id=")[0]
    for name, card in theory.weight_cards().items():
        for alias in card.aliases:
            assert f"| {markdown._cell(alias)} | [{markdown._cell(name)}](#weight-{name}) | weight |" in index
    for name in theory.preset_cards():
        assert f"| {markdown._cell(name)} | [" in index
    for name, card in theory.diagnostic_cards().items():
        for logged in card.logged_as:
            assert f"| {markdown._cell(logged)} | [{markdown._cell(name)}](#diagnostic-{name}) | diagnostic |" in index


def test_every_field_of_every_weight_is_there(text):
    for name, card in theory.weight_cards().items():
        entry = text.split(f'<a id="weight-{name}"></a>')[1].split("<a id=")[0]
        for field in ("summary", "source", "defaults", "caution"):
            assert markdown._prose(" ".join(getattr(card, field).split())) in entry, (name, field)
        assert f"`{' '.join(card.formula.split())}`" in entry or "`" in card.formula
        for signal, score in card.unbiased_for:
            assert f"{signal} with {score} score" in entry
        assert ("- **baselines drop out**: yes" in entry) == bool(card.baseline_invariant)
        assert f"- **engines**: {', '.join(card.engines)}" in entry
        for need in card.needs:
            assert f"{need}: {theory.NEEDS[need]}" in entry
        for option in FAMILIES[name].options:
            assert f"{option}=" in entry.split("**options**")[1]


def test_anchors_are_different_and_links_lead_somewhere(text):
    anchors = re.findall(r'<a id="([^"]+)"></a>', text)
    assert len(anchors) == len(set(anchors)) > 100
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert set(links) <= set(anchors)
    assert len(links) > len(anchors)


def test_tables_are_not_broken_by_what_stands_in_them():
    entry = Entry("a_b", "x", (("formula", "|g| * <z>"),), (("one|two *", "a_b"),))
    text = reference_text([Section("weight", "Weights", "call", (entry,))])
    assert "| one\\|two \\* | [a_b](#weight-a_b) | weight |" in text
    assert "- **formula**: `|g| * <z>`" in text
    assert markdown._prose("_a_ b_c <x> j < t *") == "\\_a\\_ b_c &lt;x> j < t \\*"


def test_the_section_of_a_card_with_new_fields_shows_them():
    card = next(iter(theory.critic_cards().values()))
    assert ("unbiased", card.unbiased) in sections._carded(card).details


def test_the_command_prints_it(monkeypatch, capsys, text):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["testbed", "list", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    assert run("--markdown") == (0, text, "")
    for beside in ("weights", "--json"):
        status, out, err = run("--markdown", beside)
        assert (status, out) == (2, "")
        assert "--markdown prints every card" in err


def test_every_diagnostic_says_what_it_is():
    summaries = [card.summary for card in theory.diagnostic_cards().values()]
    assert len(set(summaries)) == len(summaries)
    assert all(summary.endswith(".") and len(summary.split()) >= 5 for summary in summaries)
    entries = {e.name: e for s in sections.sections() if s.kind == "diagnostic" for e in s.entries}
    for name, card in theory.diagnostic_cards().items():
        assert entries[name].summary == card.summary
        assert ("extreme" in dict(entries[name].details)) == (card.over == "extreme")


def test_presets_are_listed_by_library(text):
    contents = text.split("## Contents")[1].split("## What libraries")[0]
    [start] = [i for i, line in enumerate(contents.splitlines()) if line == "- [Presets](#preset)"]
    libraries = list(dict.fromkeys(name.split(":")[0] for name in theory.preset_cards()))
    for library, line in zip(libraries, contents.splitlines()[start + 1 :], strict=False):
        assert line.startswith(f"  - {library}: [{library}:")
        assert line.count("](#preset-") == sum(name.startswith(f"{library}:") for name in theory.preset_cards())


def test_the_calls_of_the_section_of_drifts_work(text):
    process = theory.MarkovProcess([1.0], [[[1.0], [1.0], [1.0]]], [[0.0, 1.0, 2.0]], horizon=1)
    policy = theory.SoftmaxPolicy([[0.0, 1.0, 2.0]])
    entries = {e.name: dict(e.details) for s in sections.sections() if s.kind == "drift" for e in s.entries}
    values = {"p": 0.9, "k": 2, "bits": 3, "format": "bf16"}
    said = 0
    for name, kind in drift.KINDS.items():
        for setting in kind.settings:
            said += 1
            assert (
                f"`testbed.drift.measured({name!r}, process, policy, {setting}=...)`"
                in entries[name]["strength also by"]
            )
            assert drift.measured(name, process, policy, **{setting: values[setting]}).kl > 0.0
    assert said == 4
    assert "sweep" in entries["given"]["where"]
    with pytest.raises(ValueError, match="unknown kind of drift 'given'"):
        drift.measured("given", process, policy, 1.0)
