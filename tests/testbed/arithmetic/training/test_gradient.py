"""The gradient of a batch, summed over every batch there is, is what the exact engines say of the estimator."""

from itertools import product

import numpy as np
import pytest
import torch

import theory
from testbed.arithmetic.doors import behaviour_log_probs
from testbed.arithmetic.exact import network_moments, network_prompt
from testbed.arithmetic.model import answer_logits, initial_parameters, model_for
from testbed.arithmetic.rollout import Rollout
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask, all_prompts
from testbed.arithmetic.training.gradient import Behaviour, batch_gradient
from testbed.arithmetic.verifier import rewards

TASK = ArithmeticTask("modular_addition", digits=1, modulus=7, per_digit_credit=True, slack=1)  # T = 3
CONFIG = model_for(TASK, layers=1, width=8, heads=2)
THETA = initial_parameters(CONFIG, 0, torch.float64)
# Two likeliest tokens at each prefix, so that all groups of two can be summed over.
SAMPLER = Sampler(temperature=1.4, top_k=2)


# Of what is sampled from two tokens alone the ratios are small.
CAPPED = theory.weight("truncated", cap=0.3)


def moved(seed):
    generator = torch.Generator().manual_seed(seed)
    return THETA + 0.1 * torch.randn(THETA.shape, generator=generator, dtype=torch.float64)


def every_answer(behaviour, prompt):
    """All answers of the behaviour policy to a prompt as rows, and their chances."""
    T = TASK.maximum_length
    found = torch.tensor(canonical(T))
    ends = (found == 10).long().cumsum(1)
    mask = ends - (found == 10).long() == 0
    raw = answer_logits(CONFIG, behaviour.theta, prompt, found)
    log_prob = behaviour_log_probs(SAMPLER, raw).gather(2, found[..., None])[..., 0]
    log_prob = torch.where(mask, log_prob, 0.0).detach()
    chance = log_prob.sum(1).exp()
    drawn = chance > 0.0
    assert float(chance.sum()) == pytest.approx(1.0, abs=1e-12)
    return Rollout(found[drawn], mask[drawn], log_prob[drawn], None), chance[drawn]


def canonical(T):
    """Every answer once: what follows an end token is end tokens."""
    return [a for a in product(range(11), repeat=T) if 10 not in a or set(a[a.index(10) :]) == {10}]


def telling():
    """The first behaviour policy and prompt of which the reachable answers earn different rewards."""
    for seed in range(10):
        behaviour = Behaviour(moved(seed), SAMPLER, lag=3, old_theta=moved(100))
        for prompt in all_prompts(TASK)[:, None]:
            rollout, _ = every_answer(behaviour, prompt)
            if len(rewards(TASK, prompt.expand(len(rollout.answers), -1), rollout.answers).unique()) > 1:
                return behaviour, prompt
    raise AssertionError("no prompt tells answers apart")


BEHAVIOUR, PROMPT = telling()
ROLLOUT, CHANCE = every_answer(BEHAVIOUR, PROMPT)


def rows(which):
    return Rollout(*(x[which] for x in (ROLLOUT.answers, ROLLOUT.mask, ROLLOUT.behaviour_log_probs)), None)


def summed(estimator, behaviour=BEHAVIOUR):
    """E[gradient] over all batches of one draw."""
    per_draw, total = estimator.trajectories_per_draw, torch.zeros_like(THETA)
    for which in product(range(len(CHANCE)), repeat=per_draw):
        found = batch_gradient(CONFIG, THETA, TASK, estimator, PROMPT, rows(list(which)), behaviour)
        total += CHANCE[list(which)].prod() * found.gradient
    return total.numpy()


def exact(estimator):
    prompt = network_prompt(
        CONFIG, THETA, TASK, PROMPT[0], behaviour_theta=BEHAVIOUR.theta, sampler=SAMPLER, old_theta=BEHAVIOUR.old_theta
    )
    return network_moments([prompt], estimator, variance=False, lag=BEHAVIOUR.lag).mean


