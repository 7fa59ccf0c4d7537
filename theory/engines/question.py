"""One estimator in one process, put to an exact engine: plain signals, signs of late rewards, baselines, groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theory.engines import coupled, enumeration, recursion
from theory.engines.problem import Bins, EngineRefusal, Problem, rounded_returns
from theory.engines.reduce import Draw, average, sums_by, token_factor, token_mean
from theory.engines.trajectories import returns
from theory.estimator import Estimator
from theory.groups import MOST_CATEGORIES, MOST_NUMBERS, Categories, GroupSignal, cost, group_moments
from theory.policy import Ratios, SoftmaxPolicy
from theory.process import MarkovProcess
from theory.signals import Ones, ResolvedSignal, Signal, baseline_scale, resolve, with_baseline

Array = NDArray[np.float64]

# Distinct returns for which a weight that looks at the sign of a late reward is run one by one in the recursion.
_MOST_OUTCOMES = 64
# With "auto", enumeration above this many trajectories gives way to sampling.
_MOST_TRAJECTORIES_AUTO = 2_000_000
# The same of trajectories summed over all batches of a weight that couples them.
_MOST_BATCHED_AUTO = 4_000_000
# With "auto", what an exact engine may touch before sampling is taken: about a minute.
_MOST_COST_AUTO = 4e10
_BLOCK_ROWS = 50_000


@dataclass(frozen=True, eq=False)
class Question:
    """Everything that `theory.moments` was asked, checked."""

    process: MarkovProcess
    target: SoftmaxPolicy
    behaviour: SoftmaxPolicy
    ratios: Ratios
    estimator: Estimator
    most_trajectories: int
    position: int | None = None
    """Keep only what the token at this step contributes to the estimator."""
    signal_tables: ResolvedSignal | None = None
    """The signal where it is known already: a baseline of all start states, kept when one of them is looked at."""
    mean_only: bool = False
    """Whether the second moment is not wanted: it then is NaN, and costs nothing."""

    def problem(self, *signals: ResolvedSignal, by_outcome: bool = False, outer: bool = False) -> Problem:
        """The engines' form of the question."""
        e = self.estimator
        cumulative = e.score == "cumulative"
        return Problem(
            self.process, self.target, self.behaviour, self.ratios, e.weight, signals, cumulative, by_outcome, outer,
            self.position, self.mean_only,
        )  # fmt: skip

    def from_start(self, state: int) -> Question:
        """The same question with one start state."""
        return replace(self, process=self.process.started_in(state))

    def resolved(self) -> ResolvedSignal:
        """The signal's tables; an optimal baseline is solved for, once."""
        return self._resolved if self.signal_tables is None else self.signal_tables

    @cached_property
    def _resolved(self) -> ResolvedSignal:
        signal = self.estimator.signal
        if signal.baseline == "optimal":
            return with_baseline(signal, self.process, _optimal_baseline(replace(self, position=None, mean_only=False)))
        return resolve(signal, self.process, self.target, self.behaviour)

    @property
    def coupled(self) -> bool:
        """Whether the coefficients of a trajectory depend on the others of its draw."""
        e = self.estimator
        return bool(e.weight.family.couples_batch) and e.trajectories_per_draw > 1

    @cached_property
    def refusal(self) -> str:
        """Why neither exact engine can take what a draw does with its trajectories; empty where one may."""
        e, p = self.estimator, self.process
        if self.coupled:
            return coupled.refusal(p, self.behaviour, e, self.most_trajectories)
        if not isinstance(e.signal, GroupSignal):
            return ""
        # Returns that add up over steps are known from the tree alone; where it is too large, its engine says so.
        if p.has_step_rewards and enumeration.count_trajectories(p, self.behaviour) > self.most_trajectories:
            return ""
        needed = 0
        for state in np.flatnonzero(p.initial):
            m = _category_count(self.from_start(int(state)))
            needed += cost(e.signal.size, m)
            if m > MOST_CATEGORIES or needed > MOST_NUMBERS:
                over = f"over {MOST_CATEGORIES}" if m > MOST_CATEGORIES else m
                return (
                    f"a group of {e.signal.size} with {over} distinct (outcome, length) categories has too many "
                    "compositions; engine='sampling' can take it"
                )
        return ""


