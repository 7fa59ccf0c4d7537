"""KL penalties: what k1, k2 and k3 estimate as values, and which gradient they have in the loss and in the reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.engines import enumeration, recursion
from theory.engines.expected import exact_engine
from theory.engines.problem import EngineRefusal, Problem, checked_ratios
from theory.engines.trajectories import score_weights, token_signals
from theory.gradient import policy_gradient
from theory.kl_estimators import TokenCounter, check_finite, token_estimator
from theory.policy import SoftmaxPolicy
from theory.process import MarkovProcess
from theory.signals import ResolvedSignal
from theory.value_functions import check_policy, occupancies
from theory.weights.registry import Weight
from theory.weights.registry import weight as find_weight

Array = NDArray[np.float64]

PLACES = ("loss", "reward")
DIFFERENTIABLE = ("none", "token", "prefix", "sequence")


@dataclass(frozen=True, eq=False)
class KLPenalty:
    """A penalty estimator under data from mu: its value and its gradient, next to what they may be meant to be.

    Values are in nats per trajectory (sums over its tokens). Gradients are those of a penalty, to be descended.
    """

    value: float
    """E_mu[sum over t of c_t k_t]."""
    value_variance: float
    """Variance of sum over t of c_t k_t, of one trajectory."""
    kl: float
    """KL(pi || ref) of the sequence, E_pi[sum over t of KL(pi(.|s_t) || ref(.|s_t))]."""
    kl_at_behaviour_states: float
    """E_mu[sum over t of KL(pi(.|s_t) || ref(.|s_t))]: divided by `expected_length`, the average per token of mu."""
    expected_length: float
    """E_mu[L], in tokens."""
    mean: Array
    """Expected gradient of one trajectory, (P,)."""
    variance: float
    """Trace of the covariance of one trajectory's gradient."""
    gradients: Mapping[str, Array]
    """What the mean may be compared with, name -> (P,). With d_p(s) = E_p[sum over t of 1{s_t = s}],

    "sequence"                 gradient of KL(pi || ref) of the sequence, through its states as well
    "target_states"            sum over s of d_pi(s) grad KL(pi(.|s) || ref(.|s)), d_pi frozen
    "behaviour_states"         sum over s of d_mu(s) grad KL(pi(.|s) || ref(.|s))
    "reversed_target_states"   sum over s of d_pi(s) grad KL(ref(.|s) || pi(.|s)), d_pi frozen
    "reversed_behaviour_states"    sum over s of d_mu(s) grad KL(ref(.|s) || pi(.|s))

    The reversed ones are NaN where the target never does what the reference does: KL(ref || pi) is infinite there.
    """
    engine: str
    """Which engine gave the gradient: "recursion" or "enumeration"."""

    @property
    def value_bias(self) -> float:
        """value - kl, in nats per trajectory."""
        return self.value - self.kl

    def bias(self, of: str = "sequence") -> Array:
        """mean - gradients[of], (P,)."""
        return self.mean - self._gradient(of)

    def relative_error(self, of: str = "sequence") -> float:
        """|mean - gradients[of]| / |gradients[of]|; NaN where that gradient is zero."""
        return _ratio(float(np.linalg.norm(self.bias(of))), float(np.linalg.norm(self._gradient(of))))

    def cosine(self, of: str = "sequence") -> float:
        """Cosine of the angle between mean and gradients[of]; NaN where either is zero, the mean to 13 digits."""
        truth = self._gradient(of)
        # A sum that cancels leaves rounding, which points anywhere.
        if np.linalg.norm(self.mean) <= 1e-13 * np.sqrt(self.variance):
            return float("nan")
        return _ratio(float(self.mean @ truth), float(np.linalg.norm(self.mean)) * float(np.linalg.norm(truth)))

    def _gradient(self, of: str) -> Array:
        return self.gradients[checks.known_name("gradient", of, self.gradients)]


