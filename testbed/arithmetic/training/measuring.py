"""What is logged of a run: of every update, of the policy exactly, of the estimator exactly."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

import theory
from testbed.arithmetic.exact import network_moments, network_prompt
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.splitting import split
from testbed.arithmetic.task import right_answers
from testbed.arithmetic.training.gradient import BatchGradient, Behaviour
from testbed.arithmetic.training.settings import Training
from testbed.arithmetic.trees import (
    tree_divergences,
    tree_entropy,
    tree_log_probs,
    tree_rewards,
    tree_values,
)
from testbed.arithmetic.warmup import right_answer_log_probs
from theory.engines.problem import EngineRefusal
from theory.weights.products import product
from theory.weights.tokens import Tokens, tokens_of

Row = dict[str, float]

PASS_AT = tuple(2**i for i in range(1, 8))
CLIPPED_PRODUCTS = ("cispo", "gspo", "minpro", "ppo_clip")
"""Weights whose option `clip` bounds the product of ratios that they start from."""
_QUANTILES = {"ratio_min": 0.0, "ratio_q01": 0.01, "ratio_q50": 0.5, "ratio_q99": 0.99, "ratio_max": 1.0}
# Where two coefficients differ by rounding alone they are the same.
_SAME = 1e-9


def columns(settings: Training) -> dict[str, str]:
    """Column -> what it holds, in the order of the table."""
    T, trees, exact = settings.task.maximum_length, settings.tree_prompts, settings.exact_prompts
    return {
        "step": "updates made before: the row is of the policy after so many",
        "reward": "mean over the answers of the update",
        "length": "mean tokens of its answers, the end token included",
        "ratio_min": "smallest pi / mu of a token of the update",
        "ratio_q01": "quantile 0.01 of pi / mu over its tokens",
        "ratio_q50": "median",
        "ratio_q99": "quantile 0.99",
        "ratio_max": "largest",
        "kl_sampled": "mean of pi / mu - 1 - log(pi / mu) over its tokens (k3), an estimate of KL(mu || pi) per token",
        "clip_fraction": "share of tokens whose coefficient is not the product of ratios that the weight starts from: "
        "clipped, masked, or bent",
        "zero_fraction": "share of tokens with a coefficient of zero",
        "floor_fraction": "share of tokens whose weight, before the clip, is below the clip's lower bound; NaN where "
        "the clip bounds something else",
        "ceiling_fraction": "share of tokens whose weight, before the clip, is above the clip's upper bound",
        **{f"floor_{t + 1}": f"floor_fraction of the tokens at position {t + 1} of the answer" for t in range(T)},
        "gradient_norm": "length of the gradient, before it is shortened",
        "expected_reward": f"exact, on held-out prompts; with credit per digit on {trees} of them",
        "accuracy": "exact probability of the right answer on held-out prompts: pass@1",
        "greedy_accuracy": "share of held-out prompts that greedy decoding answers right",
        **{f"pass_at_{k}": f"exact probability that one of {k} answers is right" for k in PASS_AT},
        "entropy": f"nats per token of the policy, exact, on {trees} held-out prompts",
        "kl_behaviour_policy": f"KL(mu || pi), nats per token of mu, exact, on {trees} held-out prompts",
        "kl_policy_behaviour": f"KL(pi || mu), nats per token of pi, exact, on {trees} held-out prompts",
        "ess": "effective sample size of sequence ratios as a share, 1 / E_mu[W^2], exact, mean over "
        f"{trees} held-out prompts; 0 where support is lost",
        "lost_mass": f"probability under pi of answers that mu never gives, exact, on {trees} held-out prompts",
        "relative_bias": f"|E[g_hat] - g| / |g| of the estimator in use, exact, on {exact} training prompts",
        "cosine": f"of E[g_hat] and g, exact, on {exact} training prompts",
        "effective_step": f"|E[g_hat]| / |g|, exact, on {exact} training prompts",
        "relative_standard_deviation": "sqrt(trace of the covariance) / |g| of one draw, exact, on "
        f"{exact} training prompts",
    }


class Monitor:
    """The prompts that a run is measured on, the same for every seed."""

    def __init__(self, settings: Training, device: torch.device) -> None:
        """Choose them."""
        self.settings, self.device = settings, device
        sides = split(settings.task)
        generator = torch.Generator().manual_seed(0)

        def some(prompts: Tensor, count: int, skip: int = 0) -> Tensor:
            return prompts[torch.randperm(len(prompts), generator=generator)[skip : skip + count]].to(device)

        self.held_out = some(sides.held_out, settings.evaluation_prompts, settings.evaluation_skip)
        self.trees = self.held_out[: settings.tree_prompts]
        self.training = some(sides.training, settings.exact_prompts)

    @cached_property
    def _right(self) -> Tensor:
        return right_answers(self.settings.task, self.held_out)

    def policy(self, theta: Tensor, behaviour: Behaviour) -> Row:
        """Exact numbers of the policy and of its distance from what the next answers are sampled from."""
        task, config = self.settings.task, self.settings.config
        with torch.no_grad():
            log_prob, greedy = right_answer_log_probs(config, theta, self.held_out, self._right)
            right = log_prob.double().exp().clamp(max=1.0)
            trees = self._trees(theta, behaviour) if len(self.trees) else {}
        row = {
            "accuracy": float(right.mean()),
            "greedy_accuracy": float(torch.where(right.isnan(), torch.nan, greedy.double()).mean()),
            **{f"pass_at_{k}": float((1.0 - (1.0 - right) ** k).mean()) for k in PASS_AT},
        }
        # Where only the right answer earns something, that is all.
        return row | ({} if task.per_digit_credit else {"expected_reward": row["accuracy"]}) | trees

    def _trees(self, theta: Tensor, behaviour: Behaviour) -> Row:
        """What has to be summed over all answers."""
        task, config = self.settings.task, self.settings.config
        pi = tree_log_probs(config, theta, task, self.trees)
        itself = behaviour.sampler == Sampler() and torch.equal(behaviour.theta, theta)
        mu = pi if itself else tree_log_probs(config, behaviour.theta, task, self.trees, behaviour.sampler)
        entropy, tokens = tree_entropy(task, pi)
        apart = tree_divergences(task, pi, mu)
        row = {
            "entropy": float(entropy.sum() / tokens.sum()),
            "kl_behaviour_policy": float(apart.kl_behaviour_policy.sum() / apart.tokens_behaviour.sum()),
            "kl_policy_behaviour": float(apart.kl_policy_behaviour.sum() / apart.tokens_policy.sum()),
            "ess": float(apart.ess.mean()),
            "lost_mass": float(apart.lost_mass.mean()),
        }
        if task.per_digit_credit:
            earned = tree_values(task, tree_rewards(task, self.trees), pi).expected_reward
            row["expected_reward"] = float(earned.mean())
        return row

    def estimator(self, theta: Tensor, behaviour: Behaviour) -> Row:
        """Exact bias, and variance where asked for, of the estimator in use.

        Raises:
            EngineRefusal: no exact engine takes it.
        """
        s = self.settings
        if s.coupled == "update" and s.estimator.weight.card.couples_batch:
            raise EngineRefusal(
                f"{s.estimator.weight.label} looks at all answers of an update (coupled='update'), of which there "
                "are no exact moments; coupled='draw' has them where an engine takes the draw"
            )
        prompts = [
            network_prompt(
                s.config, theta, s.task, prompt, behaviour_theta=behaviour.theta, sampler=behaviour.sampler,
                old_theta=theta if behaviour.old_theta is None else behaviour.old_theta,
            )
            for prompt in self.training
        ]  # fmt: skip
        m = network_moments(prompts, s.estimator, variance=s.exact_variance, lag=behaviour.lag)
        norm = float(m.gradient @ m.gradient) ** 0.5
        return {
            "relative_bias": m.relative_bias,
            "cosine": m.cosine,
            "effective_step": float(m.mean @ m.mean) ** 0.5 / norm if norm > 0.0 else math.nan,
            "relative_standard_deviation": m.variance**0.5 / norm if norm > 0.0 else math.nan,
        }


def of_update(estimator: theory.Estimator, made: BatchGradient, mask: Tensor) -> Row:
    """What the tokens of an update were given."""
    row = {
        "reward": float(made.outcome.mean()),
        "length": float(mask.sum(1).double().mean()),
        "gradient_norm": float(made.gradient.double().norm()),
    }
    if bool(torch.isnan(made.coefficients).any()):
        return row
    count = mask.sum().double()
    log_ratio = made.log_ratio[mask].cpu()
    ratio = log_ratio.exp()
    spread = torch.quantile(ratio, torch.tensor(list(_QUANTILES.values()), dtype=ratio.dtype))
    before = product(_tokens(made, mask), estimator.weight.parts)
    off = (made.coefficients - before).abs() > _SAME * before.abs()

    def share(which: Tensor) -> float:
        return float((which & mask).sum().double() / count)

    row |= {
        **dict(zip(_QUANTILES, spread.tolist(), strict=True)),
        "kl_sampled": float((torch.expm1(log_ratio) - log_ratio).mean()),
        "clip_fraction": share(off),
        "zero_fraction": share(made.coefficients == 0.0),
    }
    clip = estimator.weight.options.get("clip")
    if clip is None or estimator.weight.name not in CLIPPED_PRODUCTS:
        return row
    below = (before < clip[0]) & mask
    positions = below.sum(0).double() / mask.sum(0)
    return row | {
        "floor_fraction": share(below),
        "ceiling_fraction": share(before > clip[1]),
        **{f"floor_{t + 1}": value for t, value in enumerate(positions.tolist())},
    }


def _tokens(made: BatchGradient, mask: Tensor) -> Tokens:
    return tokens_of(made.log_ratio, mask, None, {}, None, needs_advantage=False, name="product of parts")
