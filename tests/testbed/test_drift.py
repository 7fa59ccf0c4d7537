"""Controlled drift: the divergence asked for is the divergence achieved, or the maximum is told."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import theory
from testbed import drift
from testbed.drifting import registry
from tests.instances import instances, random_instance
from theory.divergence import kl_behaviour_target

KINDS = sorted(name for name, kind in registry.KINDS.items() if kind.steps is None)
VARIANTS = [(kind, {}) for kind in KINDS] + [
    ("temperature", {"direction": "cold"}),
    ("noise", {"seed": 3}),
    ("staleness", {"steps": 1}),
]


def achieved(process, drifted):
    """The divergence of a drifted pair, by the full record."""
    found = theory.divergences(process, drifted.target, drifted.behaviour, moves=0)
    return getattr(found, drifted.per).kl_behaviour_target


def curve(kind, process, policy, strengths, per="token", **options):
    pairs = (drift.apply(kind, process, policy, strength, **options) for strength in strengths)
    return np.array([kl_behaviour_target(process, *pair, per) for pair in pairs])


def maximum_told(error):
    found = re.search(r"the maximum is (\S+) at strength (\S+)$", str(error))
    assert found, str(error)
    return float(found[1]), float(found[2])


@pytest.mark.parametrize(("kind", "options"), VARIANTS)
@pytest.mark.parametrize("per", ["token", "sequence"])
@pytest.mark.parametrize("kl", [1e-8, 1e-3, 0.1])
@pytest.mark.parametrize("features", [0, 5])
def test_achieves_what_was_asked(kind, options, per, kl, features):
    process, policy, _ = random_instance(0, features=features)
    drifted = drift.at(kind, process, policy, kl, per=per, **options)
    assert (drifted.kind, drifted.per) == (kind, per)
    assert achieved(process, drifted) == pytest.approx(kl, rel=1e-9, abs=0)
    assert drifted.kl == pytest.approx(kl, rel=1e-9, abs=0)
    target, behaviour = drift.apply(kind, process, policy, drifted.strength, **options)
    assert np.array_equal(target.logits, drifted.target.logits)
    assert np.array_equal(behaviour.logits, drifted.behaviour.logits)
    # Negative controls: the other divergence, and the policies the other way round, are something else.
    other = "sequence" if per == "token" else "token"
    assert kl_behaviour_target(process, drifted.target, drifted.behaviour, other) != pytest.approx(kl, rel=1e-3)
    assert kl == 1e-8 or kl_behaviour_target(process, drifted.behaviour, drifted.target, per) != pytest.approx(kl, 1e-3)


@given(
    instances(),
    st.sampled_from(VARIANTS),
    st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
    st.sampled_from(["token", "sequence"]),
)
@settings(max_examples=200, deadline=None)
def test_achieves_what_was_asked_or_tells_the_maximum(instance, variant, kl, per):
    process, policy, _ = instance
    kind, options = variant
    try:
        drifted = drift.at(kind, process, policy, kl, per=per, **options)
    except drift.UnreachableError as error:
        if "ends before a step" in str(error):
            assert not process.initial[~process.absorbing].any()
            return
        maximum, strength = maximum_told(error)
        assert maximum < kl * (1.0 + 1e-5)
        assert curve(kind, process, policy, [strength], per, **options)[0] == pytest.approx(
            maximum, rel=1e-4, abs=1e-12
        )
        if (
            maximum > 0.0 or kind != "staleness"
        ):  # with nothing but rounding for a gradient there is no scale of strength
            grid = np.geomspace(1e-3, 1.0 if kind == "mixture" else 50.0, 60)
            assert curve(kind, process, policy, grid, per, **options).max() <= maximum * (1.0 + 1e-3) + 1e-12
        return
    assert achieved(process, drifted) == pytest.approx(kl, rel=1e-9, abs=0)
    # The smallest strength: nothing below it reaches the divergence.
    below = drifted.strength * np.linspace(0.02, 0.98, 49)
    assert curve(kind, process, policy, below, per, **options).max() < kl


def rise_and_fall():
    """A process and a policy for which heat adds divergence first and takes it away later.

    In state 0 heat moves probability between two actions that stay; the third leads for good to state 1, where the
    policy is uniform and heat changes nothing, but only much heat makes it likely.
    """
    transition = np.zeros((2, 3, 2))
    transition[0, :2, 0] = transition[0, 2, 1] = 1.0
    transition[1, :, 1] = 1.0
    process = theory.MarkovProcess([1.0, 0.0], transition, np.zeros((2, 3)), horizon=100)
    return process, theory.SoftmaxPolicy([[2.0, 0.0, -14.0], [0.0, 0.0, 0.0]])


def test_a_divergence_that_rises_and_falls_is_reached_on_the_way_up():
    process, policy = rise_and_fall()
    strengths = np.linspace(0.0, 6.0, 2001)
    kl = curve("temperature", process, policy, strengths)
    peak = kl.argmax()
    assert kl[-1] < 0.8 * kl[peak]  # it does fall
    for share in (0.9, 0.99, 0.9999):
        asked = share * kl[peak]
        drifted = drift.at("temperature", process, policy, asked)
        assert drifted.kl == pytest.approx(asked, rel=1e-9)
        first = strengths[np.argmax(kl >= asked)]
        assert first - 0.003 <= drifted.strength <= first
        last = strengths[len(kl) - 1 - np.argmax(kl[::-1] >= asked)]
        assert last > first + 0.01  # a second answer, not the smallest, does exist
    with pytest.raises(ValueError, match="out of reach") as caught:
        drift.at("temperature", process, policy, 1.01 * kl[peak])
    maximum, strength = maximum_told(caught.value)
    assert maximum == pytest.approx(kl[peak], rel=1e-5)
    assert strength == pytest.approx(strengths[peak], abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_no_drift(kind):
    process, policy, _ = random_instance(1)
    drifted = drift.at(kind, process, policy, 0.0)
    assert (drifted.strength, drifted.kl) == (0.0, 0.0)
    assert drifted.target is drifted.behaviour is policy
    assert drift.apply(kind, process, policy, 0.0) == (policy, policy)
    assert drift.at(kind, process, policy, 1e-4).strength > 0.0


def test_the_message_names_kind_unit_and_maximum():
    process, policy, _ = random_instance(0)
    with pytest.raises(
        ValueError, match=r"^kl = 3 per token is out of reach of temperature drift in this process; "
    ) as e:
        drift.at("temperature", process, policy, 3.0)
    maximum, strength = maximum_told(e.value)
    # The hottest policy is uniform.
    uniform = theory.SoftmaxPolicy(np.zeros_like(policy.logits))
    assert maximum == pytest.approx(kl_behaviour_target(process, policy, uniform), rel=1e-5)
    assert drift.at("temperature", process, policy, 0.999 * maximum).strength < strength


def test_kinds_that_cannot_drift_at_all():
    process, policy, _ = random_instance(0)
    flat = theory.MarkovProcess(process.initial, process.transition, np.zeros((4, 3)), 4, np.full(4, 0.3))
    with pytest.raises(
        ValueError, match="out of reach of staleness drift in this process; the maximum is 0 at strength 0"
    ):
        drift.at("staleness", flat, policy, 1e-6)
    uniform = theory.SoftmaxPolicy(np.zeros((4, 3)))
    for kind in ("temperature", "mixture"):
        with pytest.raises(ValueError, match="the maximum is 0 at strength 0"):
            drift.at(kind, process, uniform, 1e-6)
    ended = theory.MarkovProcess(process.initial, process.transition, process.reward, 4, absorbing=np.ones(4, bool))
    with pytest.raises(ValueError, match="every episode of this process ends before a step"):
        drift.at("noise", ended, policy, 0.1)


def test_staleness_improves_the_target_and_keeps_its_family():
    for features in (0, 5):
        process, policy, _ = random_instance(2, features=features)
        drifted = drift.at("staleness", process, policy, 0.01)
        assert drifted.behaviour is policy
        assert drifted.target.parameter_count == policy.parameter_count
        better, worse = (theory.values(process, p).expected_return for p in (drifted.target, drifted.behaviour))
        assert better > worse + 1e-3
        # Negative control: a step down the gradient makes it worse, so that the direction is what is tested.
        down = policy.with_parameters(policy.parameters - 0.1 * theory.policy_gradient(process, policy))
        assert theory.values(process, down).expected_return < worse


def test_one_step_of_staleness_is_one_gradient_step():
    process, policy, _ = random_instance(2)
    target, _ = drift.apply("staleness", process, policy, 0.3, steps=1)
    step = 0.3 * theory.policy_gradient(process, policy)
    assert np.allclose(target.parameters, policy.parameters + step, rtol=0, atol=1e-15)
    two, _ = drift.apply("staleness", process, policy, 0.3, steps=2)
    assert not np.allclose(two.parameters, policy.parameters + 2 * step, rtol=0, atol=1e-6)


def entropies(policy):
    return -(policy.probabilities * policy.log_probabilities).sum(axis=1)


def test_heat_raises_entropy_and_cold_lowers_it():
    process, policy, _ = random_instance(0)
    hot, cold = (drift.at("temperature", process, policy, 0.05, direction=d) for d in ("hot", "cold"))
    assert (entropies(hot.behaviour) > entropies(policy)).all()
    assert (entropies(cold.behaviour) < entropies(policy)).all()
    assert hot.target is cold.target is policy
    expected = theory.SoftmaxPolicy(policy.logits / np.exp(hot.strength))
    assert np.allclose(hot.behaviour.probabilities, expected.probabilities, rtol=1e-12)


def test_noise_and_mixture_are_what_their_cards_say():
    process, policy, _ = random_instance(0, S=200, A=50)
    _, noisy = drift.apply("noise", process, policy, 0.5, seed=1)
    direction = (noisy.logits - policy.logits) / 0.5
    # Of 10,000 normal draws, the variance has a standard error of sqrt(2 / 10,000); false alarm below 1e-4.
    assert abs(direction.var() - 1.0) < 4 * np.sqrt(2 / direction.size)
    _, other = drift.apply("noise", process, policy, 0.5, seed=2)
    assert not np.allclose(other.logits, noisy.logits)
    _, mixed = drift.apply("mixture", process, policy, 0.25)
    assert np.allclose(mixed.probabilities, 0.75 * policy.probabilities + 0.25 / 50, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_policy_keeps_its_support(kind):
    process, policy, _ = random_instance(0)
    logits = policy.logits.copy()
    logits[:, 0] = -np.inf
    drifted = drift.at(kind, process, theory.SoftmaxPolicy(logits), 0.01)
    assert achieved(process, drifted) == pytest.approx(0.01, rel=1e-9, abs=0)
    assert not drifted.behaviour.probabilities[:, 0].any()
    assert not drifted.target.probabilities[:, 0].any()


def test_a_divergence_between_two_steps_of_a_jump_is_out_of_reach(monkeypatch):
    monkeypatch.setattr(drift, "KINDS", dict(registry.KINDS))
    monkeypatch.setattr(registry, "KINDS", drift.KINDS)

    @registry.kind("mu flattens logits by whole units, or loses what pi needs", limit=8.0)
    def _stairs(process, policy, strength):
        behaviour = theory.SoftmaxPolicy(policy.logits + np.floor(strength) * np.arange(3))
        return (theory.SoftmaxPolicy(np.where(np.arange(3) < 2, policy.logits, -np.inf)), behaviour) if (
            strength > 2.5
        ) else (policy, behaviour)  # fmt: skip

    process, policy, _ = random_instance(0)
    low, high = curve("stairs", process, policy, [1.0, 2.0])
    with pytest.raises(
        ValueError, match="out of reach of stairs drift in this process; at strength 1 it jumps from 0 to"
    ):
        drift.at("stairs", process, policy, 0.5 * low)
    with pytest.raises(ValueError, match="at strength 2 it jumps"):
        drift.at("stairs", process, policy, 0.5 * (low + high))
    with pytest.raises(ValueError, match=r"at strength 2\.5 it jumps from .* to inf"):
        drift.at("stairs", process, policy, 2.0 * high)


def test_refuses_in_the_users_words():
    process, policy, _ = random_instance(0)
    refused = [
        (lambda: drift.at("nose", process, policy), "unknown kind of drift 'nose'; the nearest known name is 'noise'"),
        (lambda: drift.at("noise", process, policy, sead=1), "unknown option 'sead' of drift 'noise'; .* 'seed'"),
        (lambda: drift.at("noise", process, policy, 0.1, per="word"), "unknown per 'word'"),
        (lambda: drift.at("noise", process, policy, -0.1), "kl is -0.1; expected a finite number of nats"),
        (lambda: drift.at("noise", process, policy, float("nan")), "kl is nan; expected"),
        (lambda: drift.at("noise", process, policy, float("inf")), "kl is inf; expected"),
        (lambda: drift.at("noise", process, policy, "a"), "kl is 'a'; expected a finite number of nats"),
        (lambda: drift.at("noise", process, policy, None), "kl is None; expected"),
        (lambda: drift.at("noise", process, policy, seed="a"), "seed is 'a'; expected a whole number"),
        (lambda: drift.at("noise", process, policy, seed=None), "seed is None; expected a whole number"),
        (lambda: drift.at("noise", process, policy, seed=-1), "seed is -1; expected a whole number"),
        (lambda: drift.at("noise", process, policy, 0.0, seed=None), "seed is None; expected a whole number"),
        (lambda: drift.apply("noise", process, policy, -1.0), "strength is -1.0; expected"),
        (lambda: drift.apply("noise", process, policy, "a"), "strength is 'a'; expected a finite number"),
        *(
            (lambda x=x: drift.at("staleness", process, policy, steps=x), f"steps is {x!r}; expected a whole number")
            for x in (float("inf"), float("nan"), "a", None, 1.5, True)
        ),
        (
            lambda: drift.apply("mixture", process, policy, 1.5),
            r"strength of mixture drift is 1.5; expected .* \[0, 1\]",
        ),
        (lambda: drift.at("staleness", process, policy, steps=0), "steps is 0; expected a whole number"),
        (lambda: drift.at("temperature", process, policy, direction="warm"), "unknown direction 'warm'"),
        (lambda: drift.at("temperature", process, policy, 0.0, direction="warm"), "unknown direction 'warm'"),
        (lambda: drift.at("noise", process, theory.SoftmaxPolicy([[0.0]])), r"policy has shape \(1, 1\); expected"),
    ]
    for call, message in refused:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_nearest_of_a_continuous_kind_is_the_maximum():
    process, policy, _ = random_instance(0)
    with pytest.raises(drift.UnreachableError) as caught:
        drift.at("temperature", process, policy, 3.0)
    drifted = drift.at("temperature", process, policy, 3.0, nearest=True)
    assert (drifted.strength, drifted.kl) == caught.value.below
    assert drifted.kl == caught.value.maximum == pytest.approx(maximum_told(caught.value)[0], rel=1e-5)
    assert achieved(process, drifted) == pytest.approx(drifted.kl, rel=1e-12)
    # The control: what can be reached is reached, and not replaced by the maximum.
    assert drift.at("temperature", process, policy, 0.01, nearest=True).kl == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_smooth_kinds_lose_no_support_and_are_measured_as_solved(kind):
    process, policy, _ = random_instance(0)
    drifted = drift.at(kind, process, policy, 0.01, per="sequence")
    again = drift.measured(kind, process, policy, drifted.strength, per="sequence")
    assert again.lost_mass == drifted.lost_mass == 0.0
    assert (again.kl, again.per, again.strength) == (drifted.kl, "sequence", drifted.strength)
    with pytest.raises(ValueError, match=f"how strong {kind} drift is, is said by strength, .* got none of them"):
        drift.apply(kind, process, policy)


def test_every_kind_has_a_card_of_one_line():
    cards = drift.kinds()
    assert {"noise", "staleness", "temperature", "mixture", "top_p", "top_k", "rounding"} == set(cards)
    assert all(card and "\n" not in card for card in cards.values())


def test_large_seeds_are_told_apart():
    """2^60 and 2^60 + 1 are one float."""
    process, policy, _ = random_instance(0)
    one, other = (drift.apply("noise", process, policy, 0.5, seed=2**60 + i)[1].logits for i in (0, 1))
    assert np.abs(one - other).max() > 1e-3


BANDIT = theory.MarkovProcess([1.0], np.ones((1, 4, 1)), np.arange(4.0)[None], horizon=1)


@pytest.mark.parametrize(
    ("kind", "options", "strength", "allowed"),
    [("temperature", {"direction": "cold"}, 1000, 600.0), ("temperature", {"direction": "cold"}, 709.5, 600.0),
     ("noise", {}, 1e308, 1e300), ("staleness", {"steps": 1}, 1.7e308, 1e300)],
)  # fmt: skip
def test_strengths_that_leave_float64_are_refused(kind, options, strength, allowed):
    policy = theory.SoftmaxPolicy(np.log([[0.05, 0.1, 0.25, 0.6]]))
    with pytest.raises(ValueError, match=rf"^strength of {kind} drift is .*; expected one that keeps logits below"):
        drift.apply(kind, BANDIT, policy, strength, **options)
    # The control: large ones that stay inside are taken, and all the mass is on one action.
    for moved in drift.apply(kind, BANDIT, policy, allowed, **options):
        assert moved is policy or sorted(moved.probabilities[0]) == [0.0, 0.0, 0.0, 1.0]


def test_no_heat_brings_an_action_back():
    policy = theory.SoftmaxPolicy([[0.0, 1.0, 2.0, -np.inf]])
    for strength in (10.0, 1e5):
        _, hot = drift.apply("temperature", BANDIT, policy, strength, direction="hot")
        assert hot.probabilities[0] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0], rel=1e-3)