def apart(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


ESTIMATORS = [
    theory.Estimator("token", "outcome"),
    theory.Estimator("prefix", "target_advantage"),
    theory.Estimator("prefix", "reward", score="cumulative"),
    theory.Estimator("sequence", theory.signal("outcome", baseline="expected_return"), reduction="length_mean"),
    theory.Estimator(theory.weight("minpro", clip=(0.8, 1.28)), theory.signal("outcome", baseline=0.25)),
    theory.Estimator("ppo_clip", "behaviour_advantage", reduction="constant"),
    theory.Estimator("gspo", theory.signal("outcome", baseline="target_value")),
    theory.Estimator("none", theory.signal("reward_to_go", baseline="behaviour_value")),
    theory.Estimator("suffix", "target_action_value"),
    theory.Estimator("cispo", "behaviour_action_value", score="cumulative"),
    theory.Estimator(theory.weight("cppo", divergence="total_variation"), "outcome"),
    theory.Estimator("drpo", "outcome"),
    theory.Estimator("marginalised", "outcome"),
    theory.Estimator(theory.weight("trm", largest=9.0, mean=3.0), "outcome"),
    theory.Estimator(theory.weight("decoupled", update=CAPPED), "outcome"),
    theory.Estimator(theory.weight("decoupled", update=CAPPED, anchor="lag"), "target_advantage"),
    theory.Estimator("token", theory.group(2)),
    theory.Estimator("minpro", theory.group(2, "leave_one_out", "none"), reduction="token_mean"),
]
BATCHES = [
    theory.Estimator("m2po", "target_advantage", reduction=theory.reduction("sum", batch=2)),
    theory.Estimator("token", "outcome", reduction=theory.reduction("token_mean", batch=2)),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.label)
def test_the_expected_gradient_is_that_of_the_exact_engines(estimator):
    assert apart(summed(estimator), exact(estimator)) < 1e-9


def test_batches_of_one_prompt_are_those_of_theory():
    """Answers to one prompt may also be a batch: then the engines of theory say what the batch does, in the logits."""
    prompt = network_prompt(CONFIG, THETA, TASK, PROMPT[0], behaviour_theta=BEHAVIOUR.theta, sampler=SAMPLER)
    for estimator in BATCHES:
        m = theory.moments(
            prompt.tree.process, prompt.target, prompt.behaviour, estimator, "enumeration", missing_support="allow"
        )
        assert apart(summed(estimator), prompt.pull_back(m.mean)) < 1e-9


CONTROLS = [
    (theory.Estimator("token", "outcome"), theory.Estimator("prefix", "outcome")),
    (theory.Estimator("prefix", "target_advantage"), theory.Estimator("prefix", "behaviour_advantage")),
    (theory.Estimator("prefix", "reward", score="cumulative"), theory.Estimator("prefix", "reward")),
    (theory.Estimator("token", "outcome", reduction="length_mean"), theory.Estimator("token", "outcome")),
    (theory.Estimator("token", theory.group(2)), theory.Estimator("token", theory.group(2, scale="none"))),
]


@pytest.mark.parametrize(("one", "other"), CONTROLS, ids=lambda e: e.label)
def test_another_estimator_is_told_apart(one, other):
    """Negative control of the test above: a wrong choice is far beyond its tolerance."""
    assert apart(summed(one), exact(other)) > 1e-2


@pytest.mark.parametrize(
    ("weight", "changed"),
    [
        (theory.weight("decoupled", update=CAPPED), {"old_theta": None}),
        (theory.weight("decoupled", update=CAPPED, anchor="lag"), {"lag": 1}),
    ],
    ids=["old", "lag"],
)
def test_what_a_weight_needs_beside_ratios_is_looked_at(weight, changed):
    """Negative control: with another old policy or another lag the gradient is another one."""
    estimator = theory.Estimator(weight, "target_advantage")
    assert apart(summed(estimator, BEHAVIOUR._replace(**changed)), exact(estimator)) > 1e-6


def test_a_coefficient_beyond_float64_weighs_nothing_where_the_signal_is_zero():
    far = Behaviour(THETA)
    behaviour = torch.full_like(ROLLOUT.behaviour_log_probs, -800.0)
    rollout = Rollout(ROLLOUT.answers, ROLLOUT.mask, behaviour, None)
    zero = theory.Estimator("token", theory.group(len(CHANCE), centre="mean", scale="none"))
    nothing = ArithmeticTask("modular_addition", digits=1, modulus=7, slack=1)
    wrong = torch.tensor([[9, 9, 9]]).expand(len(CHANCE), -1)
    same = Rollout(wrong, torch.ones_like(rollout.mask), behaviour, None)
    found = batch_gradient(CONFIG, THETA, nothing, zero, PROMPT, same, far)
    assert not torch.isfinite(found.coefficients).all()
    assert float(found.gradient.abs().max()) == 0.0
    # Negative control: with a signal it is no number, and is not made one.
    paid = theory.Estimator("token", theory.signal("outcome", baseline=1.0))
    assert not torch.isfinite(batch_gradient(CONFIG, THETA, nothing, paid, PROMPT, same, far).gradient).all()
