"""The registry: names, options, labels, and what every environment promises."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import testbed
import theory
from testbed.environments import Parts, registry
from testbed.environments.tables import trajectory_count
from tests.instances import random_instance
from tests.testbed.environments.plain import walk

NAMES = sorted(testbed.environment_cards())
TOO_LARGE_TO_ENUMERATE = {"frozen_lake", "cliff_walking", "taxi"}


def test_the_zoo_is_complete():
    expected = (
        "brackets chain cliff_walking digit_addition frozen_lake garnet keyword modular_sum parity taxi token_tree"
    )
    assert {*expected.split(), "two_agents", "two_token_counterexample"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_card_is_complete(name):
    card = testbed.environment_cards()[name]
    assert card.name == name
    assert card.knob in card.options
    assert card.summary.count("\n") == 0
    assert all([card.summary, card.source, card.reference])


@pytest.mark.parametrize("name", NAMES)
def test_default_policies_are_possible_everywhere_and_have_a_gradient(name):
    made = testbed.environment(name)
    for policy in (made.target, made.behaviour or made.target):
        assert policy.logits.shape == (made.process.states, made.process.actions)
        assert policy.probabilities.min() > 0.01
    assert np.linalg.norm(theory.policy_gradient(made.process, made.target)) > 1e-2
    assert (made.behaviour is not None) == (name == "two_token_counterexample")


@pytest.mark.parametrize("name", sorted(set(NAMES) - TOO_LARGE_TO_ENUMERATE))
def test_default_size_is_small_enough_to_enumerate(name):
    assert testbed.environment(name).trajectories < 300_000


@pytest.mark.parametrize("name", sorted(TOO_LARGE_TO_ENUMERATE))
def test_grids_are_known_to_be_too_large(name):
    assert testbed.environment(name).trajectories > 300_000


def test_trajectory_count_is_what_a_walk_finds():
    process, target, _ = random_instance(S=3, A=2, T=3)
    assert trajectory_count(process) == len(walk(process, target))


@pytest.mark.parametrize("name", ["brackets", "chain", "digit_addition", "garnet", "token_tree"])
def test_walking_every_trajectory_gives_the_recursions_return(name):
    small = {"garnet": {"horizon": 4}, "chain": {"horizon": 5}}.get(name, {})
    made = testbed.environment(name, **small)
    found = walk(made.process, made.target)
    assert made.trajectories == len(found)
    np.testing.assert_allclose(sum(p for p, _ in found), 1.0, rtol=1e-12)
    mean = sum(p * paid for p, paid in found)
    np.testing.assert_allclose(mean, theory.values(made.process, made.target).expected_return, rtol=1e-12)
    other = theory.SoftmaxPolicy(-made.target.logits)
    assert abs(mean - theory.values(made.process, other).expected_return) > 1e-3  # the check can tell policies apart


def test_label_shows_what_differs_from_the_defaults():
    assert testbed.environment("parity").label == "parity"
    assert testbed.environment("parity", horizon=10).label == "parity"
    assert testbed.environment("chain", states=5, horizon=3).label == "chain(states=5, horizon=3)"


@pytest.mark.parametrize("name", NAMES)
def test_pickle_keeps_everything(name):
    made = testbed.environment(name)
    again = pickle.loads(pickle.dumps(made))
    assert again.label == made.label
    assert dict(again.options) == dict(made.options)
    np.testing.assert_array_equal(again.target.logits, made.target.logits)
    np.testing.assert_array_equal(again.process.terminal_reward, made.process.terminal_reward)


def test_unknown_names_and_options_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown environment 'frozenlake'; the nearest known name is 'frozen_lake'"):
        testbed.environment("frozenlake")
    with pytest.raises(ValueError, match=r"unknown option 'state' of environment 'chain'; the nearest .* 'states'"):
        testbed.environment("chain", state=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chain", {"states": 1}),
        ("chain", {"states": 2.5}),
        ("chain", {"horizon": 0}),
        ("chain", {"horizon": True}),
        ("garnet", {"branching": 7}),
        ("garnet", {"seed": -1}),
        ("garnet", {"discount": 2.0}),
        ("frozen_lake", {"slippery": 1}),
        ("frozen_lake", {"map_name": "5x5"}),
        ("cliff_walking", {"slippery": "yes"}),
        ("taxi", {"rainy": None}),
        ("parity", {"horizon": "ten"}),
        ("modular_sum", {"modulus": 1}),
        ("keyword", {"keyword": ""}),
        ("keyword", {"keyword": "ABBA"}),
        ("keyword", {"keyword": 7}),
        ("brackets", {"depth": 0}),
        ("digit_addition", {"base": 1}),
        ("token_tree", {"vocabulary": 1}),
        ("two_token_counterexample", {"epsilon": 0.5}),
        ("two_token_counterexample", {"epsilon": 0}),
        ("two_token_counterexample", {"epsilon": "big"}),
    ],
)
def test_option_values_without_meaning_are_refused(name, options):
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        testbed.environment(name, **options)


def test_options_take_numpy_numbers():
    assert testbed.environment("chain", states=np.int64(5)).process.states == 5


def test_a_name_is_registered_once_and_its_knob_is_an_option():
    card = testbed.environment_cards()["parity"]
    with pytest.raises(ValueError, match="registered already"):
        registry.register(card)(lambda *, horizon=1: Parts(None, None))
    with pytest.raises(ValueError, match="knob"):
        registry.register(registry.EnvironmentCard("nameless", "", "size", "", ""))(lambda *, horizon=1: None)
    assert "nameless" not in testbed.environment_cards()


def test_importing_testbed_is_cheap_and_names_load_when_used():
    code = (
        "import sys, testbed; heavy = {'gymnasium', 'torch', 'matplotlib'}; assert not heavy & set(sys.modules); "
        "assert 'environment' in dir(testbed); testbed.environment; assert 'gymnasium' in sys.modules; "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'enviroment'"):
        _ = testbed.enviroment


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("token_tree", {"depth": 30}),
        ("digit_addition", {"base": 100}),
        ("garnet", {"states": 20_000}),
        ("modular_sum", {"modulus": 10**9}),
    ],
)
def test_a_process_that_would_not_fit_is_refused_before_it_is_made(name, options):
    (option, value), = options.items()  # fmt: skip
    with pytest.raises(ValueError, match=f"{option}={value}.* expected at most"):
        testbed.environment(name, **options)
    assert testbed.environment("token_tree", depth=9).process.states == 29_524


def test_gymnasium_finds_an_environment_by_the_name_of_its_module():
    code = "import gymnasium; print(gymnasium.make('testbed.environments:offpolicy/Parity-v0').spec.id)"
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "offpolicy/Parity-v0"