def cheapest_engine(asked: Question) -> str:
    """The exact engine that can take the question at the least cost, otherwise sampling."""
    p = asked.process
    if asked.coupled:
        limit = min(asked.most_trajectories, _MOST_BATCHED_AUTO)
        return "sampling" if coupled.refusal(p, asked.behaviour, asked.estimator, limit) else "enumeration"
    count = enumeration.count_trajectories(p, asked.behaviour)
    enumerable = count <= min(asked.most_trajectories, _MOST_TRAJECTORIES_AUTO)
    by_tree = float(count) * (p.states * p.actions + 20.0 * p.horizon) if enumerable else np.inf
    by_cells = _recursion_cost(asked)
    if min(by_tree, by_cells) > _MOST_COST_AUTO or asked.refusal:
        return "sampling"
    return "recursion" if by_cells < by_tree else "enumeration"


def _recursion_cost(asked: Question) -> float:
    """What the recursion would touch, infinite where it cannot take the question."""
    group = isinstance(asked.estimator.signal, GroupSignal)
    signal = ResolvedSignal("table", Ones()) if group else asked.resolved()
    runs = np.count_nonzero(asked.process.initial) if group else 1
    if _looks_at_late_sign(asked, signal):
        outcomes = _outcomes(asked, signal)
        if outcomes.size > _MOST_OUTCOMES:
            return np.inf
        signal, runs, group = ResolvedSignal("table", Ones()), outcomes.size, True
    problem = asked.problem(signal, by_outcome=group)
    return np.inf if recursion.refusal(problem) else runs * recursion.cost(problem)


def exact_draw(asked: Question, engine: str, outer: bool = False) -> Draw:
    """Moments of one draw of the estimator (n = 1), by the recursion or by enumeration.

    Raises:
        EngineRefusal: the engine cannot take the question.
    """
    if asked.refusal:
        raise EngineRefusal(asked.refusal)
    if asked.coupled:
        if engine == "recursion":
            raise EngineRefusal(
                f"the coefficients of {asked.estimator.weight.label} depend on all trajectories of a draw; "
                "engine='enumeration' or 'sampling' can take it"
            )
        return coupled.draw(problem_to_sample(asked), asked.estimator, outer)
    if isinstance(asked.estimator.signal, GroupSignal):
        return _group_draw(asked, engine, outer)
    signal = asked.resolved()
    if engine == "recursion" and _looks_at_late_sign(asked, signal):
        bins = _bins_by_outcome(asked, signal, outer)
    else:
        bins = _bins(asked, engine, asked.problem(signal, outer=outer))
    return _reduced(asked, bins)


def problem_to_sample(asked: Question) -> Problem:
    """The question for the sampling engine."""
    if isinstance(asked.estimator.signal, GroupSignal):
        return asked.problem(ResolvedSignal("table", Ones()))
    return asked.problem(asked.resolved())


def _bins(asked: Question, engine: str, problem: Problem) -> Bins:
    if engine == "recursion":
        return recursion.bins_of(problem)
    return enumeration.bins_of(problem, asked.most_trajectories)


def _reduced(asked: Question, bins: Bins) -> Draw:
    reduction = asked.estimator.reduction
    if reduction.name == "token_mean":
        return token_mean(bins, reduction.batch)
    return average(bins, reduction.name, asked.process.horizon, reduction.batch)


def _looks_at_late_sign(asked: Question, signal: ResolvedSignal) -> bool:
    """Whether the weight needs the sign of a return that the recursion learns last: it then runs once per return."""
    return asked.estimator.weight.uses_advantage and signal.kind != "table" and not asked.process.has_step_rewards


