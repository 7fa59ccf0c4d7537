"""Prompts, answers, the verifier and the split, against Python's own arithmetic and a regular expression."""

import hashlib
import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import testbed
from testbed.arithmetic.splitting import split
from testbed.arithmetic.task import ArithmeticTask, all_prompts, operands_of, prompts_of, right_answers
from testbed.arithmetic.verifier import parsed, rewards
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, END, SYMBOLS, decode, encode

TASKS = [
    ArithmeticTask(),
    ArithmeticTask(reversed_answers=True, slack=2),
    ArithmeticTask("modular_addition", modulus=97),
    ArithmeticTask("multiplication", reversed_answers=True),
    ArithmeticTask("multiplication", digits=1, slack=1),
]


def plain_parsed(text, reversed_answers):
    """What a row of text writes, by a regular expression."""
    body, end, _ = text.partition("$")
    if reversed_answers:
        body = body[::-1]
    return int(body) if end and re.fullmatch(r"0|[1-9][0-9]*", body) else -1


def plain_result(task, first, second):
    total = first * second if task.operation == "multiplication" else first + second
    return total if task.modulus is None else total % task.modulus


def plain_reward(task, first, second, text):
    right, given_ = plain_result(task, first, second), plain_parsed(text, task.reversed_answers)
    if given_ == -1 or not task.per_digit_credit:
        return float(given_ == right)
    ours, theirs = str(right)[::-1], str(given_)[::-1]
    places = itertools.zip_longest(ours, theirs)
    return sum(a == b for a, b in places) / max(len(ours), len(theirs))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_prompts_and_right_answers_are_what_python_writes(task):
    prompts = all_prompts(task)
    assert prompts.shape == (task.operands**2, task.prompt_length)
    answers, symbol = right_answers(task, prompts), "*" if task.operation == "multiplication" else "+"
    longest = 0
    for i in range(0, len(prompts), 7):
        first, second = divmod(i, task.operands)
        assert decode(prompts[i]) == f"{first:0{task.digits}}{symbol}{second:0{task.digits}}="
        written = str(plain_result(task, first, second))
        written = (written[::-1] if task.reversed_answers else written) + "$"
        longest = max(longest, len(written))
        assert decode(answers[i]) == written.ljust(task.maximum_length, "$")
    first, second = operands_of(task, prompts)
    assert torch.equal(first * task.operands + second, torch.arange(len(prompts)))
    assert longest <= task.maximum_length - task.slack
    assert int((answers != END).sum(1).max()) + 1 == task.maximum_length - task.slack  # and the bound is attained
    assert torch.equal(rewards(task, prompts, answers), torch.ones(len(prompts), dtype=torch.float64))


@given(st.text(alphabet=SYMBOLS, min_size=1, max_size=6), st.booleans())
def test_the_parser_agrees_with_a_regular_expression(text, reversed_answers):
    task = ArithmeticTask(slack=2, reversed_answers=reversed_answers)
    assert int(parsed(task, encode(text))) == plain_parsed(text, reversed_answers)


@given(st.lists(st.integers(0, ANSWER_TOKENS - 1), min_size=1, max_size=6), st.booleans())
def test_the_parser_agrees_on_what_a_policy_can_write(tokens, reversed_answers):
    task = ArithmeticTask(slack=2, reversed_answers=reversed_answers)
    row = torch.tensor(tokens)
    assert int(parsed(task, row)) == plain_parsed(decode(row), reversed_answers)


@given(st.integers(0, 10**5 - 1), st.booleans())
def test_every_number_has_exactly_one_spelling(number, reversed_answers):
    task = ArithmeticTask(slack=2, reversed_answers=reversed_answers)
    written = str(number)[::-1] if reversed_answers else str(number)
    assert int(parsed(task, encode(written + "$"))) == number
    padded = written + "0" if reversed_answers else "0" + written
    for malformed in (written, padded + "$", written + "+$", "$", "$" + written + "$", "=" + written + "$"):
        if len(malformed) <= task.maximum_length:
            assert int(parsed(task, encode(malformed))) == -1
    if len(written) < 5:
        assert int(parsed(task, encode(written + "$7"))) == number  # what follows the end does not count


@given(st.data(), st.sampled_from(TASKS), st.booleans())
def test_rewards_agree_with_the_plain_twin(data, task, credit):
    task = ArithmeticTask(**{**task.__dict__, "per_digit_credit": credit})
    first, second = (data.draw(st.integers(0, task.operands - 1)) for _ in range(2))
    prompt = all_prompts(task)[first * task.operands + second]
    right = decode(right_answers(task, prompt[None])[0])
    # Near misses, so that positive rewards are met.
    cut, tail = data.draw(st.integers(0, len(right))), data.draw(st.text("0123456789$", max_size=len(right)))
    text = (right[:cut] + tail)[: task.maximum_length] or "$"
    found = float(rewards(task, prompt, encode(text)))
    assert found == pytest.approx(plain_reward(task, first, second, text), abs=1e-15)


