"""What is no network, no prompt or no number is refused in one sentence, and never answered with numbers."""

import re

import numpy as np
import pytest
import torch

from testbed import arithmetic
from testbed.arithmetic import (
    ArithmeticTask,
    ModelConfig,
    Sampler,
    WarmUp,
    accuracy,
    all_prompts,
    answer_logits,
    answer_tree,
    base_model,
    behaviour_log_probs,
    chosen,
    decode,
    decode_step,
    encode,
    evaluate,
    flop_count,
    initial_parameters,
    logits,
    model_for,
    network_divergences,
    network_prompt,
    network_values,
    parameter_count,
    prefill,
    prefix_states,
    sample_answers,
    score_products,
    split,
    tree_logits,
    tree_rewards,
    warm_up,
)
from testbed.arithmetic.rollout import roll_out
from testbed.arithmetic.sampling import sampler_log_probs

TASK = ArithmeticTask(digits=1)
CONFIG = model_for(TASK, layers=1, width=8)
THETA = initial_parameters(CONFIG, 0, torch.float64)
NAN = THETA.clone()
NAN[7] = torch.nan
PROMPTS = all_prompts(TASK)[:2]
WIDE = ModelConfig(context=8, layers=1, width=8, outputs=14)
WIDE_THETA = initial_parameters(WIDE, 0)
# Logits beyond float16, of finite parameters.
HUGE = 1e5 * THETA
GREEDY = Sampler(temperature=0.0)


def sample(theta=THETA, prompts=PROMPTS, length=3, *, sampler=None, generator=True, **options):
    generator = torch.Generator().manual_seed(0) if generator is True else generator
    sampler = Sampler() if sampler is None else sampler
    return sample_answers(CONFIG, theta, prompts, length, sampler=sampler, generator=generator, **options)


NOT_A_NUMBER = {
    "sampled": lambda: sample(NAN),
    "greedy": lambda: sample(NAN, sampler=GREEDY),
    "truncated": lambda: sample(NAN, sampler=Sampler(top_k=2)),
    "infinite": lambda: sample(THETA / 0.0),
    "evaluated": lambda: evaluate(CONFIG, NAN, TASK, PROMPTS),
    "evaluated greedily": lambda: evaluate(CONFIG, NAN, TASK, PROMPTS, GREEDY),
    "values": lambda: network_values(CONFIG, NAN, TASK, PROMPTS),
    "divergences": lambda: network_divergences(CONFIG, NAN, TASK, PROMPTS),
    "divergences from": lambda: network_divergences(CONFIG, THETA, TASK, PROMPTS, behaviour_theta=NAN),
    "accuracy": lambda: accuracy(TASK, CONFIG, NAN, PROMPTS),
    "pair": lambda: network_prompt(CONFIG, NAN, TASK, PROMPTS[0]),
    "pair with": lambda: network_prompt(CONFIG, THETA, TASK, PROMPTS[0], behaviour_theta=NAN),
    "pair and": lambda: network_prompt(CONFIG, THETA, TASK, PROMPTS[0], old_theta=NAN),
}
BEYOND = {
    "sampled": lambda s: sample(HUGE, sampler=s),
    "evaluated": lambda s: evaluate(CONFIG, HUGE, TASK, PROMPTS, s),
    "values": lambda s: network_values(CONFIG, HUGE, TASK, PROMPTS, sampler=s),
    "divergences": lambda s: network_divergences(CONFIG, HUGE, TASK, PROMPTS, sampler=s),
}


@pytest.mark.parametrize("name", NOT_A_NUMBER)
def test_parameters_that_are_not_numbers_are_refused(name):
    with pytest.raises(ValueError, match=r"theta is (nan|-?inf) at index \d+; expected finite numbers"):
        NOT_A_NUMBER[name]()


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("sampler", [Sampler(logits="fp16"), Sampler(temperature=1e-320)], ids=["rounded", "tempered"])
def test_so_are_finite_ones_whose_logits_a_sampler_makes_something_else(name, sampler):
    with pytest.raises(ValueError, match=r"the policy.* is not a number"):
        BEYOND[name](sampler)
    # The control: as they are the logits are numbers.
    BEYOND[name](Sampler())


