"""A sweep as data: what comes back from a file, and what is refused at the door."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.sweep import Choice, Sweep, default_sweep, toml
from testbed.sweep.choices import canonical
from testbed.sweep.settings import PACKAGED, packaged_sweep
from testbed.sweep.tasks import batches, cells
from tests.testbed.sweep.small import CELLS_OF_TINY, TINY

PLAIN = {"environments": ["parity"], "drifts": ["noise"], "weights": ["token"], "signals": ["outcome"]}


def test_round_trip_through_a_file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(TINY.to_toml(), encoding="utf-8")
    assert Sweep.from_toml(path) == TINY
    assert Sweep.from_toml(path) != Sweep(**{**vars(TINY), "seeds": (0, 2)})


def test_infinite_options_round_trip():
    sweep = Sweep(**{**PLAIN, "weights": [{"name": "truncated", "cap": math.inf}]})
    again = Sweep.read(sweep.to_toml())
    assert again.weights[0].options["cap"] == math.inf
    assert [c.key for c in cells(again)] == [c.key for c in cells(sweep)]


scalars = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(st.characters(exclude_categories=["Cs"]))
)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.one_of(scalars, st.lists(scalars))
    )
)
def test_what_is_written_as_toml_reads_back_the_same(options):
    import tomllib

    read = tomllib.loads(toml.written({"weights": [{"name": "x", "options": options}]}))
    assert canonical(read["weights"][0]["options"]) == canonical(options)


def test_default_sweep_covers_what_the_readme_shows():
    sweep = default_sweep()
    assert len(sweep.environments) >= 5
    assert {"noise", "staleness", "temperature"} <= {d.name for d in sweep.drifts}
    assert sweep.quick().name == "default-quick"
    assert len(cells(sweep.quick())) < len(cells(sweep)) / 5


def test_every_cell_is_one_task_with_a_key_of_its_own():
    everything = cells(TINY)
    assert len(everything) == CELLS_OF_TINY
    assert len({cell.key for cell in everything}) == CELLS_OF_TINY
    assert [cell for batch in batches(everything) for cell in batch] == everything
    assert all(len({cell.pair for cell in batch}) == 1 for batch in batches(everything))


def test_seeds_multiply_random_drifts_only():
    random = Sweep(**{**PLAIN, "seeds": [0, 1, 2]})
    fixed = Sweep(**{**PLAIN, "seeds": [0, 1, 2], "drifts": ["mixture"]})
    named = Sweep(**{**PLAIN, "seeds": [0, 1, 2], "drifts": [{"name": "noise", "seed": 7}]})
    assert [cell.pair.seed for cell in cells(random)] == [0, 1, 2]
    assert [cell.pair.seed for cell in cells(fixed)] == [None]
    assert [cell.pair.seed for cell in cells(named)] == [7]


def test_a_drift_may_have_divergences_of_its_own():
    sweep = Sweep(**{**PLAIN, "kl": [0.1], "drifts": ["noise", {"name": "mixture", "kl": [0.01, 0.02]}]})
    assert [(cell.pair.drift.name, cell.pair.kl) for cell in cells(sweep)] == [
        ("noise", 0.1), ("mixture", 0.01), ("mixture", 0.02),
    ]  # fmt: skip


def test_choices_pickle_and_hash_by_content():
    item = Choice("minpro", {"clip": [0.8, 1.28]})
    assert pickle.loads(pickle.dumps(item)) == item
    assert hash(item) == hash(Choice("minpro", {"clip": (0.8, 1.28)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environments": ["partiy"]}, ["environments[0]", "'partiy'", "'parity'"]),
        ({"environments": [{"name": "parity", "horizn": 3}]}, ["environments[0]", "'horizn'", "'horizon'"]),
        ({"environments": [{"name": "parity", "horizon": -3}]}, ["environments[0]", "horizon", "-3"]),
        ({"drifts": ["noise", "staleness", "temprature"]}, ["drifts[2]", "'temprature'", "'temperature'"]),
        ({"drifts": [{"name": "staleness", "step": 3}]}, ["drifts[0]", "'step'", "'steps'"]),
        ({"drifts": [{"name": "noise", "kl": [-1.0]}]}, ["drifts[0].kl[0]", "-1.0", ">= 0"]),
        ({"weights": ["token", "minprro"]}, ["weights[1]", "'minprro'", "'minpro'"]),
        ({"weights": [{"name": "minpro", "clp": [0, 1]}]}, ["weights[0]", "'clp'", "'clip'"]),
        ({"weights": [{"name": "minpro", "clip": [2, 1]}]}, ["weights[0]", "(2, 1)"]),
        ({"signals": ["outcom"]}, ["signals[0]", "'outcom'", "'outcome'"]),
        ({"signals": [{"name": "group", "siz": 4}]}, ["signals[0]", "'siz'", "'size'"]),
        ({"signals": [{"name": "outcome", "baselin": 1.0}]}, ["signals[0]", "'baselin'", "'baseline'"]),
        ({"scores": ["ownn"]}, ["scores[0]", "'ownn'", "'own'"]),
        ({"reductions": ["summ"]}, ["reductions[0]", "'summ'", "'sum'"]),
        ({"engine": "recursio"}, ["engine", "'recursio'", "'recursion'"]),
        ({"layout": "number"}, ["layout", "'number'", "'numbers'"]),
        ({"old": "halfwy"}, ["old", "'halfwy'", "'halfway'"]),
        ({"sampled_trajectories": 1}, ["sampled_trajectories", "1", ">= 2"]),
        ({"sampling_seed": -1}, ["sampling_seed", "-1", ">= 0"]),
        ({"weights": ["token", "decoupled"]}, ["weights[1]", "needs old_log_ratio", 'old = "halfway"']),
        ({"weights": ["all"]}, ["needs old_log_ratio", 'old = "halfway"']),
        ({"weights": [{"name": "truncated", "cap": [2, -1]}]}, ["weights[0]", "cap is -1", "positive"]),
        ({"weights": [{"name": "truncated", "cap": ["a", "b"]}]}, ["weights[0]", "cap is ('a', 'b')"]),
        ({"weights": [{"name": "truncated", "cap": [2, 2]}]}, ["weights[0] gives truncated(cap=2) twice"]),
        ({"drifts": [{"name": "top_p", "p": 2.0}]}, ["drifts[0]", "p of top_p drift is 2.0"]),
        ({"drifts": [{"name": "top_p", "p": 0.9, "kl": [0.1]}]}, ["drifts[0]", "by p", "no kl beside"]),
        ({"drifts": [{"name": "top_p", "p": 0.9, "strength": 0.1}]}, ["drifts[0]", "one of them"]),
        ({"drifts": [{"name": "given", "strength": 0.1}]}, ["drifts[0]", "'given' has no options"]),
        ({"per": "tokens"}, ["per", "'tokens'", "'token'"]),
        ({"kl": [math.nan]}, ["kl[0]", "nan"]),
        ({"kl": []}, ["kl", "empty"]),
        ({"kl": 0.1}, ["kl", "0.1", "a list"]),
        ({"seeds": [0, 1.5]}, ["seeds[1]", "1.5", "whole number"]),
        ({"trajectories": [0]}, ["trajectories[0]", ">= 1"]),
        ({"weights": ["token", "none", "token"]}, ["weights[2]", "repeats weights[0]"]),
        ({"weights": ["all", "token"], "old": "halfway"}, ["weights[1] repeats weights[0]", "both give token"]),
        ({"weights": ["truncated", {"name": "truncated", "cap": 2.0}]}, ["weights[1] repeats weights[0]"]),
        ({"weights": ["token", "all"]}, ["weights[1]: weight", 'old = "halfway"']),
        ({"environments": ["chain", {"name": "parity", "horizon": [3, 4]}, {"name": "parity", "horizon": 4}]},
         ["environments[2] repeats environments[1]", "parity(horizon=4)"]),
        ({"kl": [0.1, 0.2, 0.1]}, ["kl[2] repeats kl[0]", "0.1"]),
        ({"drifts": ["noise", {"name": "mixture", "kl": [0.1, -1.0]}]}, ["drifts[1].kl[1]", "-1.0"]),
        ({"weights": [{"clip": [0.8, 1.2]}]}, ["weights[0]", "expected a name"]),
        ({"name": "a/b"}, ["name", "'a/b'"]),
        ({"name": ".."}, ["name", "'..'", "no '.' at the start"]),
        ({"name": "."}, ["name", "'.'"]),
        ({"name": ".hidden"}, ["name", "'.hidden'"]),
        ({"name": "line\n"}, ["name", "'line\\n'"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_with_the_key_of_the_file(change, words, tmp_path):
    with pytest.raises(ValueError, match=r".") as caught:
        Sweep(**{**PLAIN, **change})
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert all(word in sentence for word in words), sentence


def test_mistakes_of_a_file_name_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    for text, words in [
        ('enviroments = ["parity"]', ["mine.toml", "'enviroments'", "'environments'"]),
        ('environments = ["parity"]', ["mine.toml", "'drifts'", "missing"]),
        ("kl = [0.1", ["mine.toml"]),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=r".") as caught:
            Sweep.from_toml(path)
        assert all(word in str(caught.value) for word in words)
    with pytest.raises(ValueError, match="cannot read the sweep"):
        Sweep.from_toml(tmp_path / "none.toml")


def test_weights_that_differ_stay_two():
    """The control of the check for repetitions."""
    weights = ["truncated", {"name": "truncated", "cap": 3.0}, {"name": "truncated", "level": "sequence"}]
    assert len(Sweep(**{**PLAIN, "weights": weights}).weights) == 3


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_quick_is_fewer_cells_of_every_packaged_sweep(name):
    sweep = packaged_sweep(name)
    assert set(sweep.quick().drifts) <= set(sweep.drifts)
    assert len(cells(sweep.quick())) < len(cells(sweep))


def test_quick_keeps_one_value_of_each_option_and_the_ends_of_what_is_stated():
    sweep = Sweep(
        environments=[{"name": "parity", "horizon": [3, 4]}, {"name": "chain", "horizon": [5, 6]}, "garnet"],
        drifts=["noise", {"name": "noise", "kl": [0.5, 0.7]}, {"name": "mixture", "strength": [0.1, 0.2, 0.3]},
                {"name": "top_p", "p": 0.9}],
        weights=["token", {"name": "truncated", "cap": [1.5, 3.0]}, {"name": "truncated", "level": "sequence"}],
        signals=["outcome", {"name": "group", "size": [2, 4]}], kl=[0.3, 0.1, 0.2], seeds=[4, 5],
    )  # fmt: skip
    quick = sweep.quick()
    assert [item.label for item in quick.environments] == ["parity(horizon=3)", "chain(horizon=5)"]
    assert [item.label for item in quick.drifts] == [
        "noise", "mixture(strength=0.1)", "mixture(strength=0.3)", "top_p(p=0.9)",
    ]  # fmt: skip
    assert [item.label for item in quick.weights] == ["token", "truncated(cap=1.5)", "truncated(level=sequence)"]
    assert [item.label for item in quick.signals] == ["outcome", "group(size=2)"]
    assert (quick.kl, quick.seeds, quick.trajectories) == ((0.1, 0.3), (4,), sweep.trajectories)
    # The drift's own divergences are cut with the others.
    assert {cell.pair.kl for cell in cells(quick) if cell.pair.drift.name == "noise"} == {0.1, 0.3}