def test_credit_counts_places_from_the_lowest():
    task = ArithmeticTask(per_digit_credit=True)
    texts = ["42$$", "43$$", "142$", "2$$$", "24$$", "042$", "42"]
    found = [float(rewards(task, encode("07+35="), encode(text))) for text in texts]
    np.testing.assert_allclose(found, [1, 1 / 2, 2 / 3, 1 / 2, 0, 0, 0])


# Prompts that read like some task's, and are none of this one's.
STRANGE = [
    (ArithmeticTask(), "07*35=", "dd+dd=", 99), (ArithmeticTask(), "07$350", "dd+dd=", 99),
    (ArithmeticTask(), "07+350", "dd+dd=", 99),
    (ArithmeticTask(), "0735+=", "dd+dd=", 99), (ArithmeticTask("multiplication"), "07+35=", "dd*dd=", 99),
    (ArithmeticTask("modular_addition", modulus=7), "99+99=", "dd+dd=", 6),
    (ArithmeticTask("modular_addition", modulus=7), "03+07=", "dd+dd=", 6),
]  # fmt: skip


@pytest.mark.parametrize(("task", "text", "form", "most"), STRANGE)
def test_prompts_of_another_task_are_neither_paid_nor_graded(task, text, form, most):
    sentence = re.escape(f"a prompt is '{text}'; expected '{form}' with digits d and operands from 0 to {most}")
    own, strange = all_prompts(task)[:3], encode(text)
    for call in (
        lambda p: operands_of(task, p), lambda p: right_answers(task, p), lambda p: rewards(task, p, encode("2$"))
    ):  # fmt: skip
        with pytest.raises(ValueError, match=sentence):
            call(torch.cat([own, strange[None]]))
        call(own)  # the control


