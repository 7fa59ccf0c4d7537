"""The search on curves written by hand: steps, plateaus that are flat but for rounding, ties."""

from __future__ import annotations

import math

import pytest

from testbed.drifting.solving import UnreachableError, smallest_strength, step_strength


def steps(values):
    """A curve that takes one value per strength, and its strengths."""
    return values.__getitem__, sorted(values)


def test_a_step_within_rounding_is_the_one_asked_for():
    for offset, hit in [(5e-10, True), (-5e-10, True), (2e-9, False), (-2e-9, False)]:
        curve, strengths = steps({1.0: 0.1, 2.0: 0.3 * (1.0 + offset), 3.0: 0.5})
        if hit:
            assert step_strength(curve, 0.3, strengths, "") == 2.0
        else:
            with pytest.raises(UnreachableError):
                step_strength(curve, 0.3, strengths, "")


def test_of_steps_that_differ_by_rounding_the_smaller_strength_is_named():
    values = {1.0: 0.1, 2.0: 0.1 * (1.0 + 5e-10), 3.0: 0.5, 4.0: 0.5 * (1.0 - 5e-10)}
    with pytest.raises(UnreachableError) as caught:
        step_strength(values.__getitem__, 0.3, sorted(values), "")
    assert (caught.value.below, caught.value.above) == ((1.0, 0.1), (3.0, 0.5))
    # The control: a step that is nearer by more than rounding is taken.
    values[2.0], values[4.0] = 0.1 * (1.0 + 1e-6), 0.5 * (1.0 - 1e-6)
    with pytest.raises(UnreachableError) as caught:
        step_strength(values.__getitem__, 0.3, sorted(values), "")
    assert (caught.value.below[0], caught.value.above[0]) == (2.0, 4.0)


def test_of_two_as_near_the_one_below():
    between = UnreachableError("", (1.0, 0.25), (3.0, 0.75))
    assert between.nearest(0.5) == 1.0
    assert between.nearest(0.5 + 1e-12) == 3.0
    assert between.nearest(0.5 - 1e-12) == 1.0
    assert math.isnan(between.maximum)
    assert UnreachableError("", (1.0, 0.25)).nearest(10.0) == 1.0
    assert UnreachableError("", (1.0, 0.25)).maximum == 0.25


def test_on_a_plateau_the_first_strength_is_named():
    """It rises by less than rounding for ever; the maximum is named where the plateau starts, not at the end."""

    def curve(strength, rise=1e-12):
        return min(strength, 1.0) ** 2 + rise * strength

    with pytest.raises(UnreachableError, match="the maximum is 1 at strength") as caught:
        smallest_strength(curve, 2.0, 1.0, 100.0, "")
    assert 1.0 <= caught.value.below[0] < 1.5
    # The control: where it rises by more than that, the end is the maximum.
    with pytest.raises(UnreachableError) as caught:
        smallest_strength(lambda strength: curve(strength, rise=1e-4), 2.0, 1.0, 100.0, "")
    assert caught.value.below[0] == pytest.approx(100.0, rel=1e-6)
