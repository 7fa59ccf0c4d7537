"""Where the bias of an estimator comes from: one substitution at a time, from the truth to the estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.engines import enumeration, question
from theory.engines.choice import ENGINES
from theory.engines.problem import checked_ratios
from theory.engines.question import Question
from theory.estimator import Estimator, Reduction
from theory.gradient import policy_gradient
from theory.groups import GroupSignal
from theory.policy import SoftmaxPolicy, ratios
from theory.process import MarkovProcess
from theory.signals import Signal
from theory.weights.hybrid import hybrid
from theory.weights.registry import Parts

Array = NDArray[np.float64]

ORDER = ("occupancy", "action", "continuation", "truncation", "baseline_leak", "reduction")
TERMS = {
    "support": "only the trajectories that mu can give (with missing_support='allow'; it comes first)",
    "occupancy": "the weight's prefix part in the place of P_t",
    "action": "the weight's own part in the place of rho_t",
    "continuation": "the centred signal, with the weight's suffix part and the score, in the place of A^pi_t z_t",
    "truncation": "the weight itself in the place of the product of its parts: clips, caps, masks",
    "baseline_leak": "what the signal holds beyond its centred form: a function of the past and the state alone",
    "reduction": "1/L, 1/T or the batch's token count, and a group's centre and scale",
}
# What must have been substituted before a term is: a product cannot be clipped before it is there.
_NEEDS = {
    "truncation": ("occupancy", "action", "continuation"),
    "baseline_leak": ("continuation",),
    "reduction": ("baseline_leak",),
}


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The bias as a sum of named vectors."""

    terms: Mapping[str, Array]
    """name -> (P,), in the order of substitution."""
    bias: Array
    """(P,), mean - gradient; the terms sum to it."""
    order: tuple[str, ...]
    """The names of the terms, in the order of substitution."""
    _steps: tuple[Question, ...] = field(repr=False)
    _engine: str = field(repr=False)

    def __getitem__(self, name: str) -> Array:
        """One term by its name."""
        return self.terms[checks.known_name("term", name, self.terms)]

    @cached_property
    def by_position(self) -> Mapping[str, Array]:
        """name -> (T, P): what the token at each step contributes to each term. T runs of the engine, on first use."""
        horizon = self._steps[0].process.horizon
        at = [[_mean(replace(step, position=t), self._engine) for t in range(horizon)] for step in self._steps]
        return {name: np.array(at[i + 1]) - np.array(at[i]) for i, name in enumerate(self.order)}


