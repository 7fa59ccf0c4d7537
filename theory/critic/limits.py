"""What is refused before it is tried: tables beyond memory, and ratios beyond float64."""

from __future__ import annotations

import numpy as np

from theory.engines.problem import EngineRefusal
from theory.engines.trajectories import Walk
from theory.policy import Ratios, SoftmaxPolicy
from theory.process import MarkovProcess

# Numbers in one table, of which several are held at a time.
MOST_NUMBERS = 20_000_000
# Numbers in a table of all steps, of which one or two are held.
MOST_KEPT = 100_000_000
MOST_LOG_RATIO = 700.0


def refuse_large_steps(process: MarkovProcess, target: SoftmaxPolicy, walk: Walk) -> None:
    """Raise EngineRefusal where the tables of one step, (E, P) and (S, A, P), are too large."""
    needed = target.parameter_count * max(walk.state.size, process.states * process.actions)
    if needed > MOST_NUMBERS:
        raise EngineRefusal(
            f"a step takes tables of {needed:.3g} numbers, transitions times parameters, the limit is {MOST_NUMBERS}; "
            "expected fewer states or actions, or a log-linear target policy with fewer parameters"
        )


def refuse_large_horizon(process: MarkovProcess, target: SoftmaxPolicy) -> None:
    """Raise EngineRefusal where gradients of all steps and states, (T, S, P), are too many to be kept."""
    needed = process.horizon * process.states * target.parameter_count
    if needed > MOST_KEPT:
        raise EngineRefusal(
            f"gradients of all steps and states are {needed:.3g} numbers, steps times states times parameters, the "
            f"limit is {MOST_KEPT}; expected a shorter horizon, fewer states, or a log-linear target policy with fewer "
            "parameters"
        )


def refuse_large_covariance(states: int, parameters: int) -> None:
    """Raise EngineRefusal where one (P, P) matrix for each of these states is too large."""
    needed = states * parameters**2
    if needed > MOST_NUMBERS:
        raise EngineRefusal(
            f"the covariance takes tables of {needed:.3g} numbers, {states} times the squared number of parameters, "
            f"the limit is {MOST_NUMBERS}; the variance, its trace, takes far less"
        )


def refuse_far_policies(process: MarkovProcess, behaviour: SoftmaxPolicy, ratios: Ratios, walk: Walk) -> None:
    """Raise EngineRefusal where a ratio that mu can draw, or the chance of what it draws, is beyond float64."""
    edges = process.edges
    chance = behaviour.probabilities[edges.state, edges.action]
    if ((chance > 0.0) & (chance * edges.probability == 0.0)).any():
        raise EngineRefusal(
            "the chance of a transition under behaviour is beyond float64; expected probabilities that are larger"
        )
    furthest = float(np.max(ratios.log_ratio[walk.state, walk.action]))
    if furthest > MOST_LOG_RATIO:
        raise EngineRefusal(
            f"a ratio is beyond float64, its logarithm is {furthest:.0f}; expected policies that are closer"
        )
