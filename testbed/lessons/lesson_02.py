"""Lesson 2, importance ratios: what each is unbiased for, and what it costs."""

from __future__ import annotations

import itertools

import testbed
import theory
from testbed import drift
from testbed.lessons.checking import Exercise, count, number

Case = tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]


def _tiny() -> Case:
    made = testbed.environment("two_token_counterexample", epsilon=0.2)
    assert made.behaviour is not None
    return made.process, made.target, made.behaviour


def _bias_of_first_token() -> float:
    return float(theory.moments(*_tiny(), theory.Estimator("prefix", "outcome")).bias[1])


def _saving() -> float:
    made = testbed.environment("chain")
    pair = drift.at("staleness", made.process, made.target, kl=0.1)
    case = (made.process, pair.target, pair.behaviour)
    whole = theory.moments(*case, theory.Estimator("sequence", "outcome"))
    per_decision = theory.moments(*case, theory.Estimator("prefix", "reward", score="cumulative"))
    return whole.variance / per_decision.variance


def _effective_sample_size(horizon: int) -> float:
    made = testbed.environment("parity", horizon=horizon)
    pair = drift.at("noise", made.process, made.target, kl=0.1)
    return theory.divergences(made.process, pair.target, pair.behaviour).sequence.effective_sample_size


def _horizon() -> int:
    return next(horizon for horizon in itertools.count(1) if _effective_sample_size(horizon) < 0.2)


EXERCISES = (
    Exercise(
        "2.1",
        "In the two-token counterexample with epsilon 0.2: the bias of prefix x outcome in the logit of A_1 = 1.",
        _bias_of_first_token,
        number("the bias is the mean less the truth, and the two have opposite signs here"),
    ),
    Exercise(
        "2.2",
        "The effective sample size 1 / E[W^2] of the sequence ratio in the same example.",
        lambda: theory.divergences(*_tiny()).sequence.effective_sample_size,
        number("W is the ratio of the second token: write down its two values and how likely mu makes each"),
    ),
    Exercise(
        "2.3",
        "In chain with staleness drift at KL 0.1: the variance of sequence x outcome over that of prefix x reward x "
        "cumulative score.",
        _saving,
        number("both are unbiased there; drift.at('staleness', ...), and the score is an argument of theory.Estimator"),
    ),
    Exercise(
        "2.4",
        'The smallest horizon of "parity" at which noise drift at 0.1 nats per token leaves the sequence ratio an '
        "effective sample size below 0.2.",
        _horizon,
        count("drift.at for each horizon, then theory.divergences(...).sequence"),
    ),
)
