"""Lesson 9, auditing a loss: answers are losses, and an audit says whether they are what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import testbed
from testbed.lessons.checking import Comparison, Exercise, word


def _is(expected: str, reduction: str, hint: str) -> Comparison:
    """The objection to a loss that is not this weight with this reduction."""

    def compare(answer: Any, solution: Callable[[], Any]) -> str:
        if not callable(answer):
            return "the answer is a function loss(logp, old_logp, advantages, mask)"
        found = testbed.audit(answer, expect=expected, reduction=reduction)
        if found.faults:
            return found.faults[0].sentence
        # A loss that reads a masked token as one of ratio 1 has done what the hint asks for, where no mask has holes.
        for finding in found.findings:
            if finding.identifier == "differs_with_holes":
                return f"{finding.sentence}; a masked token has no ratio: it takes no part, as +inf would in a minimum"
        return "" if found.holds(expected, reduction) else hint

    return compare


def _minpro() -> Callable[..., Any]:
    # PyTorch is imported by those who do this lesson.
    from testbed.auditing import examples

    return examples.minpro


def _gspo(logp: Any, old_logp: Any, advantages: Any, mask: Any) -> Any:
    """GSPO as published: one ratio per sequence, the geometric mean of its tokens'; PPO's minimum; mean over sequences.

    The gradient of the ratio in each log-probability carries 1/L by itself.
    """
    length = mask.sum(1).clamp(min=1.0)
    ratio = (((logp - old_logp) * mask).sum(1) / length).exp()
    advantage = (advantages * mask).sum(1) / length
    return -(ratio * advantage).minimum(ratio.clamp(0.8, 1.2) * advantage).mean()


@cache
def _first_fault() -> str:
    import torch

    def upside_down(logp: Any, old_logp: Any, advantages: Any, mask: Any) -> Any:
        return -(torch.exp(old_logp - logp).detach() * advantages * logp * mask).sum() / mask.sum()

    return str(testbed.audit(upside_down).faults[0].identifier)


EXERCISES = (
    Exercise(
        "9.1",
        "A loss that is MinPRO without a clip, summed over the tokens and averaged over the sequences.",
        _minpro,
        _is("minpro", "sequence_mean", "the minimum is over strictly earlier tokens, 1 where there is none"),
    ),
    Exercise(
        "9.2",
        "A loss that is GSPO as published, with clip=(0.8, 1.2): one ratio per sequence, PPO's minimum, mean over "
        "sequences; its gradient carries 1/L by itself, do not divide again.",
        lambda: _gspo,
        _is(
            "gspo(clip=(0.8, 1.2))",
            "length_mean",
            "one ratio per sequence, the geometric mean of its tokens'; PPO's minimum; then a mean over sequences",
        ),
    ),
    Exercise(
        "9.3",
        "The identifier of the first fault that an audit finds in the loss with mu / pi for pi / mu.",
        _first_fault,
        word("testbed.audit(loss).faults[0].identifier"),
    ),
)
