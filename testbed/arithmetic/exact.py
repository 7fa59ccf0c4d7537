"""What an estimator really does on the network: exact moments in theta, by the engines of the exact theory.

For one prompt the network is a softmax policy over the prefixes of its answers, whose logits are functions of theta
with Jacobian J (S A, P). A score in theta is J' times a score in the logits, so that every expectation of an estimator
is pulled back: E[g_theta] = J' E[g_logits]. The squared norm of one answer's gradient in theta comes from the products
of its tokens' scores. Weights, signals, groups and engines are those of `theory`; nothing is implemented twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vjp, vmap

import theory
from testbed.arithmetic.model import ModelConfig, finite
from testbed.arithmetic.network_policy import NetworkPolicy, products_along_paths
from testbed.arithmetic.per_trajectory import score_products
from testbed.arithmetic.sampling import Sampler, behaviour_parameters, sampler_log_probs
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.tree import AnswerTree, answer_tree
from theory.engines.problem import EngineRefusal

Array = NDArray[np.float64]

MOST_JACOBIAN = 300_000_000
"""Numbers of a Jacobian, 2.4 GB: 1,221 logits of answers up to 3 tokens times 200,000 parameters."""
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class NetworkPrompt:
    """One prompt with the tabular policies that networks are on the tree of its answers. Tables are of float64."""

    logits: Callable[[Tensor], Tensor]
    """theta (P,) -> logits (S_p, A) after each prefix, differentiable by torch.func."""
    theta: Tensor
    """(P,) of the policy that is trained."""
    tree: AnswerTree
    target: theory.SoftmaxPolicy
    behaviour: theory.SoftmaxPolicy
    """What is sampled from: of other parameters, tempered, truncated or rounded."""
    old: theory.SoftmaxPolicy | None = None
    """The policy at the start of the update."""
    products: Callable[[Tensor], Tensor] | None = None
    """theta -> (S_p, A, T, T) products of the scores of each answer's tokens, such as `score_products`; without it they
    are taken from the Jacobian of all logits."""

    def pull_back(self, vectors: Array) -> Array:
        """J' v: from the logits (..., S A) to theta (..., P)."""
        S, A = self.target.logits.shape
        seeds = torch.from_numpy(vectors.reshape(-1, S, A)[:, : self.tree.prefixes].copy())
        theta = self.theta.detach().requires_grad_()
        logits, pulled = self.logits(theta), []
        for seed in seeds.to(theta.device):
            pulled.append(torch.autograd.grad(logits, theta, seed, retain_graph=True)[0])
        return np.asarray(torch.stack(pulled).cpu().numpy()).reshape(*vectors.shape[:-1], -1)

    @cached_property
    def gram(self) -> Array:
        """J J', (S_p A, S_p A), over the logits of the prefixes.

        Raises:
            ValueError: a Jacobian of over 3e8 numbers.
        """
        count = self.tree.prefixes * self.target.actions
        if count * len(self.theta) > MOST_JACOBIAN:
            raise EngineRefusal(
                f"the Jacobian of {count} logits in {len(self.theta)} parameters is beyond {MOST_JACOBIAN:.0e} "
                "numbers; expected shorter answers or a smaller network, or variance=False"
            )
        _, back = vjp(lambda theta: self.logits(theta).reshape(-1), self.theta.detach())
        jacobian = torch.empty(count, len(self.theta), dtype=torch.float64)
        for i in range(0, count, _CHUNK):
            seeds = torch.zeros(min(_CHUNK, count - i), count, dtype=torch.float64, device=self.theta.device)
            seeds[torch.arange(len(seeds)), i + torch.arange(len(seeds))] = 1.0
            jacobian[i : i + len(seeds)] = vmap(back)(seeds)[0].cpu()
        return np.asarray((jacobian @ jacobian.T).numpy())

    @cached_property
    def in_theta(self) -> NetworkPolicy:
        """The target with its scores in theta. Seconds for a thousand prefixes; kept."""
        if self.products is None:
            S = self.tree.prefixes
            found = products_along_paths(self.gram, self.target.probabilities[:S], self.tree.process.horizon)
        else:
            found = self.products(self.theta).cpu().numpy()
        return NetworkPolicy(self.target.logits, self.theta.detach().cpu().numpy(), self.pull_back, found)

    def moments(self, estimator: theory.Estimator, *, variance: bool = True, lag: Any = None) -> theory.Moments:
        """Mean, variance and gradient in theta for this prompt, by enumeration of all answers.

        The variance is NaN where it is not asked for. Where the coefficients of an answer depend on the others of its
        draw, it needs the Jacobian of all logits. baseline="optimal" is what minimises the variance in theta.

        Raises:
            ValueError: what `theory.moments` raises, such as too many batches of a weight that couples them.
        """
        ask = partial(
            theory.moments, self.tree.process, behaviour=self.behaviour, estimator=estimator, engine="enumeration",
            missing_support="allow", old=self.old, lag=lag,
        )  # fmt: skip
        coupled = estimator.weight.card.couples_batch and estimator.trajectories_per_draw > 1
        if not coupled and (variance or _looks_at_theta(estimator)):
            m = ask(target=self.in_theta)
            spread = m.variance if variance else float("nan")
            return theory.Moments(m.mean, spread, m.gradient, m.engine, m.trajectories_per_draw, m.lost_mass)
        m, spread = ask(target=self.target, covariance=variance), float("nan")
        if variance:
            count = len(self.gram)
            spread = float(max((self.gram * m.covariance[:count, :count]).sum(), 0.0))
        mean, gradient = self.pull_back(np.stack([m.mean, m.gradient]))
        return theory.Moments(mean, spread, gradient, m.engine, m.trajectories_per_draw, m.lost_mass)


