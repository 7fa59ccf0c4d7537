"""Lesson 7, groups: what a mean, a deviation and an average over tokens make of the gradient."""

from __future__ import annotations

import numpy as np

import testbed
import theory
from testbed.lessons.checking import Exercise, count, number

Case = tuple[theory.MarkovProcess, theory.SoftmaxPolicy, theory.SoftmaxPolicy]
SIZES = (2, 4, 8, 16, 32)
BUDGET = 64


def _prompts(*chances: float) -> Case:
    """One token per prompt, right with the chance given; the prompts are equally likely; on policy."""
    n = len(chances)
    successor = np.zeros((n + 2, 2, n + 2))
    successor[:, 0, n] = successor[:, 1, n + 1] = 1.0
    initial, terminal = np.array([1 / n] * n + [0.0, 0.0]), np.eye(n + 2)[n + 1]
    process = theory.MarkovProcess(initial, successor, np.zeros((n + 2, 2)), 1, terminal)
    right = np.array([*chances, 0.5, 0.5])
    policy = theory.SoftmaxPolicy(np.log(np.stack([1 - right, right], axis=1)))
    return process, policy, policy


def _on_policy(case: Case, signal: theory.GroupSignal, reduction: str = "sum") -> theory.Moments:
    return theory.moments(*case, theory.Estimator("none", signal, reduction=reduction))


def _cosine() -> float:
    made = testbed.environment("brackets", horizon=5)
    case = (made.process, made.target, made.target)
    return _on_policy(case, theory.group(4, "leave_one_out", "none"), "length_mean").cosine


def _best_size() -> int:
    def variance(size: int) -> float:
        estimator = theory.Estimator("none", theory.group(size, "leave_one_out", "none"))
        return theory.group_variance(*_prompts(*[0.5] * 6), estimator).batch_variance(BUDGET // size)

    return min(SIZES, key=variance)


EXERCISES = (
    Exercise(
        "7.1",
        "The factor by which Dr.GRPO with groups of 5 shrinks the expected gradient, on policy.",
        lambda: _on_policy(_prompts(0.3), theory.group(5, scale="none")).effective_step,
        number("the own reward is a fifth of the mean"),
    ),
    Exercise(
        "7.2",
        "One token, p = 0.3, rewards 0 and 1, on policy: the factor f_4(p) of theory.group(4, epsilon=0).",
        lambda: _on_policy(_prompts(0.3), theory.group(4, epsilon=0.0)).effective_step,
        number("f is E[A_1 | R_1 = 1] - E[A_1 | R_1 = 0] over the three other rewards; ddof is 1"),
    ),
    Exercise(
        "7.3",
        "brackets(horizon=5), on policy, RLOO with groups of 4 and the reduction length_mean: the cosine to g.",
        _cosine,
        number("theory.Estimator takes a reduction beside the weight and the signal"),
    ),
    Exercise(
        "7.4",
        "Six prompts with p = 0.5 each, 64 rollouts in all: the G of 2, 4, 8, 16, 32 with which the average of RLOO's "
        "groups varies least.",
        _best_size,
        count("64 / G prompts are averaged: theory.group_variance(...).batch_variance(64 // G)"),
    ),
)