def decompose(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    estimator: Estimator,
    engine: str = "auto",
    *,
    order: Sequence[str] = ORDER,
    missing_support: str = "raise",
    old: SoftmaxPolicy | None = None,
    lag: Any = None,
) -> Decomposition:
    """The bias of an estimator as named (P,) vectors that sum to it.

    The truth is g = sum over t of E_mu[P_t rho_t discount^t A^pi_t z_t]. Each term is the change of the expectation
    when one ingredient is put in the place of its exact counterpart, in this order:

    1. occupancy: the weight's prefix part for P_t (1 for `token`, m_t for `minpro`);
    2. action: its own part for rho_t (1 for `none`);
    3. continuation: the centred signal, with the weight's suffix part and the estimator's score, for A^pi_t z_t.
       Centred means without any function of the past and the state alone: advantages stand for action values; for
       rewards to go and outcomes it is the reward to go minus V of mu (of pi where the weight carries the suffix
       ratio);
    4. truncation: the weight itself for the product of its parts (clip, cap, mask);
    5. baseline leak: the signal as it is for its centred form. Zero where the weight is baseline-invariant;
    6. reduction: 1/L, 1/T, token counts; and a group's advantage for the plain outcome.

    Terms depend on the order; their sum does not. Another `order` may be given as long as truncation comes after the
    first three, the baseline leak after the continuation, and the reduction after the leak.

    With missing_support="allow" mu need not act wherever pi does. A term "support" then comes before all others: what
    the truth loses with the trajectories that mu cannot give, whose true weights nothing can put back. `old` and `lag`
    are as in `theory.moments`.

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        behaviour: mu, the policy that generates the trajectories.
        estimator: whose bias it is.
        engine: "recursion", "enumeration", or "auto", the cheaper one that can.
        order: of the substitutions.
        missing_support: "raise" or "allow".
        old: pi_old, for weights that tell three policies apart.
        lag: number of updates between the policy that drew a token and the target.

    >>> transition = np.zeros((3, 2, 3))
    >>> transition[0, 0, 1] = transition[0, 1, 2] = 1  # the state is the first token,
    >>> transition[1:, :, 0] = 1
    >>> process = theory.MarkovProcess([1, 0, 0], transition, [[0, 0], [1, 0], [0, 1]], horizon=2)  # to be repeated
    >>> pi = theory.SoftmaxPolicy(np.log([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]))
    >>> mu = theory.SoftmaxPolicy(np.log([[0.8, 0.2], [0.5, 0.5], [0.5, 0.5]]))
    >>> parts = theory.decompose(process, pi, mu, theory.Estimator("token", "outcome"))
    >>> length = {name: float(np.linalg.norm(part)) for name, part in parts.terms.items()}
    >>> {name: round(value, 3) for name, value in length.items() if value > 1e-12}
    {'occupancy': 0.078, 'continuation': 0.035}
    >>> np.allclose(sum(parts.terms.values()), parts.bias)
    True

    Raises:
        ValueError: as `theory.moments`; an order that is not possible; engine "sampling", which has no exact terms.
    """
    _check_order(order)
    checks.known_name("engine", engine, [name for name in ENGINES if name != "sampling"])
    checks.known_name("missing_support", missing_support, ("raise", "allow"))
    allow = missing_support == "allow"
    table = checked_ratios(process, target, behaviour, allow, old, lag)
    end = Question(process, target, behaviour, table, estimator, enumeration.MOST_TRAJECTORIES, mean_only=True)
    steps = [replace(end, estimator=_hybrid(estimator, order[:i])) for i in range(len(order) + 1)]
    if allow:
        order = ("support", *order)
        steps = [replace(steps[0], behaviour=target, ratios=ratios(target, target)), *steps]
    means = [policy_gradient(process, target)] + [_mean(step, engine) for step in steps[1:]]
    terms = {name: means[i + 1] - means[i] for i, name in enumerate(order)}
    return Decomposition(terms, means[-1] - means[0], tuple(order), tuple(steps), engine)


def _mean(step: Question, engine: str) -> Array:
    chosen = question.cheapest_engine(step) if engine == "auto" else engine
    if chosen == "sampling":
        raise ValueError(
            f"no exact engine can take {step.estimator.label} here; expected a smaller tree or another weight"
        )
    return question.exact_draw(step, chosen).mean[0]


def _check_order(order: Sequence[str]) -> None:
    if sorted(order) != sorted(ORDER):
        raise ValueError(f"order is {tuple(order)!r}; expected each of {', '.join(ORDER)} once")
    for name, needed in _NEEDS.items():
        for before in needed:
            if order.index(before) > order.index(name):
                raise ValueError(f"order puts {name!r} before {before!r}; expected it after {', '.join(needed)}")


def _hybrid(estimator: Estimator, done: Sequence[str]) -> Estimator:
    """The estimator with only these substitutions made; without any, its mean is the true gradient."""
    parts = estimator.weight.parts
    weight: Any = estimator.weight
    if "truncation" not in done:
        weight = hybrid(
            Parts(
                parts.prefix if "occupancy" in done else "full",
                parts.own if "action" in done else "full",
                parts.suffix if "continuation" in done else "none",
            )
        )
    if "continuation" not in done:
        return Estimator(weight, "target_advantage")
    signal = estimator.signal if "baseline_leak" in done else _centred(estimator)
    # A weight that couples a batch sees all of it from the start.
    reduction = estimator.reduction if "reduction" in done else Reduction("sum", estimator.trajectories_per_draw)
    if isinstance(signal, GroupSignal) and "reduction" not in done:
        signal = Signal("outcome")
    return Estimator(weight, signal, estimator.score, reduction)


def _centred(estimator: Estimator) -> Signal:
    """The signal without any function of the past and the state alone."""
    name = estimator.signal.name
    if name in ("reward_to_go", "outcome", "group"):
        whose = "target" if estimator.weight.parts.suffix == "full" else "behaviour"
        return Signal("reward_to_go", baseline=f"{whose}_value")
    return Signal(name.replace("action_value", "advantage"))
