"""The bias of a loss as named vectors that sum to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import theory
from testbed.auditing.batch import Array
from testbed.auditing.matching import Match
from testbed.auditing.setting import Setting

# A reduction of a batch -> that of `theory.Estimator`, whose draws it averages; the rest is a constant.
_IN_THEORY = {
    "sum": "sum",
    "sequence_mean": "sum",
    "width_mean": "constant",
    "width_sum": "constant",
    "length_mean": "length_mean",
    "length_sum": "length_mean",
    "token_mean": "token_mean",
}

TERMS = {
    "scale": "the constant: what the loss is beyond the named estimator it equals, or beyond the gradient",
    "direction": "what is orthogonal to the gradient, where no named estimator is equal",
}
"""The terms that a loss has beside those of `theory.decompose`."""


def in_theory(match: Match, setting: Setting) -> theory.Estimator | None:
    """The estimator of `theory` that a loss is proportional to, on draws of this setting; None where there is none."""
    if match.reduction not in _IN_THEORY:
        return None
    # Beside an old policy of its own, the ratio that counts is the one to the policy that generated the data.
    if setting.old is not setting.behaviour and match.anchor != "rollout_logp":
        return None
    try:
        return setting.estimator(match.weight, _IN_THEORY[match.reduction], match.score)
    except ValueError:
        return None


def causes(moments: theory.Moments, estimator: theory.Estimator | None, setting: Setting) -> Mapping[str, Array]:
    """Terms that sum to the bias.

    Where the expected step is a positive multiple k of a named estimator's: the terms of `theory.decompose` for that
    estimator, and scale = (k - 1) E[named]. Otherwise, for any loss: with a the best multiple of the gradient,
    scale = (a - 1) g and direction = mean - a g, orthogonal to it.
    """
    terms = _of_named(moments, estimator, setting) if estimator is not None else None
    if terms is not None:
        return terms
    g, mean = moments.gradient, moments.mean
    a = float(mean @ g) / float(g @ g) if g.any() else 0.0
    return {"scale": (a - 1.0) * g, "direction": mean - a * g}


def _of_named(moments: theory.Moments, estimator: theory.Estimator, setting: Setting) -> Mapping[str, Array] | None:
    if moments.engine == "sampling":
        return None
    old = setting.old if setting.old is not setting.behaviour else None
    try:
        found = theory.decompose(
            setting.process, setting.target, setting.behaviour, estimator, old=old, missing_support="allow"
        )
    except ValueError:
        return None
    named = found.bias + moments.gradient
    if not named.any():
        return None
    k = float(moments.mean @ named) / float(named @ named)
    if np.abs(moments.mean - k * named).max() > 1e-9 * np.abs(moments.mean).max():
        return None
    return {**found.terms, "scale": (k - 1.0) * named}