def network_prompt(
    config: ModelConfig,
    theta: Tensor,
    task: ArithmeticTask,
    prompt: Tensor,
    *,
    behaviour_theta: Tensor | None = None,
    sampler: Sampler | None = None,
    old_theta: Tensor | None = None,
) -> NetworkPrompt:
    """A prompt with the policies of these parameters.

    The behaviour policy is computed in the dtype of its parameters, as what samples computes it; the others in float64.

    Args:
        config: sizes of the network.
        theta: (P,) of the policy that is trained.
        task: which answers there are and what they earn.
        prompt: (L,) tokens.
        behaviour_theta: (P,) of the policy that is sampled from; by default theta, in float64.
        sampler: what is made of its logits; by default nothing.
        old_theta: (P,) of the policy at the start of the update, for weights that tell three policies apart.

    Raises:
        ValueError: no single prompt of this task, parameters that do not fit the network, a network that writes others
            than the 11 tokens of an answer, a policy that is not a number, or answers so long that their tree has over
            20,000 prefixes.

    >>> from testbed.arithmetic import encode, initial_parameters, model_for
    >>> task = ArithmeticTask("modular_addition", digits=1, modulus=3)
    >>> config = model_for(task, layers=1, width=8)
    >>> theta = initial_parameters(config, 0)
    >>> pair = network_prompt(config, theta, task, encode("2+2="), behaviour_theta=1.1 * theta)
    >>> pair.tree.prefixes, pair.target.logits.shape  # two rewards end an answer, 0 and 1
    (11, (13, 11))
    """
    tree, exact = answer_tree(task, prompt), finite("theta", theta).detach().double()
    sampler = Sampler() if sampler is None else sampler
    with torch.no_grad():
        target = tree.policy(tree.logits(config, exact))
        other = exact if behaviour_theta is None else finite("behaviour_theta", behaviour_theta).detach()
        # What a serving engine computes in its own precision is computed here in the precision it is given.
        raw = tree.logits(config, behaviour_parameters(sampler, other))
        behaviour = tree.policy(sampler_log_probs(sampler, raw))
        old = None
        if old_theta is not None:
            start = finite("old_theta", old_theta).detach().double()
            old = target if torch.equal(start, exact) else tree.policy(tree.logits(config, start))
    products = partial(score_products, config, task=task, prompt=prompt)
    return NetworkPrompt(partial(tree.logits, config), exact, tree, target, behaviour, old, products)


