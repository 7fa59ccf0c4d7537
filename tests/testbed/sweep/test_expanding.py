"""Options as lists of values: what one entry of the settings stands for."""

from __future__ import annotations

import math

import pytest

from testbed.sweep import Choice, Sweep
from testbed.sweep.expanding import expanded
from testbed.sweep.settings import PACKAGED, packaged_sweep
from testbed.sweep.tasks import cells
from tests.testbed.sweep.test_settings import PLAIN
from theory import weight_cards


def sweep(**axes):
    return Sweep(**{**PLAIN, **axes})


def test_a_list_of_values_is_one_entry_each():
    made = sweep(
        weights=["token", {"name": "truncated", "level": ["token", "sequence"], "cap": [1.5, 2, 5]}],
        signals=[{"name": "group", "size": [2, 4]}, {"name": "outcome", "baseline": ["none", "expected_return", 0.5]}],
        reductions=["sum", {"name": "token_mean", "batch": [1, 4]}],
        environments=[{"name": "parity", "horizon": [3, 4]}],
    )
    assert [weight.label for weight in made.weights] == [
        "token",
        *(f"truncated(level={level}, cap={cap})" for level in ("token", "sequence") for cap in (1.5, 2, 5)),
    ]
    assert [signal.options_text for signal in made.signals] == [
        "size=2", "size=4", "baseline=none", "baseline=expected_return", "baseline=0.5",
    ]  # fmt: skip
    assert [reduction.options_text for reduction in made.reductions] == ["", "batch=1", "batch=4"]
    assert [environment.options["horizon"] for environment in made.environments] == [3, 4]
    assert Sweep.read(made.to_toml()) == made
    # The long way gives the same cells.
    long = sweep(weights=[{"name": "truncated", "cap": cap} for cap in (1.5, 2.0)])
    assert [c.key for c in cells(long)] == [
        c.key for c in cells(sweep(weights=[{"name": "truncated", "cap": [1.5, 2.0]}]))
    ]


def test_a_list_that_is_one_value_stays_one():
    [one] = sweep(weights=[{"name": "minpro", "clip": [0.8, 1.28]}]).weights
    assert one.options["clip"] == (0.8, 1.28)
    two = sweep(weights=[{"name": "minpro", "clip": [[0.8, 1.28], [0.5, 2.0]], "inclusive": [False, True]}]).weights
    assert [(w.options["clip"], w.options["inclusive"]) for w in two] == [
        ((0.8, 1.28), False), ((0.8, 1.28), True), ((0.5, 2.0), False), ((0.5, 2.0), True),
    ]  # fmt: skip


def test_as_few_options_as_possible_are_expanded():
    def check(item):
        if not isinstance(item.options["pair"], tuple):
            raise ValueError("a pair")
        if isinstance(item.options["one"], tuple):
            raise TypeError("one")

    found = expanded(Choice("x", {"pair": [1, 2], "one": [3, 4]}), check)
    assert [(dict(item.options)) for item in found] == [{"pair": (1, 2), "one": 3}, {"pair": (1, 2), "one": 4}]
    with pytest.raises(TypeError, match="one"):
        expanded(Choice("x", {"pair": [1, 2], "one": [3, 4]}), check, keep=("one",))


def test_drifts_that_say_how_strong_they_are_are_not_solved():
    made = sweep(
        drifts=[{"name": "top_p", "p": [0.9, 0.8]}, {"name": "noise", "strength": [0.5]}, "mixture"],
        kl=[0.01, 0.1],
        seeds=[0, 1],
    )
    found = [(cell.pair.drift.label, cell.pair.kl) for cell in cells(made)]
    assert found == [
        ("top_p(p=0.9)", None), ("top_p(p=0.8)", None), ("noise(strength=0.5, seed=0)", None),
        ("noise(strength=0.5, seed=1)", None), ("mixture", 0.01), ("mixture", 0.1),
    ]  # fmt: skip


def test_all_weights_are_those_of_the_registry():
    made = sweep(weights=["all", {"name": "truncated", "cap": math.inf}], old="halfway")
    assert [weight.label for weight in made.weights] == [*weight_cards(), "truncated(cap=inf)"]


def test_the_packages_sweeps():
    assert set(PACKAGED) == {"default", "samplers", "zoo"}
    for name in PACKAGED:
        assert packaged_sweep(name).name == name
    assert len(cells(packaged_sweep("default"))) == 10_880
    with pytest.raises(ValueError, match="unknown sweep 'zo'; the nearest known name is 'zoo'"):
        packaged_sweep("zo")
    assert set(weight_cards()) <= {weight.name for weight in packaged_sweep("zoo").weights}


def test_draws_and_third_policy_are_part_of_a_task():
    keys = {
        cells(sweep(**change))[0].key
        for change in ({}, {"sampling_seed": 1}, {"sampled_trajectories": 50}, {"old": "halfway"})
    }
    assert len(keys) == 4