@dataclass(frozen=True, eq=False)
class _ReturnMinusBaseline:
    """t -> value - baseline[t], the signal of all trajectories of one return that is paid at the end."""

    value: float
    signal: ResolvedSignal
    states: int

    def __call__(self, t: int) -> Array:
        return np.asarray(self.value - np.broadcast_to(self.signal.baseline_at(t), (self.states, 1, 1)))


def _bins_by_outcome(asked: Question, signal: ResolvedSignal, outer: bool) -> Bins:
    outcomes = _outcomes(asked, signal)
    if outcomes.size > _MOST_OUTCOMES:
        raise EngineRefusal(
            f"{asked.estimator.weight.label} looks at the sign of {outcomes.size} distinct returns, the recursion "
            f"takes {_MOST_OUTCOMES}; engine='enumeration' or 'sampling' can take it"
        )
    parts = []
    for value in outcomes:
        table = ResolvedSignal("table", _ReturnMinusBaseline(float(value), signal, asked.process.states))
        bins = recursion.bins_of(asked.problem(table, by_outcome=True, outer=outer))
        parts.append(_where(bins, bins.outcome == rounded_returns(asked.process, value)))
    return Bins(*(None if c[0] is None else np.concatenate(c) for c in zip(*parts, strict=True)))  # type: ignore[arg-type]


def _outcomes(asked: Question, signal: ResolvedSignal) -> Array:
    """The returns that episodes with a reward at the end only can have."""
    p = asked.process
    lengths = recursion.possible_lengths(asked.problem(signal))
    returns = (p.discount ** lengths[:, None].astype(float) * p.terminal_reward).reshape(-1)
    return returns[np.unique(rounded_returns(p, returns), return_index=True)[1]]


def _where(bins: Bins, chosen: NDArray[np.bool_]) -> Bins:
    return Bins(*(None if column is None else column[chosen] for column in bins))  # type: ignore[arg-type]


def _optimal_baseline(asked: Question) -> Array:
    """The baseline table (T, S) that minimises the exact variance of one draw.

    With g_hat(b) = F - sum over i of b_i Y_i, the variance is quadratic in b and its minimum solves
    Cov(Y_i, Y_j) b = Cov(Y_i, F), covariances summed over the components of the vectors.
    """
    e, p = asked.estimator, asked.process
    if e.weight.uses_advantage:
        raise ValueError(
            f"baseline='optimal' is not defined for {e.weight.label}, whose coefficients change with the sign of the "
            "advantage; expected a weight that does not look at it"
        )
    if asked.coupled:
        raise EngineRefusal(
            f"baseline='optimal' is not solved for {e.label}, whose coefficients depend on all trajectories of a draw; "
            "expected another baseline, such as a number or 'expected_return'"
        )
    scale = baseline_scale(e.signal, p)
    unit = np.eye(p.states)[~p.absorbing] if e.signal.per_state else [None]
    plain = resolve(Signal(e.signal.name), p, asked.target, asked.behaviour)
    units = [ResolvedSignal("table", Ones(states=states, scale=scale)) for states in unit]
    problem = asked.problem(plain, *units)
    engine = "enumeration" if recursion.refusal(problem) else "recursion"
    try:
        draw = _reduced(asked, _bins(asked, engine, problem))
    except EngineRefusal as why:
        raise EngineRefusal(
            f"baseline='optimal' needs an exact engine, whichever engine then uses it, and neither can take "
            f"{asked.estimator.label} here; expected another baseline, or fewer trajectories"
        ) from why
    if not np.isfinite(draw.second).all():
        raise ValueError(
            f"baseline='optimal' is not defined here: the variance of {e.weight.label} is beyond the largest number; "
            "expected another baseline or a bounded weight"
        )
    spread = draw.second - draw.mean @ draw.mean.T
    weights = np.linalg.lstsq(spread[1:, 1:], spread[1:, 0], rcond=1e-12)[0]
    by_state = np.full(p.states, weights[0])
    if e.signal.per_state:
        by_state = np.zeros(p.states)
        by_state[~p.absorbing] = weights
    return np.asarray(scale[:, None] * by_state)