def network_moments(
    prompts: NetworkPrompt | Sequence[NetworkPrompt],
    estimator: theory.Estimator,
    *,
    variance: bool = True,
    lag: Any = None,
) -> theory.Moments:
    """Exact moments in theta of one draw of an estimator whose prompt is drawn uniformly from these.

    E[g] = average of E[g | prompt]; E|g|^2 = average of E[|g|^2 | prompt]; the truth is the gradient of the average
    reward. One draw is one answer, or one group of answers to one prompt.

    Args:
        prompts: made by `network_prompt`, with the same theta; or a single one.
        estimator: weight x signal x score x reduction; a reduction over a batch must be that of a group.
        variance: also the variance: about three seconds per prompt for answers of four tokens and a network of
            100,000 parameters, once for all estimators, and another quarter of a second for each.
        lag: as in `theory.moments`.

    Raises:
        ValueError: no prompt, prompts of different networks, a batch that is no group, or what `theory.moments` raises.

    >>> from testbed.arithmetic import encode, initial_parameters, model_for
    >>> task = ArithmeticTask("modular_addition", digits=1, modulus=3)
    >>> config = model_for(task, layers=1, width=8)
    >>> theta = initial_parameters(config, 0)
    >>> pair = network_prompt(config, theta, task, encode("2+2="), behaviour_theta=1.1 * theta)
    >>> token, sequence = (
    ...     network_moments(pair, theory.Estimator(weight, "outcome")) for weight in ("token", "sequence")
    ... )
    >>> token.relative_bias > 0.01, sequence.relative_bias < 1e-10
    (True, True)
    >>> sequence.variance > token.variance > 0.0
    True
    """
    prompts = _checked(prompts, estimator)
    each = [prompt.moments(estimator, variance=variance, lag=lag) for prompt in prompts]
    mean = np.mean([m.mean for m in each], axis=0)
    second = float(np.mean([m.variance + float(m.mean @ m.mean) for m in each]))
    return theory.Moments(
        mean, max(second - float(mean @ mean), 0.0) if variance else float("nan"),
        np.mean([m.gradient for m in each], axis=0), each[0].engine, each[0].trajectories_per_draw,
        float(np.mean([m.lost_mass for m in each])),
    )  # fmt: skip


def network_decomposition(
    prompts: NetworkPrompt | Sequence[NetworkPrompt], estimator: theory.Estimator, *, lag: Any = None
) -> dict[str, Array]:
    """The bias of `network_moments` as named (P,) terms that sum to it: those of `theory.decompose`, pulled back.

    Args:
        prompts: as in `network_moments`.
        estimator: as there.
        lag: as in `theory.moments`.

    Raises:
        ValueError: what `network_moments` or `theory.decompose` raises.

    >>> from testbed.arithmetic import encode, initial_parameters, model_for
    >>> task = ArithmeticTask("modular_addition", digits=1, modulus=3)
    >>> config = model_for(task, layers=1, width=8)
    >>> theta = initial_parameters(config, 0)
    >>> pair = network_prompt(config, theta, task, encode("2+2="), behaviour_theta=1.1 * theta)
    >>> parts = network_decomposition(pair, theory.Estimator("token", "target_advantage"))
    >>> [name for name, vector in parts.items() if np.abs(vector).max() > 1e-9]
    ['occupancy']
    """
    prompts = _checked(prompts, estimator)
    totals: dict[str, Array] = {}
    in_theta = _looks_at_theta(estimator)
    for prompt in prompts:
        parts = theory.decompose(
            prompt.tree.process, prompt.in_theta if in_theta else prompt.target, prompt.behaviour, estimator,
            "enumeration", missing_support="allow", old=prompt.old, lag=lag,
        )  # fmt: skip
        found = np.stack(list(parts.terms.values()))
        for name, vector in zip(parts.terms, found if in_theta else prompt.pull_back(found), strict=True):
            totals[name] = totals.get(name, 0.0) + vector / len(prompts)
    return totals


def _checked(prompts: NetworkPrompt | Sequence[NetworkPrompt], estimator: theory.Estimator) -> Sequence[NetworkPrompt]:
    """The prompts as a sequence, once it is seen that one draw of the estimator can be of a random one of them."""
    if not isinstance(estimator, theory.Estimator):
        raise ValueError(f"estimator is {estimator!r}; expected theory.Estimator(weight=..., signal=...)")
    prompts = [prompts] if isinstance(prompts, NetworkPrompt) else list(prompts)
    if not prompts:
        raise ValueError("prompts is empty; expected at least one prompt")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, NetworkPrompt):
            raise ValueError(f"prompts[{i}] is a {type(prompt).__name__}; expected what network_prompt gives")
        if not torch.equal(prompt.theta, prompts[0].theta):
            raise ValueError(f"prompts[{i}] is of another theta than prompts[0]; expected one network for all prompts")
    if estimator.reduction.batch > 1 and estimator.trajectories_per_draw != getattr(estimator.signal, "size", 1):
        raise ValueError(
            f"reduction {estimator.reduction.name}(batch={estimator.reduction.batch}) mixes answers to several prompts"
            "; expected a group signal, or a reduction without a batch"
        )
    return prompts


def _looks_at_theta(estimator: theory.Estimator) -> bool:
    """Whether the mean itself depends on lengths of vectors in theta."""
    return bool(getattr(estimator.signal, "baseline", None) == "optimal")