def kl_penalty(
    process: MarkovProcess,
    target: SoftmaxPolicy,
    reference: SoftmaxPolicy,
    behaviour: SoftmaxPolicy | None = None,
    estimator: str = "k3",
    *,
    place: Literal["loss", "reward"] = "loss",
    weight: str | Weight = "none",
    detach_weight: bool = True,
    engine: str = "auto",
) -> KLPenalty:
    """Exact value and exact expected gradient of a KL penalty, with c_t the weight's coefficients of pi against mu.

    place="loss": what autograd gives for the loss sum over t of c_t k_t(theta) at sampled tokens,

        E_mu[ sum over t of c_t k'_t z_t ],                     with k' = dk / d log pi(a|s),
        E_mu[ sum over t of c_t k'_t z_t + k_t grad c_t ]       with detach_weight=False, where grad c_t is
                                    rho_t z_t, C_t sum over j <= t of z_j, or W sum over all j of z_j.

    place="reward": the policy gradient of the penalty, whose minus a reward -k_t adds to the ascent direction,

        E_mu[ sum over t of c_t (sum over j >= t of k_j) z_t ].

    No discount is applied, and the rewards of the process play no part. On policy, in the loss, k1 has no gradient,
    k2 that of KL(pi || ref) at frozen states, k3 that of KL(ref || pi) there. In the reward k1 gives the gradient of
    the sequence's KL, and k3 misses what it would give in the loss. With the ratio inside the graph (weight="token",
    detach_weight=False) k1 and k3 both have the gradient of KL(pi || ref) at the frozen states of mu, and with
    "prefix" or "sequence" that of the sequence's KL; k3 under an attached token ratio is k2 under a detached one, token
    by token. Estimators: Schulman 2020, "Approximating KL divergence".

    Args:
        process: the environment.
        target: pi, the policy that is differentiated.
        reference: ref, fixed; it needs the target's support.
        behaviour: mu, which generates the data; default pi, on policy.
        estimator: "k1" (-log r), "k2" ((log r)^2 / 2) or "k3" (r - 1 - log r), r = ref(a|s) / pi(a|s).
        place: "loss" or "reward".
        weight: a name, or `theory.weight(name, **options)`, of a weight that does not look at an advantage's sign.
        detach_weight: whether the weight is a constant of the loss; otherwise one of "none", "token", "prefix" and
            "sequence". In the reward a weight is always a constant.
        engine: "recursion", "enumeration" or "auto". An attached prefix ratio mixes two scores: enumeration only.

    Raises:
        ValueError: policies and process disagree, support is missing, an unknown name, a weight that has no meaning
            here, or an engine that cannot take the problem.

    >>> coin = theory.MarkovProcess([1.0, 0.0], [[[0.0, 1.0]] * 2, [[0.0, 1.0]] * 2], [[0.0, 0.0]] * 2, horizon=1)
    >>> pi, ref = theory.SoftmaxPolicy(np.log([[0.8, 0.2]] * 2)), theory.SoftmaxPolicy(np.zeros((2, 2)))
    >>> k1, k2, k3 = (theory.kl_penalty(coin, pi, ref, estimator=k) for k in ("k1", "k2", "k3"))
    >>> [round(k.value, 6) for k in (k1, k2, k3)]  # the KL is 0.8 log 1.6 + 0.2 log 0.4
    [0.192745, 0.17232, 0.192745]
    >>> [round(float(k.mean[0]), 6) for k in (k1, k2, k3)]  # that of the KL is 0.8 0.2 log 4
    [0.0, 0.221807, 0.3]
    """
    checks.known_name("place", place, PLACES)
    mu = target if behaviour is None else behaviour
    chosen = _checked_weight(weight, place, detach_weight)
    ratios = checked_ratios(process, target, mu, allow_missing_support=False)
    check_policy(process, reference, "reference")
    check_finite(target, reference, mu, ~process.absorbing)
    k = token_estimator(estimator, target, reference)
    paying = _paying(process, k.value)
    value, slope = ResolvedSignal("table", _Constant(k.value)), ResolvedSignal("table", _Constant(k.derivative))
    plain = Problem(paying, target, mu, ratios, chosen, (slope,))
    scalar = replace(plain, target=TokenCounter(target.logits), signals=(value,))
    value_mean, value_variance, _ = _moments([scalar], engine)
    if place == "reward":
        problems = [replace(plain, signals=(ResolvedSignal("reward_to_go"),))]
    elif detach_weight or chosen.name == "none":
        problems = [plain]
    elif chosen.name == "token":
        problems = [replace(plain, signals=(ResolvedSignal("table", _Constant(k.value + k.derivative)),))]
    elif chosen.name == "sequence":
        problems = [replace(plain, signals=(slope, ResolvedSignal("outcome")))]
    else:
        problems = [plain, replace(plain, signals=(value,), cumulative=True)]
    mean, variance, answered = _moments(problems, engine)
    visits = {"target": _visits(process, target), "behaviour": _visits(process, mu)}
    statewise = _statewise_kl(target, reference)
    return KLPenalty(
        float(value_mean[0]), value_variance, float(visits["target"] @ statewise),
        float(visits["behaviour"] @ statewise), float(visits["behaviour"].sum()), mean, variance,
        _gradients(process, target, reference, visits), answered,
    )  # fmt: skip


