"""Lesson 2, importance ratios: what each is unbiased for, and what it costs."""

from __future__ import annotations

from itertools import count

import testbed
import theory
from testbed import drift
from testbed.lessons.checking import Exercise, number, word

Case = tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]


def _tiny() -> Case:
    made = testbed.environment("two_token_counterexample", epsilon=0.2)
    assert made.behaviour is not None
    return made.process, made.target, made.behaviour


def _drifted(name: str, kl: float, **options: int) -> Case:
    made = testbed.environment(name, **options)
    pair = drift.at("noise", made.process, made.target, kl=kl)
    return made.process, pair.target, pair.behaviour


def _bias_of_first_token() -> float:
    return float(theory.moments(*_tiny(), theory.Estimator("prefix", "outcome")).bias[1])


def _unbiased() -> str:
    case = _drifted("token_tree", 0.1, depth=3)
    names = ("none", "token", "prefix", "suffix", "sequence")
    found = [n for n in names if theory.moments(*case, theory.Estimator(n, "reward_to_go")).relative_bias < 1e-10]
    return " ".join(found)


def _horizon() -> float:
    for horizon in count(1):
        if theory.divergences(*_drifted("parity", 0.1, horizon=horizon)).sequence.effective_sample_size < 0.2:
            break
    return float(horizon)


EXERCISES = (
    Exercise(
        "2.1",
        "In the two-token counterexample with epsilon 0.2: the bias of prefix x outcome in the logit of A_1 = 1.",
        number(_bias_of_first_token, "the bias is the mean less the truth, and the two have opposite signs here"),
    ),
    Exercise(
        "2.2",
        "The effective sample size 1 / E[W^2] of the sequence ratio in the same example.",
        number(
            lambda: theory.divergences(*_tiny()).sequence.effective_sample_size,
            "W is the ratio of the second token: write down its two values and how likely mu makes each",
        ),
    ),
    Exercise(
        "2.3",
        "Which of none, token, prefix, suffix, sequence is unbiased with the signal reward_to_go and the own score.",
        word(_unbiased, "the signal depends on the tokens to come, and the score's state on those before"),
    ),
    Exercise(
        "2.4",
        'The smallest horizon of "parity" at which noise drift at 0.1 nats per token leaves the sequence ratio an '
        "effective sample size below 0.2.",
        number(_horizon, "drift.at for each horizon, then theory.divergences(...).sequence"),
    ),
)
