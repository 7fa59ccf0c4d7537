"""The variance of an estimator between prompts and within them, and what a batch of both makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.engines import enumeration, question
from theory.engines.choice import ENGINES
from theory.engines.problem import checked_ratios
from theory.engines.question import Question
from theory.estimator import Estimator
from theory.gradient import policy_gradient
from theory.groups import GroupSignal
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupVariance:
    """Exact variance of one draw (a trajectory, or a group of one prompt), split by the law of total variance.

    With x = s_0 ~ initial the prompt, m_x = E[g_hat | x] and v_x = trace of Cov[g_hat | x]:

        variance = sum over x of initial(x) |m_x - mean|^2  +  sum over x of initial(x) v_x = between + within.

    All variances are traces of covariances, in squared units of the gradient.
    """

    between: float
    """Variance of the conditional mean m_x over prompts: more rollouts of the same prompts do not lower it."""
    within: float
    """Mean over prompts of the variance of one draw of that prompt."""
    mean: Array
    """E[g_hat], (P,)."""
    gradient: Array
    """The truth g, (P,)."""
    prompts: NDArray[np.int64]
    """(X,) the start states of positive probability."""
    probability: Array
    """(X,) initial(x)."""
    prompt_mean: Array
    """(X, P): m_x."""
    prompt_variance: Array
    """(X,): v_x."""
    engine: str
    """"recursion" or "enumeration"."""
    trajectories_per_draw: int
    """1, or the group's size."""

    @property
    def variance(self) -> float:
        """between + within: `theory.moments(...).variance`."""
        return self.between + self.within

    @property
    def between_share(self) -> float:
        """between / variance, the intraclass correlation of draws of one prompt; NaN where nothing varies."""
        return self.between / self.variance if self.variance > 0.0 else float("nan")

    def batch_variance(self, prompts: int, draws_per_prompt: int = 1) -> float:
        """Variance of the average over B independent prompts with K independent draws each.

        between / B + within / (B K). With a plain estimator K is the number of rollouts per prompt; with a group signal
        one draw already is a group of G rollouts, so that K = 1 is a batch of B G trajectories.

        Raises:
            ValueError: a number that is not whole or below 1.
        """
        B = checks.whole_number("prompts", prompts, 1, "prompts")
        K = checks.whole_number("draws_per_prompt", draws_per_prompt, 1, "draws")
        return self.between / B + self.within / (B * K)

    def mean_squared_error(self, prompts: int, draws_per_prompt: int = 1) -> float:
        """|mean - g|^2 + batch_variance: the expected squared distance of that average to the gradient."""
        bias = self.mean - self.gradient
        return float(bias @ bias) + self.batch_variance(prompts, draws_per_prompt)


def group_variance(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    behaviour: SoftmaxPolicy,
    estimator: Estimator,
    engine: str = "auto",
    *,
    missing_support: str = "raise",
    most_trajectories: int = enumeration.MOST_TRAJECTORIES,
    old: SoftmaxPolicy | None = None,
    lag: Any = None,
) -> GroupVariance:
    """The variance of a group's estimator (or of a plain one) between prompts and within them, exactly.

    Prompts are start states. The usual group estimators are

        GRPO     theory.group(G), centre "mean", scale "std"                       (arXiv 2402.03300)
        Dr.GRPO  theory.group(G, scale="none"), centre "mean"                      (arXiv 2503.20783)
        RLOO     theory.group(G, centre="leave_one_out", scale="none")             (arXiv 2402.14740)

    with reduction "length_mean" for a mean over each rollout's tokens and "token_mean" for one over the tokens of the
    whole group. The conditional mean of RLOO does not depend on G, so neither does its part between prompts; that of
    Dr.GRPO shrinks by ((G - 1) / G)^2. A baseline "expected_return" or "optimal" stays that of all prompts.

    An exact engine answers once per prompt. For processes with one start state `between` is zero.

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        behaviour: mu, the policy that generates the trajectories.
        estimator: whose variance it is.
        engine: "recursion", "enumeration", or "auto", the cheaper one that can.
        missing_support: "raise" or "allow", as in `theory.moments`.
        most_trajectories: enumeration refuses larger trees.
        old: pi_old, for weights that tell three policies apart.
        lag: number of updates between the policy that drew a token and the target.

    Raises:
        ValueError: as `theory.moments`; engine "sampling", which has no exact parts; or a reduction over a batch
            that is no group, whose trajectories come from several prompts.
    """
    checks.known_name("engine", engine, [name for name in ENGINES if name != "sampling"])
    checks.known_name("missing_support", missing_support, ("raise", "allow"))
    is_group = isinstance(estimator.signal, GroupSignal)
    if estimator.reduction.batch > 1 and not is_group:
        raise ValueError(
            f"reduction {estimator.reduction.name}(batch={estimator.reduction.batch}) mixes trajectories of several "
            "prompts in one draw; expected a group signal, or a reduction without a batch"
        )
    ratios = checked_ratios(process, target, behaviour, missing_support == "allow", old, lag)
    asked = Question(process, target, behaviour, ratios, estimator, most_trajectories)
    chosen = question.cheapest_engine(asked) if engine == "auto" else engine
    if chosen == "sampling":
        raise ValueError(f"no exact engine can take {estimator.label} here; expected a smaller tree or another weight")
    whole = asked if is_group else replace(asked, signal_tables=asked.resolved())
    prompts = np.flatnonzero(process.initial)
    draws = [question.exact_draw(whole.from_start(int(x)), chosen) for x in prompts]
    p, m = process.initial[prompts], np.array([draw.mean[0] for draw in draws])
    v = np.array([max(float(draw.second[0, 0] - draw.mean[0] @ draw.mean[0]), 0.0) for draw in draws])
    mean = p @ m
    return GroupVariance(
        between=float(p @ ((m - mean) ** 2).sum(axis=1)), within=float(p @ v), mean=mean,
        gradient=policy_gradient(process, target), prompts=prompts, probability=p, prompt_mean=m, prompt_variance=v,
        engine=chosen, trajectories_per_draw=estimator.trajectories_per_draw,
    )  # fmt: skip
