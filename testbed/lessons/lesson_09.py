"""Lesson 9, auditing a loss: answers are losses, and an audit says whether they are what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import testbed
from testbed.lessons.checking import Exercise, word


def _is(expected: str, reduction: str, hint: str) -> Callable[[Any], str]:
    """The objection to a loss that is not this weight with this reduction."""

    def objection(answer: Any) -> str:
        if not callable(answer):
            return "the answer is a function loss(logp, old_logp, advantages, mask)"
        found = testbed.audit(answer, expect=expected, reduction=reduction)
        if found.faults:
            return found.faults[0].sentence
        return "" if found.holds(expected, reduction) else hint

    return objection


@cache
def _first_fault() -> str:
    # PyTorch is imported by those who do this lesson.
    import torch

    def upside_down(logp: Any, old_logp: Any, advantages: Any, mask: Any) -> Any:
        return -(torch.exp(old_logp - logp).detach() * advantages * logp * mask).sum() / mask.sum()

    return str(testbed.audit(upside_down).faults[0].identifier)


EXERCISES = (
    Exercise(
        "9.1",
        "A loss that is MinPRO without a clip, summed over the tokens and averaged over the sequences.",
        _is("minpro", "sequence_mean", "the minimum is over strictly earlier tokens, 1 where there is none"),
    ),
    Exercise(
        "9.2",
        "A loss that is GSPO with clip=(0.8, 1.2), each sequence divided by its length.",
        _is(
            "gspo(clip=(0.8, 1.2))",
            "length_mean",
            "one ratio per sequence, the geometric mean of its tokens'; PPO's minimum; then a mean over sequences",
        ),
    ),
    Exercise(
        "9.3",
        "The identifier of the first fault that an audit finds in the loss with mu / pi for pi / mu.",
        word(_first_fault, "testbed.audit(loss).faults[0].identifier"),
    ),
)
