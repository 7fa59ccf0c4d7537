"""What an estimator really does on the network: exact moments in theta, by the engines of the exact theory.

For one prompt the network is a softmax policy over the prefixes of its answers, whose logits are functions of theta
with Jacobian J (S A, P). A score in theta is J' times a score in the logits, so that every expectation of an estimator
is pulled back: E[g_theta] = J' E[g_logits], and the trace of its covariance is that of J J' Cov[g_logits]. Weights,
signals, groups and engines are those of `theory`; nothing is implemented twice.
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
from testbed.arithmetic.model import ModelConfig
from testbed.arithmetic.sampling import Sampler, behaviour_log_probs, behaviour_parameters
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.tree import AnswerTree, answer_tree

Array = NDArray[np.float64]

MOST_JACOBIAN = 300_000_000
"""Numbers of a Jacobian, 2.4 GB: 1,221 logits of answers up to 3 tokens times 200,000 parameters."""
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class NetworkPrompt:
    """One prompt with the tabular policies that networks are on the tree of its answers. All in float64."""

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

    def pull_back(self, vector: Array) -> Array:
        """J' v: from the logits (S A,) to theta (P,)."""
        seeds = torch.from_numpy(vector.reshape(self.target.logits.shape)[: self.tree.prefixes].copy())
        theta = self.theta.detach().requires_grad_()
        (pulled,) = torch.autograd.grad(self.logits(theta), theta, seeds.to(theta.device))
        return np.asarray(pulled.cpu().numpy())

    @cached_property
    def gram(self) -> Array:
        """J J', (S_p A, S_p A), over the logits of the prefixes.

        Raises:
            ValueError: a Jacobian of over 3e8 numbers.
        """
        count = self.tree.prefixes * self.target.actions
        if count * len(self.theta) > MOST_JACOBIAN:
            raise ValueError(
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

    def moments(self, estimator: theory.Estimator, *, variance: bool = True, lag: Any = None) -> theory.Moments:
        """Mean, variance and gradient in theta for this prompt; NaN for a variance that is not asked for."""
        m = theory.moments(
            self.tree.process, self.target, self.behaviour, estimator, "enumeration" if variance else "auto",
            covariance=variance, missing_support="allow", old=self.old, lag=lag,
        )  # fmt: skip
        spread = float("nan")
        if variance:
            count = len(self.gram)
            spread = float(max((self.gram * m.covariance[:count, :count]).sum(), 0.0))
        return theory.Moments(
            self.pull_back(m.mean), spread, self.pull_back(m.gradient), m.engine, m.trajectories_per_draw, m.lost_mass
        )


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
    """A prompt with the policies of these parameters, computed in float64.

    Args:
        config: sizes of the network.
        theta: (P,) of the policy that is trained.
        task: which answers there are and what they earn.
        prompt: (L,) tokens.
        behaviour_theta: (P,) of the policy that is sampled from; default theta.
        sampler: what is made of its logits; default nothing.
        old_theta: (P,) of the policy at the start of the update, for weights that tell three policies apart.
    """
    tree, exact = answer_tree(task, prompt), theta.detach().double()
    sampler = Sampler() if sampler is None else sampler
    with torch.no_grad():
        target = tree.policy(tree.logits(config, exact))
        other = exact if behaviour_theta is None else behaviour_theta.detach()
        # What a serving engine computes in its own precision is computed here in the precision it is given.
        raw = tree.logits(config, behaviour_parameters(sampler, other))
        behaviour = tree.policy(behaviour_log_probs(sampler, raw))
        old = None if old_theta is None else tree.policy(tree.logits(config, old_theta.detach().double()))
    return NetworkPrompt(partial(tree.logits, config), exact, tree, target, behaviour, old)


def network_moments(
    prompts: Sequence[NetworkPrompt], estimator: theory.Estimator, *, variance: bool = True, lag: Any = None
) -> theory.Moments:
    """Exact moments in theta of one draw of an estimator whose prompt is drawn uniformly from these.

    E[g] = average of E[g | prompt]; E|g|^2 = average of E[|g|^2 | prompt]; the truth is the gradient of the average
    reward. One draw is one answer, or one group of answers to one prompt.

    Args:
        prompts: made by `network_prompt`, with the same theta.
        estimator: weight x signal x score x reduction; a reduction over a batch must be that of a group.
        variance: also the variance, which needs the Jacobian of all logits (seconds per prompt).
        lag: as in `theory.moments`.

    Raises:
        ValueError: no prompt, a batch that is no group, or what `theory.moments` raises.
    """
    if not prompts:
        raise ValueError("prompts is empty; expected at least one prompt")
    if estimator.reduction.batch > 1 and estimator.trajectories_per_draw != getattr(estimator.signal, "size", 1):
        raise ValueError(
            f"reduction {estimator.reduction.name}(batch={estimator.reduction.batch}) mixes answers to several prompts"
            "; expected a group signal, or a reduction without a batch"
        )
    each = [prompt.moments(estimator, variance=variance, lag=lag) for prompt in prompts]
    mean = np.mean([m.mean for m in each], axis=0)
    second = float(np.mean([m.variance + float(m.mean @ m.mean) for m in each]))
    return theory.Moments(
        mean, max(second - float(mean @ mean), 0.0) if variance else float("nan"),
        np.mean([m.gradient for m in each], axis=0), each[0].engine, each[0].trajectories_per_draw,
        float(np.mean([m.lost_mass for m in each])),
    )  # fmt: skip


def network_decomposition(prompts: Sequence[NetworkPrompt], estimator: theory.Estimator) -> dict[str, Array]:
    """The bias of `network_moments` as named (P,) terms that sum to it: those of `theory.decompose`, pulled back."""
    totals: dict[str, Array] = {}
    for prompt in prompts:
        parts = theory.decompose(
            prompt.tree.process, prompt.target, prompt.behaviour, estimator, missing_support="allow", old=prompt.old
        )
        for name, vector in parts.terms.items():
            totals[name] = totals.get(name, 0.0) + prompt.pull_back(vector) / len(prompts)
    return totals


@dataclass(frozen=True)
class Evaluation:
    """What a policy earns, exactly, on average over prompts."""

    expected_reward: float
    accuracy: float
    """Probability of the right answer when one is sampled: pass@1."""
    greedy_accuracy: float
    """Share of prompts whose likeliest token at each step gives the right answer."""
    pass_at: dict[int, float]
    """k -> probability that at least one of k sampled answers is right, 1 - (1 - p)^k averaged over prompts."""
    entropy: float
    """Nats per token, under the policy itself."""
    length: float
    """Expected number of tokens, the end token included."""


def evaluate(
    config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompts: Tensor, sampler: Sampler | None = None
) -> Evaluation:
    """Exact expected reward, accuracy, pass@k for k = 1, 2, 4, ..., 128 and entropy on prompts (M, L)."""
    each = [network_prompt(config, theta, task, prompt, sampler=sampler) for prompt in prompts]
    rows = [_prompt_statistics(p) for p in each]
    right = np.array([row[1] for row in rows])
    tokens = float(np.sum([row[4] for row in rows]))
    return Evaluation(
        expected_reward=float(np.mean([row[0] for row in rows])),
        accuracy=float(right.mean()),
        greedy_accuracy=float(np.mean([row[2] for row in rows])),
        pass_at={2**i: float(np.mean(-np.expm1(2**i * np.log1p(-np.minimum(right, 1 - 1e-16))))) for i in range(8)},
        entropy=float(np.sum([row[3] for row in rows])) / tokens,
        length=tokens / len(rows),
    )


def _prompt_statistics(prompt: NetworkPrompt) -> tuple[float, float, float, float, float]:
    """Expected reward, probability of reward 1, whether greedy decoding earns it, total entropy, expected tokens."""
    process, policy, S = prompt.tree.process, prompt.behaviour, prompt.tree.prefixes
    v = theory.values(process, policy)
    right = v.occupancy[-1][S:] @ (process.terminal_reward[S:] == 1.0)
    visits = v.occupancy[:-1, :S].sum(axis=0)
    p = policy.probabilities[:S]
    entropy = -(np.where(p > 0.0, p * np.log(np.where(p > 0.0, p, 1.0)), 0.0)).sum(axis=1)
    step = process.transition_matrix.reshape(process.states * process.actions, process.states)
    state = 0
    for _ in range(process.horizon):
        if state >= S:
            break
        state = int(step[[state * process.actions + int(p[state].argmax())]].argmax())
    greedy = float(state >= S and process.terminal_reward[state] == 1.0)
    return v.expected_return, float(right), greedy, float(visits @ entropy), float(visits.sum())
