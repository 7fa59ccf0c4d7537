"""Moments for the figures' checks, by enumeration: no table, no recursion."""

import theory
from testbed import drift
from testbed.environments import environment


def moments(name, options, weight, signal, kl, kind="noise", *, policy=None):
    e = environment(name, **options)
    pair = drift.at(kind, e.process, e.target if policy is None else policy, kl=kl)
    if isinstance(weight, str) and weight.startswith("minpro(clip"):
        weight = theory.weight("minpro", clip=(0.8, 1.28))
    if signal == "outcome(baseline=expected_return)":
        signal = theory.signal("outcome", baseline="expected_return")
    estimator = theory.Estimator(weight, signal)
    return theory.moments(e.process, pair.target, pair.behaviour, estimator, engine="enumeration")
