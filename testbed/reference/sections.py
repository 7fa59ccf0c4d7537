"""Every registry as a section of entries: what is known of each name, field by field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import theory
from testbed import drift, environments
from testbed.drifting.registry import KINDS
from testbed.sweep.building import GIVEN, GIVEN_CARD
from theory.decomposition import TERMS
from theory.estimator import REDUCTIONS, SCORES
from theory.kl_estimators import ESTIMATORS
from theory.signals import BASELINES
from theory.weights.left_out import LEFT_OUT
from theory.weights.registry import FAMILIES

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Entry:
    """One name."""

    name: str
    summary: str
    details: Pairs = ()
    """(label, text), in the order of reading; a label "formula" is set as code."""
    spellings: Pairs = ()
    """(another name, what it is here) that papers and libraries use."""
    group: str = ""
    """What the contents list it under, where they are too many for one line."""


@dataclass(frozen=True)
class Section:
    """One registry."""

    kind: str
    """In the singular, as it stands in anchors and in the index."""
    title: str
    call: str
    """How one of them is made or asked for."""
    entries: tuple[Entry, ...]


def sections() -> tuple[Section, ...]:
    """Every registry, in the order of the reference."""
    return (
        Section("weight", "Weights", "theory.weight(name, **options)", _sorted(map(_weight, theory.weight_cards()))),
        Section("preset", "Presets", "theory.preset(name)", tuple(map(_preset, theory.preset_cards().values()))),
        Section("signal", "Signals", "theory.signal(name, baseline=...), theory.group(size=...)", _signals()),
        Section("score", "Scores", 'theory.Estimator(..., score="own")', _plain(SCORES)),
        Section("reduction", "Reductions", "theory.reduction(name, batch=...)", _plain(REDUCTIONS)),
        Section(
            "drift",
            "Kinds of drift",
            "testbed.drift.at(kind, process, policy, kl), testbed.drift.measured(kind, process, policy, strength)",
            _drifts(),
        ),
        Section("environment", "Environments", "testbed.environment(name, **options)", _environments()),
        Section(
            "diagnostic",
            "Diagnostics",
            "theory.diagnostics(process, target, behaviour)",
            tuple(map(_diagnostic, theory.diagnostic_cards().values())),
        ),
        Section("penalty", "KL penalties", "theory.kl_penalty(..., estimator=name)", _plain(ESTIMATORS)),
        Section(
            "critic",
            "Methods with a critic",
            "theory.critic_moments(...)",
            tuple(_carded(card) for card in theory.critic_cards().values()),
        ),
        Section("term", "Terms of the bias", "theory.decompose(...)", _plain(TERMS)),
        Section("engine", "Engines", "theory.moments(..., engine=name)", _plain(theory.ENGINES)),
        Section("left_out", "Left out", "not here, and why", _plain(LEFT_OUT)),
    )


def _weight(name: str) -> Entry:
    card, family = theory.weight_cards()[name], FAMILIES[name]
    options = ", ".join(f"{option}={_shown(value)}" for option, value in family.options.items())
    unbiased = "; ".join(f"{signal} with {score} score" for signal, score in card.unbiased_for)
    needs = "; ".join(f"{need}: {theory.NEEDS[need]}" for need in card.needs)
    details = {
        "formula": card.formula,
        "source": card.source,
        "options": options or "none",
        "defaults": card.defaults,
        "unbiased for": unbiased or "no pair of the standard signals and scores",
        "baselines drop out": "yes" if card.baseline_invariant else "no",
        "looks at the advantage's sign": "yes" if theory.weight(name).uses_advantage else "",
        "engines": ", ".join(card.engines),
        "needs": needs,
        "couples a batch": "yes: a sequence's coefficients depend on the others" if card.couples_batch else "",
        "also called": ", ".join(card.aliases),
        "caution": card.caution,
    }
    return Entry(name, card.summary, _pairs(details), tuple((alias, name) for alias in card.aliases))


def _preset(card: Any) -> Entry:
    estimator = card.estimator
    details = {
        "weight": card.weight.label,
        "signal": estimator.signal.label,
        "reduction": estimator.reduction.name,
        "ratio against": card.anchor,
        "settings": card.settings,
        "source": card.source,
        "caution": card.caution,
    }
    return Entry(
        card.name,
        card.summary,
        _pairs(details),
        ((card.name, f"{card.weight.label}, {card.reduction}"),),
        card.name.partition(":")[0],
    )


def _signals() -> tuple[Entry, ...]:
    baselines = ", ".join((*BASELINES, "or a number"))
    entries = [
        Entry(
            card.name,
            card.summary,
            _pairs({"formula": card.formula, "baseline": baselines if card.takes_baseline else "none"}),
        )
        for card in theory.signal_cards().values()
    ]
    text = inspect.cleandoc(theory.group.__doc__ or "")
    summary, _, rest = re.split(r"^(?:Args:|Raises:|>>>)", text, maxsplit=1, flags=re.MULTILINE)[0].partition("\n\n")
    options = inspect.signature(theory.group).parameters.values()
    named = ", ".join(p.name if p.default is p.empty else f"{p.name}={_shown(p.default)}" for p in options)
    return (*entries, Entry("group", _line(summary), (("options", named), ("details", _line(rest)))))


def _drifts() -> tuple[Entry, ...]:
    entries = []
    for name, card in drift.kinds().items():
        kind = KINDS[name]
        options = ", ".join(f"{option}={_shown(value)}" for option, value in kind.options.items())
        says = ", ".join(
            f"{setting}, as `testbed.drift.measured({name!r}, process, policy, {setting}=...)`"
            for setting in kind.settings
        )
        steps = "in steps: a divergence between two of them is out of reach" if kind.steps is not None else ""
        entries.append(Entry(name, card, _pairs({"options": options, "strength also by": says, "divergence": steps})))
    return (*entries, Entry(GIVEN, GIVEN_CARD, (("where", "in the settings of a sweep only, no call makes it"),)))


def _environments() -> tuple[Entry, ...]:
    return tuple(
        Entry(
            name,
            card.summary,
            _pairs({
                "options": ", ".join(f"{option}={_shown(value)}" for option, value in card.options.items()),
                "knob": card.knob,
                "source": card.source,
                "reference": card.reference,
                "Gymnasium": card.gymnasium_id,
            }),
        )
        for name, card in environments.environment_cards().items()
    )  # fmt: skip


_EXTREME = "the exact value is that of all that mu can generate; a batch's moves towards it and is no estimate of it"


def _diagnostic(card: theory.DiagnosticCard) -> Entry:
    details = {
        "formula": card.formula,
        "unit": card.unit,
        "average over": card.over if card.over != "extreme" else "",
        "extreme": _EXTREME if card.over == "extreme" else "",
        "logged as": ", ".join(card.logged_as),
        "caution": card.caution,
    }
    return Entry(card.name, card.summary, _pairs(details), tuple((entry, card.name) for entry in card.logged_as))


def _carded(card: Any) -> Entry:
    """Any card with a name and a summary: its other fields in their order."""
    details = {
        field.name.replace("_", " "): _text(getattr(card, field.name))
        for field in fields(card)
        if field.name not in ("name", "summary")
    }
    return Entry(card.name, card.summary, _pairs(details))


def _plain(names: Mapping[str, str]) -> tuple[Entry, ...]:
    return tuple(Entry(name, text) for name, text in names.items())


def _sorted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _pairs(details: Mapping[str, str]) -> Pairs:
    return tuple((label, _line(text)) for label, text in details.items() if text)


def _shown(value: Any) -> str:
    return value.label if isinstance(value, theory.Weight) else repr(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_shown(v)}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _line(text: str) -> str:
    return " ".join(text.split())