def _group_draw(asked: Question, engine: str, outer: bool) -> Draw:
    p, signal = asked.process, asked.estimator.signal
    share_tokens = asked.estimator.reduction.name == "token_mean"
    P = asked.target.parameter_count
    mean, second, matrix = np.zeros(P), 0.0, np.zeros((P, P)) if outer else None
    for state in np.flatnonzero(p.initial):
        categories = _categories(asked.from_start(int(state)), engine, outer)
        m, s, o = group_moments(signal, categories, share_tokens, asked.mean_only)
        mean, second = mean + p.initial[state] * m, second + p.initial[state] * s
        if matrix is not None and o is not None:
            matrix = matrix + p.initial[state] * o
    return Draw(mean[None], np.array([[second]]), None if matrix is None else matrix[None])


def _categories(asked: Question, engine: str, outer: bool = False) -> Categories:
    """Moments of one trajectory of one prompt by (outcome, length), or by outcome where tokens are not shared."""
    e = asked.estimator
    signs = (1.0, -1.0) if e.weight.uses_advantage else (1.0,)
    units = [ResolvedSignal("table", Ones(value)) for value in signs]
    bins = _bins(asked, engine, asked.problem(*units, by_outcome=True, outer=outer))
    share = e.reduction.name == "token_mean"
    factor = np.ones(bins.length.size) if share else token_factor(bins.length, e.reduction.name, asked.process.horizon)
    kinds = np.stack([bins.outcome, bins.length if share else np.ones(bins.length.size)], axis=1)
    kinds, which = np.unique(kinds, axis=0, return_inverse=True)
    m = len(kinds)
    # The unit signal -1 gives minus the vector of negative advantages; without a sign both are the same vector.
    mean = np.stack([sign * sums_by(which, factor[:, None] * bins.mean[:, i], m) for i, sign in enumerate(signs)])
    second = np.stack([sums_by(which, factor**2 * bins.second[:, i, i], m) for i in range(len(signs))])
    matrices = None
    if bins.outer is not None:
        squared = factor[:, None, None] ** 2
        matrices = np.stack([sums_by(which, squared * bins.outer[:, i], m) for i in range(len(signs))])
    both = slice(None) if len(signs) == 2 else [0, 0]
    return Categories(
        np.array(kinds[:, 0], dtype=float), np.array(kinds[:, 1], dtype=float), sums_by(which, bins.probability, m),
        mean[both], second[both],
        None if matrices is None else matrices[both],
    )  # fmt: skip


def _category_count(asked: Question) -> int:
    """Number of categories of one prompt, without their moments; counting ends above MOST_CATEGORIES."""
    p, found = asked.process, set[tuple[float, int]]()
    share = asked.estimator.reduction.name == "token_mean"
    for length, paid in _ends_by_tree(asked) if p.has_step_rewards else _ends_by_state(asked):
        found.update(zip(rounded_returns(p, paid).tolist(), (length if share else 0 * length).tolist(), strict=True))
        if len(found) > MOST_CATEGORIES:
            break
    return len(found)


def _ends_by_tree(asked: Question) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Lengths and returns of all trajectories, in blocks."""
    for walk, block in enumeration.enumerate_blocks(asked.process, asked.behaviour, _BLOCK_ROWS):
        yield block.acting.sum(axis=1), returns(walk, block)


def _ends_by_state(asked: Question) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """The same where only the end pays: one for each length and state in which an episode can end."""
    p = asked.process
    moving = np.where(p.absorbing[:, None], 0.0, asked.behaviour.probabilities)
    here = p.initial
    for t in range(p.horizon + 1):
        ends = (here > 0.0) & (p.absorbing | (t == p.horizon))
        yield np.full(np.count_nonzero(ends), t), p.discount**t * p.terminal_reward[ends]
        here = p.transition_matrix.T @ (here[:, None] * moving).reshape(-1)
