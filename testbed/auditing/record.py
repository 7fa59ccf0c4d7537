"""What an audit of a loss returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import theory
from testbed.auditing.advantages import AdvantageUse
from testbed.auditing.leaks import Coupling, LevelDependence, MaskLeaks, MicroBatches
from testbed.auditing.matching import Match
from testbed.auditing.observing import Evidence
from testbed.auditing.robustness import Case

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """Something that one should know about a loss."""

    identifier: str
    """Stable, one of `testbed.auditing.findings.FINDINGS`."""
    fault: bool
    """Whether it is a mistake in the code; otherwise a property of the method."""
    sentence: str
    evidence: Mapping[str, Any]
    """The numbers behind it, and names."""


@dataclass(frozen=True)
class Token:
    """One token of the batch that a report shows."""

    sequence: int
    token: int
    log_ratio: float
    """That of the named estimator, or the first that the loss takes."""
    advantage: float
    coefficient: float
    """c_t of the loss, divided by the named estimator's constant and reduction."""
    named: float
    """c_t of the named estimator; NaN where none was compared."""


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """A loss against the true gradient and against every named estimator. Made by `testbed.audit`."""

    loss: str
    """Its name."""
    takes: tuple[str, ...]
    """Which tensors it takes."""
    options: Mapping[str, Any]
    """Its other parameters and their values."""
    setting: str
    """Environment, drift and signal."""
    moments: theory.Moments
    """Mean, variance, truth, bias, relative bias, cosine and effective step of the ascent direction of one draw."""
    baseline_leak: Array
    """(P,), the expected ascent direction with every advantage 1 less that with every advantage 0: what a constant
    baseline adds. Zero where the weight is baseline-invariant; NaN where the loss is not finite at such advantages."""
    causes: Mapping[str, Array]
    """name -> (P,): where the bias comes from; the terms sum to it. Those of `theory.decompose` where the loss is a
    positive multiple of a named estimator, else "scale" and "direction"."""
    equals: tuple[Match, ...]
    """Named estimators that the loss equals up to one positive constant on the probe batches, the plainest first:
    settings whose bound nothing there reaches are among them. Equal is to 1e-8; to 1e-5 (`Match.tolerance`) for a loss
    that computes in single precision or adds a small number to a denominator."""
    nearest: Match | None
    """The first of `equals`, or else the named estimator at the smallest distance; None without gradient, or where the
    smallest is above 0.5."""
    presets: tuple[str, ...]
    """Recipes of libraries and papers that compute the same: weight and reduction of the first of `equals`."""
    per_token_advantages: bool | None
    """Whether the match also holds where the tokens of a sequence have advantages of their own; None without match."""
    tokens: tuple[Token, ...]
    """The coefficients of one small batch, token by token."""
    mask: MaskLeaks | None
    """What masked tokens and padding do; None, as the next four, for a loss that draws random numbers."""
    advantages: AdvantageUse | None
    """What advantages do, and whether tokens are left out."""
    level: LevelDependence | None
    """What the level of all log-probabilities does, at constant ratios."""
    coupling: Coupling | None
    """What sequences do to each other."""
    micro_batches: MicroBatches | None
    """Whether the loss may be split into micro-batches."""
    robustness: tuple[Case, ...]
    """Extreme inputs."""
    findings: tuple[Finding, ...]
    """Faults first, then properties."""
    tried: tuple[float, ...] = ()
    """Numbers of the loss that were tried as settings, beside common ones."""
    expected: Match | None = None
    """The comparison that `expect` asked for."""
    _evidence: Evidence | None = field(default=None, repr=False)

    @property
    def relative_leak(self) -> float:
        """|baseline leak| / |gradient|; NaN where the gradient is zero."""
        scale = float(np.linalg.norm(self.moments.gradient))
        return float(np.linalg.norm(self.baseline_leak)) / scale if scale > 0.0 else float("nan")

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are mistakes in the code."""
        return tuple(finding for finding in self.findings if finding.fault)

    @property
    def keeps_to_mask(self) -> bool:
        """Whether masked tokens neither get a gradient nor change that of the others."""
        return not any(f.identifier in ("mask_ignored", "gradient_at_masked_tokens", "masked_values_matter")
                       for f in self.findings)  # fmt: skip

    @property
    def is_sound(self) -> bool:
        """Whether an equal gradient on the probes means an equal loss: it keeps to the mask, and is no random one."""
        return self.keeps_to_mask and not any(f.identifier == "not_deterministic" for f in self.findings)

    def matches(self, name: str, *, reduction: str = "") -> bool:
        """Whether the loss equals a named weight, or preset, up to one positive constant; see `Audit.equals`.

        Args:
            name: such as "minpro" or "ppo_clip(clip=(0.8, 1.28))".
            reduction: also that reduction, such as "token_mean"; any if left out.

        Raises:
            ValueError: an unknown name or option.
        """
        from testbed.auditing.expecting import compared

        if self._evidence is None:
            raise ValueError("this audit was restored without the loss's gradients; expected one made by testbed.audit")
        found = compared(self._evidence, name, reduction)
        return found is not None and found.equal and self.is_sound

    def holds(self, expect: str = "", reduction: str = "") -> bool:
        """Whether the loss is as expected: a named weight, a reduction whatever the weight, or both."""
        from testbed.auditing.reductions import accepted

        if expect:
            return self.matches(expect, reduction=reduction)
        found = {match.reduction for match in self.equals}
        return self.is_sound and bool(found & set(accepted(reduction)))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and names, for JSON; what is not finite is None."""
        from testbed.auditing.plain import as_dict

        return as_dict(self)

    def table(self) -> str:
        """The report as text, as wide as the terminal, or 80 columns."""
        from testbed.auditing.printing import report

        return "\n".join(report(self))

    def __repr__(self) -> str:
        """Its name and what it is nearest to."""
        near = "nothing" if self.nearest is None else f"{'=' if self.nearest.equal else '~'} {self.nearest.label}"
        return f"<Audit of {self.loss}: {near}; faults: {', '.join(f.identifier for f in self.faults) or 'none'}>"

    def __str__(self) -> str:
        """The report."""
        return self.table()