def test_networks_whose_logits_are_not_numbers_are_refused():
    theta = 1e38 * THETA.float()
    assert theta.isfinite().all()
    for call in (
        lambda: sample(theta), lambda: sample(theta, sampler=GREEDY), lambda: accuracy(TASK, CONFIG, theta, PROMPTS),
        lambda: evaluate(CONFIG, theta, TASK, PROMPTS, GREEDY), lambda: evaluate(CONFIG, theta, TASK, PROMPTS),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"the policy.* is not a number"):
            call()


def test_samplers_refuse_logits_that_are_not_numbers():
    for row in ([torch.nan, 1.0], [torch.inf, 1.0], [-torch.inf, -torch.inf]):
        for sampler in (Sampler(), GREEDY, Sampler(top_p=0.9), Sampler(top_k=1)):
            with pytest.raises(ValueError, match=r"logits are .*; expected finite ones, or -inf"):
                behaviour_log_probs(sampler, torch.tensor([[0.0, 0.0], row]))
    with pytest.raises(ValueError, match=r"logits are \[70000.0, 1.0\] and not numbers as Sampler.*fp16"):
        behaviour_log_probs(Sampler(logits="fp16"), torch.tensor([7e4, 1.0]))
    with pytest.raises(ValueError, match="and not numbers as"):
        behaviour_log_probs(Sampler(temperature=1e-320), torch.tensor([7.0, 1.0]))
    # The control: a token that cannot be is no fault, and what is let in is what is computed inside.
    row = torch.tensor([0.3, -torch.inf, 1.2])
    for sampler in (Sampler(), GREEDY, Sampler(top_p=0.9), Sampler(temperature=2.0, logits="bf16")):
        assert torch.equal(behaviour_log_probs(sampler, row), sampler_log_probs(sampler, row))


def test_tokens_are_chosen_by_numbers_alone():
    with pytest.raises(ValueError, match="log_probs contain NaN"):
        chosen(torch.full((1, 3), torch.nan), torch.tensor([0.5]))
    for number in (1.0, -0.1, torch.nan):
        with pytest.raises(ValueError, match=r"uniform has a number outside of \[0, 1\)"):
            chosen(torch.zeros(1, 3), torch.tensor([number]))


@pytest.mark.parametrize(
    "sampler", [Sampler(), GREEDY, Sampler(top_k=3, logits="bf16")], ids=["plain", "greedy", "few"]
)
def test_inside_what_is_not_a_number_passes_on_as_such(sampler):
    """A training run ends with it, and says so."""
    drawn = roll_out(CONFIG, NAN, PROMPTS, 3, sampler=sampler, generator=torch.Generator().manual_seed(0))
    assert drawn.behaviour_log_probs[drawn.mask].isnan().all()
    assert drawn.policy_log_probs[drawn.mask].isnan().all()
    one, other = (
        f(CONFIG, THETA, PROMPTS, 3, sampler=sampler, generator=torch.Generator().manual_seed(0))
        for f in (sample_answers, roll_out)
    )
    assert torch.equal(one.answers, other.answers)
    assert torch.equal(one.behaviour_log_probs, other.behaviour_log_probs)


