"""Lesson 8, the tiny transformer: estimators on a network whose answers are enumerated."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

import theory
from testbed.lessons.checking import Exercise, count, number, word


@cache
def the_prompt() -> Any:
    """The small network of the lesson with its behaviour policy nearby."""
    # PyTorch is imported by those who do this lesson.
    import torch

    from testbed.arithmetic import ArithmeticTask, all_prompts, initial_parameters, model_for, network_prompt

    task = ArithmeticTask("modular_addition", digits=1, modulus=7, per_digit_credit=True, slack=1)
    config = model_for(task, layers=1, width=16)
    theta = initial_parameters(config, 0, torch.float64)
    noise = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return network_prompt(config, theta, task, all_prompts(task)[10], behaviour_theta=theta + 0.1 * noise)


def _moments(weight: Any, signal: Any, *, variance: bool = False) -> theory.Moments:
    from testbed.arithmetic import network_moments

    return network_moments([the_prompt()], theory.Estimator(weight, signal), variance=variance)


def _truncated() -> float:
    return _moments(theory.weight("truncated", cap=1.0), "outcome").relative_bias


def _most_biased() -> str:
    names = ("none", "token", "suffix", "prefix", "minpro", "sequence")
    return max(names, key=lambda name: _moments(name, "target_advantage").relative_bias)


def _groups() -> int:
    m = _moments("prefix", theory.group(8), variance=True)
    return math.floor(m.variance / (np.linalg.norm(m.gradient) / 10.0) ** 2) + 1


EXERCISES = (
    Exercise(
        "8.1",
        "The relative bias of the truncated token ratio, theory.weight('truncated', cap=1.0), for outcomes.",
        _truncated,
        number("network_moments([one], theory.Estimator(weight, 'outcome'), variance=False).relative_bias"),
    ),
    Exercise(
        "8.2",
        "Which of none, token, suffix, prefix, minpro and sequence has the largest relative bias with the signal "
        "target_advantage?",
        _most_biased,
        word("compute relative_bias for each; beside an exact advantage the ratios of later tokens change nothing"),
    ),
    Exercise(
        "8.3",
        "The least number of groups of 8 for which the prefix ratio's standard error is below |g| / 10.",
        _groups,
        count("the variance with signal theory.group(8) is that of one group: groups > 100 variance / |g|^2"),
    ),
)