def _checked_weight(weight: str | Weight, place: str, detach_weight: bool) -> Weight:
    chosen = find_weight(weight)
    if chosen.uses_advantage:
        raise ValueError(f"weight is {chosen.label}, which looks at the sign of an advantage; a penalty has none")
    if not detach_weight and place == "reward":
        raise ValueError("detach_weight=False goes with place='loss'; in the reward a weight is a constant")
    if not detach_weight and chosen.name not in DIFFERENTIABLE:
        raise ValueError(f"weight is {chosen.label}; detach_weight=False takes one of {', '.join(DIFFERENTIABLE)}")
    return chosen


def _moments(problems: list[Problem], engine: str) -> tuple[Array, float, str]:
    """Mean and variance of the sum of all the signals' estimators, and the engine that gave them."""
    if len(problems) == 1:
        answered = exact_engine(problems[0], engine, cheapest=True)
        bins = (recursion if answered == "recursion" else enumeration).bins_of(problems[0])
        mean, second = bins.mean.sum(axis=(0, 1)), float(bins.second.sum())
    else:
        if engine == "recursion":
            raise EngineRefusal("the gradient of a prefix ratio mixes two scores; engine='enumeration' can take it")
        answered = exact_engine(problems[0], "enumeration")
        mean, second = _by_tree(problems)
    return mean, max(second - float(mean @ mean), 0.0), answered


def _by_tree(problems: list[Problem]) -> tuple[Array, float]:
    """Mean and second moment of the sum of estimators that do not share a score."""
    p, target = problems[0].process, problems[0].target
    mean, second = np.zeros(target.parameter_count), 0.0
    rows = max(64, 2_000_000 // (p.states * p.actions))
    for walk, block in enumeration.enumerate_blocks(p, problems[0].behaviour, rows):
        weights = sum(score_weights(walk, block, q, token_signals(walk, block, q)).sum(axis=0) for q in problems)
        assert isinstance(weights, np.ndarray)
        mean = mean + target.combine_scores(np.einsum("n,nsa->sa", block.probability, weights))
        second += float(block.probability @ target.squared_norm_of_combination(weights, weights))
    return mean, second


@dataclass(frozen=True, eq=False)
class _Constant:
    """t -> a table (S, A, 1), the same at all steps."""

    table: Array

    def __call__(self, t: int) -> Array:
        return self.table[:, :, None]


def _paying(process: MarkovProcess, reward: Array) -> MarkovProcess:
    """The same process with this reward alone, not discounted."""
    p = process
    return MarkovProcess(p.initial, p.transition, reward, p.horizon, None, p.absorbing)  # type: ignore[arg-type]


def _visits(process: MarkovProcess, policy: SoftmaxPolicy) -> Array:
    """E[number of tokens in s], (S,)."""
    return np.where(process.absorbing, 0.0, occupancies(process, policy)[:-1].sum(axis=0))


def _statewise_kl(target: SoftmaxPolicy, reference: SoftmaxPolicy) -> Array:
    """KL(pi(.|s) || ref(.|s)), (S,): E_pi[k3] and the mass that pi misses, no term of which is negative."""
    pi = target.probabilities
    missed = np.where(pi > 0.0, 0.0, reference.probabilities).sum(axis=1)
    return np.asarray((pi * token_estimator("k3", target, reference).value).sum(axis=1) + missed)


def _gradients(
    process: MarkovProcess, target: SoftmaxPolicy, reference: SoftmaxPolicy, visits: Mapping[str, Array]
) -> dict[str, Array]:
    pi, ref = target.probabilities, reference.probabilities
    k1 = token_estimator("k1", target, reference).value
    # E_pi[grad k1] = E_pi[z] = 0, so that the gradient of E_pi[sum of k1] is the policy gradient of the reward k1.
    result = {"sequence": policy_gradient(_paying(process, k1), target)}
    for whose, d in visits.items():
        result[f"{whose}_states"] = target.combine_scores(d[:, None] * pi * k1)
    for whose, d in visits.items():
        infinite = np.any((ref > 0.0) & (pi == 0.0), axis=1) & (d > 0.0)
        reversed_kl = target.combine_scores(-d[:, None] * ref)
        result[f"reversed_{whose}_states"] = np.full_like(reversed_kl, np.nan) if infinite.any() else reversed_kl
    return result


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else float("nan")