def test_operands_and_tokens_of_another_kind_are_refused():
    task, one = ArithmeticTask(), torch.tensor([1])
    for first, second, sentence in (
        (torch.tensor([735]), one, "first contains 735; expected operands from 0 to 99"),
        (one, torch.tensor([-3]), "second contains -3; expected operands from 0 to 99"),
        (one, torch.tensor([1, 2]), "first has shape (1,) and second (2,); expected (N,) of both"),
        (one[0], one[0], "first has shape () and second (); expected (N,) of both"),
        (one.double(), one, "first has dtype torch.float64; expected (N,) whole numbers"),
        (7, 35, "first is 7; expected (N,) whole numbers"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            prompts_of(task, first, second)
    with pytest.raises(ValueError, match="operands from 0 to 6"):
        prompts_of(ArithmeticTask("modular_addition", modulus=7), one, torch.tensor([7]))
    prompt, answer = encode("07+35="), encode("42$$")
    for call, sentence in (
        (lambda: operands_of(task, prompt.float()), "prompts has dtype torch.float32; expected"),
        (lambda: operands_of(task, prompt[0]), "prompts have no axis; expected 6"),
        (lambda: rewards(task, prompt, answer.float()), "answers has dtype torch.float32; expected"),
        (lambda: rewards(task, prompt, answer.bool()), "answers has dtype torch.bool; expected"),
        (lambda: rewards(task, prompt, answer[:0]), "answers have 0 tokens; expected at least 1 and at most 4"),
        (lambda: parsed(task, "42$"), "answers is '42$'; expected (..., T) whole numbers"),
        (lambda: rewards(task, prompt.expand(3, -1), answer.expand(2, -1)), "there are (3,) prompts and (2,) answers"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            call()
    # The control: integers of other sizes are tokens all the same.
    assert float(rewards(task, prompt.to(torch.int32), answer.to(torch.uint8))) == 1.0
    assert torch.equal(prompts_of(task, one.to(torch.uint8), one.to(torch.int16)), encode("01+01=")[None])


def test_right_answers_keep_leading_axes():
    task = ArithmeticTask(reversed_answers=True)
    prompts = all_prompts(task)[:60]
    table = right_answers(task, prompts.unflatten(0, (3, 4, 5)))
    assert torch.equal(table.flatten(0, 2), right_answers(task, prompts))
    assert torch.equal(right_answers(task, prompts[7]), table[0, 1, 2])


def test_who_changes_a_split_changes_it_for_nobody_else():
    task = ArithmeticTask(digits=1)
    before = split(task).held_out
    changed = split(task)
    changed.held_out[0] += 1
    changed.training.zero_()
    assert torch.equal(split(task).held_out, before)
    assert not torch.equal(changed.held_out, before)
    assert split(task).training.any()


def test_leading_axes_of_rewards_broadcast_to_a_table():
    task = ArithmeticTask(digits=1)
    prompts, answers = all_prompts(task)[:30], right_answers(task, all_prompts(task))
    table = rewards(task, prompts[:, None], answers)
    assert table.shape == (30, 100)
    for m in range(30):
        assert torch.equal(table[m], rewards(task, prompts[m].expand(100, -1), answers))


def _automaton_rewards(answers):
    """(100, K) terminal reward of walking the tabular process from each prompt through each row of tokens."""
    process = testbed.environment("digit_addition", digits=1, base=10).process
    successor = process.transition.argmax(axis=2)
    state = np.repeat(np.arange(100)[:, None], len(answers), 1)
    assert np.all(process.initial[:100] == 0.01)
    for t in range(process.horizon):
        state = np.where(process.absorbing[state], state, successor[state, answers[None, :, t]])
    return process, np.asarray(process.terminal_reward)[state]


def test_one_digit_addition_is_the_carry_automaton():
    answers = np.array(list(itertools.product(range(ANSWER_TOKENS), repeat=3)))
    process, walked = _automaton_rewards(answers)
    task = ArithmeticTask(digits=1, reversed_answers=True)
    assert (process.actions, process.horizon) == (ANSWER_TOKENS, task.maximum_length)
    prompts, rows = all_prompts(task), torch.from_numpy(answers)
    ours = rewards(task, prompts[:, None], rows).numpy()
    np.testing.assert_array_equal(ours, walked)
    assert (walked.sum(1) >= 1).all()
    for m, right in enumerate(right_answers(task, prompts)):
        rewarded = {decode(row).partition("$")[0] for row in rows[walked[m] > 0]}
        assert rewarded == {decode(right).partition("$")[0]}
    # The control: highest digit first is another task.
    other = rewards(ArithmeticTask(digits=1), prompts[:, None], rows).numpy()
    assert (other != walked).any()


def test_the_split_leaves_no_pair_on_both_sides_and_nothing_out():
    task = ArithmeticTask()
    sides = split(task)
    pairs = [
        {tuple(sorted(p)) for p in zip(*(x.tolist() for x in operands_of(task, rows)), strict=True)}
        for rows in (sides.training, sides.held_out)
    ]
    assert not pairs[0] & pairs[1]
    assert len(pairs[0] | pairs[1]) == 100 * 101 // 2
    assert len(pairs[1]) == round(0.2 * 5050)
    assert len(torch.cat([sides.training, sides.held_out]).unique(dim=0)) == 10_000
    # Held out are those whose text has the lowest SHA-256.
    digest = {p: hashlib.sha256(f"addition None {p[0]} {p[1]}".encode()).hexdigest() for p in pairs[0] | pairs[1]}
    assert max(digest[p] for p in pairs[1]) < min(digest[p] for p in pairs[0])


def test_the_split_is_the_same_in_another_process_and_for_other_rewards():
    code = (
        "from testbed.arithmetic.splitting import split; from testbed.arithmetic.task import ArithmeticTask; "
        "print(split(ArithmeticTask(reversed_answers=True, per_digit_credit=True)).held_out[::100].tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(split(ArithmeticTask()).held_out[::100].tolist())
    elsewhere = split(ArithmeticTask("modular_addition", modulus=100)).held_out[::100].tolist()
    assert str(elsewhere) != other.strip()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"operation": "adition"}, "nearest known name is 'addition'"),
        ({"digits": 0}, "digits is 0; expected a whole number from 1 to 3"),
        ({"digits": True}, "digits is True"),
        ({"modulus": 7}, "modulus of addition is 7; expected None"),
        ({"operation": "modular_addition"}, "modulus of modular_addition is None; expected a modulus"),
        ({"operation": "modular_addition", "modulus": 101}, "modulus is 101; expected a whole number from 2 to 100"),
        ({"reversed_answers": 1}, "reversed_answers is 1"),
        ({"slack": -1}, "slack is -1"),
        ({"slack": 15}, "slack is 15; expected a whole number from 0 to 14"),
        ({"slack": 1.5}, "slack is 1.5; expected a whole number from 0 to 14"),
        ({"digits": "2"}, "digits is '2'; expected a whole number from 1 to 3"),
    ],
)
def test_tasks_without_meaning_are_refused(options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ArithmeticTask(**options)


def test_rows_of_another_shape_are_refused():
    task = ArithmeticTask()
    with pytest.raises(ValueError, match="prompts have 5 tokens; expected 6"):
        rewards(task, encode("7+35="), encode("42$"))
    with pytest.raises(ValueError, match=r"a prompt is '\+7\+35='; expected 'dd\+dd='"):
        rewards(task, encode("+7+35="), encode("42$"))
    with pytest.raises(ValueError, match="answers have 5 tokens; expected at least 1 and at most 4"):
        parsed(task, encode("42$$$"))
    with pytest.raises(ValueError, match="share is 1"):
        split(task, 1.0)
    with pytest.raises(ValueError, match="contains 'x'"):
        encode("7x5=")