REFUSED = {
    "a prompt of floats": (lambda: sample(prompts=PROMPTS.double()), "prompts has dtype torch.float64; expected"),
    "a prompt of NumPy": (lambda: sample(prompts=PROMPTS.numpy()), "prompts is a ndarray; expected (M, L) whole"),
    "a token too high": (lambda: sample(prompts=PROMPTS + 77), "prompts contain token 77; expected tokens from 0"),
    "a token too low": (lambda: sample(prompts=PROMPTS - 2), "prompts contain token -2"),
    "no prompt": (lambda: sample(prompts=PROMPTS[:0]), "prompts is empty; expected at least one prompt"),
    "three axes": (lambda: sample(prompts=PROMPTS[None]), "prompts has shape (1, 2, 4); expected (M, L), or (L,)"),
    "a length of 2.5": (lambda: sample(length=2.5), "length is 2.5; expected a whole number of tokens, at least 1"),
    "no length": (lambda: sample(length=0), "length is 0; expected a whole number of tokens, at least 1"),
    "no answer": (lambda: sample(per_prompt=0), "per_prompt is 0; expected a whole number of answers to each prompt"),
    "a seed": (lambda: sample(generator=0), "generator is 0; expected a torch.Generator"),
    "no generator": (lambda: sample(generator=None), "generator is None; expected a torch.Generator"),
    "a seed of greedy answers": (lambda: sample(generator=0, sampler=GREEDY), "generator is 0; expected"),
    "a sampler's name": (lambda: sample(sampler="greedy"), "sampler is 'greedy'; expected a Sampler"),
    "an evaluation's": (lambda: evaluate(CONFIG, THETA, TASK, PROMPTS, "greedy"), "sampler is 'greedy'; expected a"),
    "a pair's": (lambda: network_prompt(CONFIG, THETA, TASK, PROMPTS[0], sampler="x"), "sampler is 'x'; expected a"),
    "that of logits": (lambda: behaviour_log_probs("greedy", torch.zeros(2)), "sampler is 'greedy'; expected"),
    "logits of a list": (lambda: logits(CONFIG, [1.0], PROMPTS), "theta is a list; expected a torch.Tensor of shape"),
    "theta as a list": (lambda: sample([1.0]), "theta is a list; expected a torch.Tensor"),
    "theta of another network": (lambda: sample(THETA[:9]), "theta has shape (9,); expected a torch.Tensor of"),
    "accuracy on nothing": (lambda: accuracy(TASK, CONFIG, THETA, PROMPTS[:0]), "prompts is empty"),
    "a chunk of nothing": (lambda: accuracy(TASK, CONFIG, THETA, PROMPTS, chunk=0), "chunk is 0; expected a whole"),
    "accuracy of other tokens": (lambda: accuracy(TASK, WIDE, WIDE_THETA, PROMPTS), "outputs is 14; expected 11"),
    "an evaluation of nothing": (lambda: evaluate(CONFIG, THETA, TASK, PROMPTS[:0]), "prompts is empty"),
    "one of other tokens": (lambda: evaluate(WIDE, WIDE_THETA, TASK, PROMPTS), "outputs is 14; expected 11"),
    "one of another task": (lambda: evaluate(CONFIG, THETA, ArithmeticTask(), PROMPTS), "prompts have 4 tokens"),
    "one of another operation": (
        lambda: evaluate(CONFIG, THETA, ArithmeticTask("multiplication", digits=1), PROMPTS),
        "a prompt is '0+0='; expected 'd*d=' with digits d and operands from 0 to 9",
    ),
    "a pair of other tokens": (lambda: network_prompt(WIDE, WIDE_THETA, TASK, PROMPTS[0]), "outputs is 14"),
    "a pair of two prompts": (
        lambda: network_prompt(CONFIG, THETA, TASK, PROMPTS), "prompt has shape (2, 4); expected one prompt"
    ),
    "a tree of two prompts": (lambda: answer_tree(TASK, PROMPTS), "prompt has shape (2, 4); expected one prompt"),
    "a table of another tree": (
        lambda: answer_tree(TASK, PROMPTS[0]).policy(torch.zeros(3, 11)), "logits have shape (3, 11); expected (111"
    ),
    "scores of two prompts": (
        lambda: score_products(CONFIG, THETA, TASK, PROMPTS), "prompt has shape (2, 4); expected one prompt"
    ),
    "scores of other tokens": (
        lambda: score_products(WIDE, WIDE_THETA, TASK, PROMPTS[0]), "outputs is 14; expected 11"
    ),
    "logits of nothing": (lambda: logits(CONFIG, THETA, PROMPTS[:, :0]), "tokens has shape (2, 0); expected (M, L)"),
    "answers to nothing": (
        lambda: answer_logits(CONFIG, THETA, PROMPTS[:0], PROMPTS[:, :3]), "answers has 2 rows; expected a multiple of"
    ),
    "no answers": (
        lambda: answer_logits(CONFIG, THETA, PROMPTS, PROMPTS[:0, :3]), "answers has 0 rows; expected a multiple of"
    ),
    "room for less than nothing": (lambda: prefill(CONFIG, THETA, PROMPTS, -1), "room is -1; expected a whole number"),
    "room for no answer": (lambda: prefill(CONFIG, THETA, PROMPTS, 1, 0), "answers is 0; expected a whole number"),
    "a token too few": (
        lambda: decode_step(CONFIG, prefill(CONFIG, THETA, PROMPTS, 2, 3)[1], encode("123")),
        "tokens has shape (3,); expected (6,), one for each answer",
    ),
    "a share of an answer": (lambda: flop_count(CONFIG, 7, 4, 3, 2), "batch is 7 with per_prompt=2; expected"),
    "a prefix of floats": (lambda: prefix_states(torch.zeros(2, 3)), "answers has dtype torch.float32; expected"),
    "two rows as one text": (lambda: decode(PROMPTS), "tokens has shape (2, 4); expected one row (L,)"),
    "a number without a character": (lambda: decode(torch.tensor([99])), "tokens contain 99; expected whole"),
    "a text that is none": (lambda: encode(None), "text is None; expected a str"),
    "a split of a name": (lambda: split("addition"), "task is 'addition'; expected an ArithmeticTask"),
    "a share that is none": (lambda: split(TASK, "x"), "share is 'x'; expected a number strictly between 0 and 1"),
    "a width in words": (lambda: ModelConfig(8, width="64"), "width is '64'; expected a whole number"),
    "a width and a half": (lambda: ModelConfig(8, width=64.5), "width is 64.5; expected a whole number"),
    "a seed in words": (lambda: WarmUp(seed="a"), "seed is 'a'; expected a whole number"),
    "no learning": (lambda: WarmUp(learning_rate=0), "learning_rate is 0; expected a positive number"),
    "a mark in words": (lambda: WarmUp(accuracy="high"), "accuracy is 'high'; expected a number strictly between"),
    "a warm-up of other tokens": (lambda: warm_up(TASK, WIDE), "outputs is 14; expected 11"),
    "a warm-up beyond numbers": (
        lambda: warm_up(TASK, CONFIG, WarmUp(learning_rate=1e38, warmup_steps=1)),
        "the network is not a number after 5 steps of warm-up with learning_rate=1e+38; expected a smaller one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused_in_a_sentence(name):
    call, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()


def test_whole_numbers_of_any_kind_are_kept_as_ints(tmp_path):
    config = ModelConfig(context=6.0, layers=np.int64(1), width=8.0)
    assert config == ModelConfig(context=6, layers=1, width=8)
    assert parameter_count(config) == len(initial_parameters(config, 0))
    task = ArithmeticTask("modular_addition", np.int64(1), modulus=3.0, slack=0.0)
    settings = WarmUp(0.3, "training", steps=300.0, batch=np.int64(32), check_every=1.0, seed=0.0)
    kept = [getattr(config, name) for name in ("context", "layers", "width")]
    kept += [task.digits, task.modulus, task.slack, settings.steps, settings.batch, settings.seed]
    assert {type(value) for value in kept} == {int}
    assert type(Sampler(top_k=3.0).top_k) is int
    assert base_model(task, config, settings, folder=str(tmp_path)).steps <= 300
    assert len([*tmp_path.iterdir()]) == 1


def test_a_single_prompt_is_a_row_of_one():
    one, row = PROMPTS[1], PROMPTS[1:]
    for call in (
        lambda p: sample(prompts=p).answers,
        lambda p: tree_logits(CONFIG, THETA, TASK, p),
        lambda p: tree_rewards(TASK, p),
        lambda p: network_values(CONFIG, THETA, TASK, p).state,
        lambda p: network_divergences(CONFIG, THETA, TASK, p, sampler=GREEDY).lost_mass,
        lambda p: answer_logits(CONFIG, THETA, p, PROMPTS[:, :3]),
        lambda p: prefill(CONFIG, THETA, p, 1)[0],
    ):
        assert torch.equal(call(one), call(row))
    assert evaluate(CONFIG, THETA, TASK, one) == evaluate(CONFIG, THETA, TASK, row)
    assert accuracy(TASK, CONFIG, THETA, one) == accuracy(TASK, CONFIG, THETA, row)


def test_what_is_public_is_what_refuses():
    assert arithmetic.sample_answers is not roll_out
    assert arithmetic.behaviour_log_probs is not sampler_log_probs
