"""An audit for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator

import numpy as np

from testbed.auditing.leaks import Coupling
from testbed.auditing.matching import Match
from testbed.auditing.observing import EQUAL
from testbed.auditing.record import Audit
from testbed.auditing.reductions import REDUCTIONS

_SHOWN_TOKENS = 6
_ZERO = 5e-9


def report(audit: Audit) -> Iterator[str]:
    """What it is, what it does in expectation, and what is wrong with it."""
    options = "".join(f", {name}={value!r}" for name, value in audit.options.items())
    yield from textwrap.wrap(f"{audit.loss}({', '.join(audit.takes)}{options})", _width(), subsequent_indent="    ")
    yield ""
    yield from _findings(audit)
    yield ""
    if audit.micro_batches is not None:
        yield from _estimator(audit)
        yield ""
    if audit.tokens:
        yield from _tokens(audit)
        yield ""
    yield from _expectation(audit)
    if audit.micro_batches is not None:
        yield ""
        yield from _batches(audit)
        yield ""
        yield from _extremes(audit)


def _estimator(audit: Audit) -> Iterator[str]:
    yield "NAMED ESTIMATOR"
    best = audit.nearest
    if best is None:
        why = "nothing registered is nearer than 0.5" if audit.tokens else "there is no gradient to compare"
        yield from _line("equals", f"none: {why}{_tried(audit)}")
    elif best.equal:
        rough = "" if best.tolerance == EQUAL else f", to {best.tolerance:g}: single precision, or an epsilon"
        yield from _line("equals", f"{best.label}{rough}")
        yield from _line("reduction", REDUCTIONS[best.reduction])
        yield from _line("constant", f"{best.constant:.10g}")
        if audit.presets:
            yield from _line("known as", ", ".join(audit.presets))
        if len(audit.equals) > 1:
            yield from _line("also", "; ".join(match.label for match in audit.equals[1:4]))
    else:
        yield from _line("equals", f"none that is registered{_tried(audit)}")
        yield from _nearest("nearest", best)
    if audit.expected is not None:
        if audit.expected.equal:
            yield from _line("expected", f"{audit.expected.label}: equal, constant {audit.expected.constant:.10g}")
        else:
            yield from _nearest("expected", audit.expected)


def _tried(audit: Audit) -> str:
    numbers = f" and with {', '.join(f'{x:g}' for x in audit.tried)} of the loss's own" if audit.tried else ""
    return f"; tried with common settings{numbers}"


def _nearest(label: str, match: Match) -> Iterator[str]:
    yield from _line(label, f"{match.label}: relative distance {match.distance:.3g}, constant {match.constant:.6g}")
    d = match.difference
    if d is not None:
        yield from _line(
            "differs",
            f"first at batch {d.batch}, sequence {d.sequence}, token {d.token}: loss {d.of_loss:.6g}, named "
            f"{d.of_named:.6g} (log-ratio {d.log_ratio:.6g}, advantage {d.advantage:.6g}, logp {d.logp:.6g}, "
            f"old_logp {d.old_logp:.6g}, rollout_logp {d.rollout_logp:.6g})",
        )


def _tokens(audit: Audit) -> Iterator[str]:
    yield "COEFFICIENTS, -(d loss / d logp) / advantage, without constant and reduction"
    yield f"  {'sequence':>8} {'token':>5} {'log-ratio':>11} {'advantage':>11} {'loss':>13} {'named':>13}"
    # Tokens that are clipped away tell the least.
    first = sorted(audit.tokens, key=lambda token: abs(token.coefficient) < _ZERO)[:_SHOWN_TOKENS]
    for token in sorted(first, key=lambda token: (token.sequence, token.token)):
        yield (
            f"  {token.sequence:>8} {token.token:>5} {token.log_ratio:>11.6f} {token.advantage:>11.6f} "
            f"{_number(token.coefficient, 13)} {_number(token.named, 13)}"
        )


def _expectation(audit: Audit) -> Iterator[str]:
    m = audit.moments
    yield "EXPECTED STEP"
    yield from _line("on", audit.setting)
    how = {"enumeration": "exact, every draw", "sampling": f"sampled, {m.draws} draws"}[m.engine]
    each = m.trajectories_per_draw
    yield from _line("engine", f"{how}, {each} {'trajectory' if each == 1 else 'trajectories'} per draw")
    error = "" if m.standard_error is None else f" +- {np.linalg.norm(m.standard_error) / _norm(m.gradient):.2g}"
    yield from _line("relative bias", f"{_text(m.relative_bias)}{error}")
    if m.lost_mass > 0.0:
        yield from _line("lost mass", f"{m.lost_mass:.6g} of the target's trajectories are never seen")
    yield from _line("cosine", f"{_text(m.cosine)}, effective step |E g| / |g| {_text(m.effective_step)}")
    error = "" if m.variance_standard_error is None else f" +- {m.variance_standard_error:.2g}"
    yield from _line("variance", f"{_text(m.variance)}{error} per draw")
    yield from _line("baseline leak", f"{_text(audit.relative_leak)} of |g| for a baseline of 1")
    for name, term in audit.causes.items():
        yield from _line(f"- {name}", f"{_text(float(np.linalg.norm(term)) / _norm(m.gradient))} of |g|")


def _batches(audit: Audit) -> Iterator[str]:
    yield "BATCHES"
    micro, couples = audit.micro_batches, audit.coupling
    assert micro is not None
    assert couples is not None
    rule = f"{micro.rule} of the micro-batches' gradients"
    if micro.rule == "neither":
        rule = (
            f"neither mean nor sum of the micro-batches' gradients (relative differences {micro.from_mean:.3g} and "
            f"{micro.from_sum:.3g}); with equal lengths {micro.equal_lengths}"
        )
    yield from _line("split", rule)
    yield from _line("sequences", _coupling(couples))


def _coupling(coupling: Coupling) -> str:
    if coupling.couples:
        return f"couple{' through ' if coupling.through else ''}{', '.join(coupling.through)}"
    return "couple through a shared token count only" if coupling.shares_count else "do not couple"


def _extremes(audit: Audit) -> Iterator[str]:
    yield "EXTREME INPUTS"
    bad = [case for case in audit.robustness if not case.finite]
    yield from _line("finite", f"{len(audit.robustness) - len(bad)} of {len(audit.robustness)}")
    for case in bad:
        yield from _line("", f"{case.name}: {case.outcome}")


def _findings(audit: Audit) -> Iterator[str]:
    yield "FINDINGS"
    if not audit.findings:
        yield "  none"
    for finding in audit.findings:
        text = f"{finding.identifier}{' (FAULT)' if finding.fault else ''}: {finding.sentence}"
        yield from textwrap.wrap(text, _width(), initial_indent="  ", subsequent_indent="    ")


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((80, 24)).columns, 120))


def _line(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=f"  {label:<17}", subsequent_indent=" " * 19)


def _norm(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector)) or float("nan")


def _text(value: float) -> str:
    if np.isnan(value):
        return "-"
    return "0" if abs(value) < 1e-12 else f"{value:.6g}"


def _number(value: float, width: int) -> str:
    # Adding zero takes the sign off a negative one.
    return f"{'-':>{width}}" if np.isnan(value) else f"{round(value, 8) + 0.0:>{width}.8f}"
