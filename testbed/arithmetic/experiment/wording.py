"""How numbers and configurations of an experiment are written."""

from __future__ import annotations

import math

from testbed import spelling
from testbed.arithmetic.experiment.settings import Method
from testbed.arithmetic.experiment.statistics import Interval


def per_cent(interval: Interval, *, signed: bool = False, decimals: int = 1) -> str:
    """Estimate and interval in per cent; `decimals` are those of the interval's ends.

    >>> per_cent(Interval(0.5234, 0.48, 0.566)), per_cent(Interval(0.01, -0.02, 0.04), signed=True)
    ('52.3 [48.0, 56.6]', '+1.0 [-2.0, +4.0]')
    >>> per_cent(Interval(1e-6, -1e-6, 3e-6), signed=True)
    '+0.0 [+0.0, +0.0]'
    >>> per_cent(Interval(0.5, float("nan"), float("nan")))
    '50.0'
    """
    sign = "+" if signed else ""
    # Zero has no sign, and what rounds to it has none either.
    interval = Interval(*(round(x, 3) + 0.0 for x in interval))
    if math.isnan(interval.estimate):
        return "-"
    text = f"{100 * interval.estimate:{sign}.1f}"
    if math.isnan(interval.low):
        return text
    low, high = (f"{round(100 * end, decimals) + 0.0:{sign}.{decimals}f}" for end in interval[1:])
    return f"{text} [{low}, {high}]"


def plain_number(interval: Interval) -> str:
    """Estimate and interval with two decimals.

    >>> plain_number(Interval(0.5234, 0.48, 0.566))
    '0.52 [0.48, 0.57]'
    """
    if math.isnan(interval.estimate):
        return "-"
    if math.isnan(interval.low):
        return f"{interval.estimate:.2f}"
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def p_value(p: float) -> str:
    """As tables have it.

    >>> p_value(0.0312), p_value(0.00004), p_value(float("nan"))
    ('0.031', '<0.001', '-')
    """
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def rate(learning_rate: float) -> str:
    """A learning rate.

    >>> rate(3e-4), rate(1.7e-4)
    ('3e-4', '1.7e-4')
    """
    mantissa, exponent = f"{learning_rate:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def collapsed(hits: int, runs: int, share: Interval) -> str:
    """Runs collapsed of all, with the interval of the share in per cent.

    >>> collapsed(2, 8, Interval(0.25, 0.0319, 0.651))
    '2/8 [3, 65]'
    """
    return f"{hits}/{runs} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def options_chosen(method: Method, weight: str) -> str:
    """The options by which a method's weights differ, as this one has them; empty where it has one weight.

    >>> clips = Method("m", ("truncated(level=sequence, cap=2)", "truncated(level=sequence, cap=8)"), (1e-4,))
    >>> options_chosen(clips, clips.weights[1])
    'cap=8'
    """
    if len(method.weights) == 1:
        return ""
    given = [spelling.call(one)[1] for one in method.weights]
    mine = spelling.call(weight)[1]
    differ = [name for name in mine if any(other.get(name) != mine[name] for other in given)]
    return ", ".join(f"{name}={mine[name]}" for name in differ) or "defaults"
