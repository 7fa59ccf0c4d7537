"""The trees of all answers to M prompts at once: logits, values, visits and divergences, level by level.

All answers of one task share one tree. State first[k] + v, with first[k] = (10^k - 1) / 9, is the prefix of k digits
that write the number v, for k = 0..T-1: shorter prefixes first, as in `AnswerTree`. The children of v are 10 v + digit;
the end token, and any token at the last position, ends the answer.

Shapes: M prompts of L tokens, S_p prefixes, A answer tokens, T tokens in the longest answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from testbed.arithmetic.model import Layer, ModelConfig, embedded, fed_forward, prefill, read_out, unpack
from testbed.arithmetic.sampling import Sampler, behaviour_parameters, sampler_log_probs
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.verifier import rewards
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, END, named, token_rows
from theory import checks

MOST_PREFIXES = 20_000
"""Prefixes of a tree: answers of up to 5 tokens have 11,111."""

DIGITS = 10


def first_states(task: ArithmeticTask) -> list[int]:
    """The state of the first prefix of each length 0..T-1, and S_p.

    Raises:
        ValueError: answers so long that the tree has over 20,000 prefixes.
    """
    T = task.maximum_length
    first = [(DIGITS**k - 1) // (DIGITS - 1) for k in range(T + 1)]
    if first[-1] > MOST_PREFIXES:
        raise ValueError(
            f"answers of up to {T} tokens have {first[-1]} prefixes; expected at most {MOST_PREFIXES}: "
            "fewer digits, less slack"
        )
    return first


def prefix_states(answers: Tensor) -> Tensor:
    """(N, T) int64 state of the prefix that stands before each token of answers (N, T); past the end some state.

    Raises:
        ValueError: no rows of tokens.

    >>> prefix_states(torch.tensor([[4, 2, 10]])).tolist()
    [[0, 5, 53]]
    """
    answers = token_rows("answers", answers)
    columns, value = [], torch.zeros_like(answers[:, 0])
    for t in range(answers.shape[1]):
        columns.append((DIGITS**t - 1) // (DIGITS - 1) + value)
        value = DIGITS * value + answers[:, t].clamp(0, DIGITS - 1)
    return torch.stack(columns, 1)


def tree_logits(config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompts: Tensor) -> Tensor:
    """(M, S_p, A) logits of the network after each prefix of an answer to each prompt (M, L); differentiable.

    Each distinct prefix is fed once: the token that ends it attends to the prompt and to the tokens of its ancestors.

    Raises:
        ValueError: a tree of over 20,000 prefixes, more tokens than the network's context, or one that writes others
            than the 11 of an answer.
    """
    if config.outputs != ANSWER_TOKENS:
        raise ValueError(f"outputs is {config.outputs}; expected {ANSWER_TOKENS}, the digits and the end token")
    T = len(first_states(task)) - 1
    weights, prompts = unpack(config, theta), token_rows("prompts", prompts)
    at_first, state = prefill(config, theta, prompts, 0)
    digit = torch.arange(DIGITS, device=theta.device)[:, None].expand(-1, T - 1)
    fed = embedded(config, weights, digit, prompts.shape[1])
    # What is fed is the same for all prompts, and so are the first layer's queries, keys and values.
    x = torch.cat([fed[:, k].repeat(DIGITS**k, 1) for k in range(T - 1)])[None]
    for layer, keys, values in zip(weights.layers, state.keys, state.values, strict=True):
        x = x + _attended(config, layer, x, keys, values, T - 1) @ layer.mix
        x = fed_forward(layer, x)
    return torch.cat([at_first[:, None], read_out(weights, x)], 1)


def _attended(
    config: ModelConfig, layer: Layer, x: Tensor, past_keys: Tensor, past_values: Tensor, depth: int
) -> Tensor:
    """(M, N, width) what the last tokens x (M or 1, N, width) of the prefixes of 1..depth digits attend to.

    The prefixes below one ancestor are adjacent, so that a view brings the ancestor's key to all of them.
    """
    sizes = [DIGITS**k for k in range(1, depth + 1)]
    projected = functional.layer_norm(x, (config.width,), layer.attention_scale) @ layer.query_key_value
    # (M or 1, N, 3, H, d) to three of (M or 1, H, N, d)
    query, key, value = projected.unflatten(-1, (3, config.heads, -1)).permute(2, 0, 3, 1, 4)
    query = query * query.shape[-1] ** -0.5
    keys, values = key.split(sizes, 2), value.split(sizes, 2)
    before, mixed = (query @ past_keys.mT).split(sizes, 2), []
    for k, (own, seen) in enumerate(zip(query.split(sizes, 2), before, strict=True)):
        scores = [(own.unflatten(2, (sizes[j], -1)) * keys[j][:, :, :, None]).sum(-1).flatten(2) for j in range(k + 1)]
        along = torch.stack(scores, -1).expand(*seen.shape[:-1], -1)
        share = torch.cat([seen, along], -1).softmax(-1)
        earlier, along = share.split([seen.shape[-1], k + 1], -1)
        total = earlier @ past_values
        for j in range(k + 1):
            part = along[..., j].unflatten(2, (sizes[j], -1))[..., None] * values[j][:, :, :, None]
            total = total + part.flatten(2, 3)
        mixed.append(total)
    return torch.cat(mixed, 2).transpose(1, 2).flatten(2)


def tree_log_probs(
    config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompts: Tensor, sampler: Sampler | None = None
) -> Tensor:
    """(M, S_p, A) float64 log-probabilities after each prefix: the network's, or what a sampler makes of it.

    Computed in the dtype of theta; differentiable as `behaviour_log_probs` is. Tokens that a sampler never draws have
    -inf. NaN where the network's logits are no numbers.

    Raises:
        ValueError: what `tree_logits` raises.

    >>> from testbed.arithmetic import encode, initial_parameters
    >>> config, task = ModelConfig(context=9), ArithmeticTask()
    >>> tree_log_probs(config, initial_parameters(config, 0), task, encode("07+35=")).shape
    torch.Size([1, 1111, 11])
    """
    if sampler is None:
        return tree_logits(config, theta, task, prompts).double().log_softmax(-1)
    return sampler_log_probs(sampler, tree_logits(config, behaviour_parameters(sampler, theta), task, prompts))


def tree_rewards(task: ArithmeticTask, prompts: Tensor) -> Tensor:
    """(M, S_p, A) float64 reward that each action pays by ending the answer after each prefix; 0 where it goes on.

    Raises:
        ValueError: prompts (M, L) that are none of this task, or a tree of over 20,000 prefixes.

    >>> from testbed.arithmetic.vocabulary import encode
    >>> tree_rewards(ArithmeticTask(), encode("07+35=")).nonzero().tolist()  # prefix 42 is state 11 + 42
    [[0, 53, 10]]
    """
    prompts = token_rows("prompts", prompts)
    answers = _answers(task).to(prompts.device)
    paid = rewards(task, prompts[:, None], answers)
    S, first = first_states(task)[-1], first_states(task)[-2]
    table = paid.new_zeros((len(prompts), S, END + 1))
    table[:, :, END] = paid[:, :S]
    table[:, first:, :DIGITS] = paid[:, S:].unflatten(1, (-1, DIGITS))
    return table


@lru_cache(maxsize=8)
def _answers(task: ArithmeticTask) -> Tensor:
    """(S_p + 10^T, T) the answer that ends after each prefix, then those that never end."""
    T, rows = len(first_states(task)) - 1, []
    for k in range(T + 1):
        value = torch.arange(DIGITS**k)
        written = value[:, None] // DIGITS ** torch.arange(k - 1, -1, -1) % DIGITS
        rows.append(functional.pad(written, (0, T - k), value=END))
    return torch.cat(rows)


@dataclass(frozen=True, eq=False)
class TreeValues:
    """Values of one policy on the trees, float64, without discount."""

    state: Tensor
    """(M, S_p) V: expected reward from the prefix on."""
    action: Tensor
    """(M, S_p, A) Q."""
    advantage: Tensor
    """(M, S_p, A) Q - V."""
    expected_reward: Tensor
    """(M,) V of the empty prefix."""


def tree_values(task: ArithmeticTask, rewards: Tensor, log_probs: Tensor) -> TreeValues:
    """V and Q of the policy with these log-probabilities, by the backward recursion.

    Q(s, a) = reward(s, a) + V(s a) where the answer goes on, V(s) = sum over a of pi(a|s) Q(s, a)
    (Sutton & Barto 2018, eq. 4.3 and 4.4).

    Args:
        task: whose answers they are.
        rewards: (M, S_p, A) of `tree_rewards`.
        log_probs: (M, S_p, A) of `tree_log_probs`.

    Raises:
        ValueError: tables of other shapes than these, or log-probabilities of no distribution.

    >>> from testbed.arithmetic.vocabulary import encode
    >>> task = ArithmeticTask("modular_addition", digits=1, modulus=3)
    >>> uniform = torch.full((1, 11, 11), 1 / 11).log()
    >>> values = tree_values(task, tree_rewards(task, encode("2+2=")), uniform)
    >>> round(float(values.expected_reward[0] * 121), 6)  # the answer is 1 and the end token
    1.0
    """
    S = first_states(task)[-1]
    chance, rewards = _log_distributions("log_probs", log_probs, S).exp(), _table("rewards", rewards, S)
    _same(rewards, chance, "rewards", "log_probs")
    states: list[Tensor] = []
    actions: list[Tensor] = []
    for paid, p in zip(reversed(_levels(task, rewards)), reversed(_levels(task, chance)), strict=True):
        action = paid
        if states:
            # Only digits go on.
            action = action + functional.pad(states[-1].unflatten(1, (-1, DIGITS)), (0, 1))
        actions.append(action)
        states.append((p * action).sum(-1))
    state, action = torch.cat(states[::-1], 1), torch.cat(actions[::-1], 1)
    return TreeValues(state, action, action - state[..., None], state[:, 0])


def tree_visits(task: ArithmeticTask, log_probs: Tensor) -> Tensor:
    """(M, S_p) float64 probability that each prefix occurs, and its next token is chosen.

    Raises:
        ValueError: log_probs are not those of distributions, (M, S_p, A).
    """
    return _visits(task, _log_distributions("log_probs", log_probs, first_states(task)[-1]))


def _visits(task: ArithmeticTask, log_probs: Tensor) -> Tensor:
    levels = _levels(task, log_probs.exp())
    visits = [torch.ones_like(levels[0][:, :, 0])]
    for p in levels[:-1]:
        visits.append((visits[-1][..., None] * p[..., :DIGITS]).flatten(1))
    return torch.cat(visits, 1)


def tree_entropy(task: ArithmeticTask, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) entropy of the whole answer in nats, E[sum over t of H(pi(.|s_t))], and (M,) its expected tokens.

    Raises:
        ValueError: log_probs are not those of distributions, (M, S_p, A).
    """
    log_p = _log_distributions("log_probs", log_probs, first_states(task)[-1])
    visits = _visits(task, log_p)
    return (visits * -_expectation(log_p, log_p).sum(-1)).sum(1), visits.sum(1)


@dataclass(frozen=True, eq=False)
class TreeDivergences:
    """How far a policy pi is from a behaviour policy mu on each prompt, each (M,) float64. Of whole answers."""

    kl_behaviour_policy: Tensor
    """KL(mu || pi) in nats; inf where pi never takes a token that mu takes."""
    kl_policy_behaviour: Tensor
    """KL(pi || mu) in nats; inf where mu never takes a token that pi takes."""
    tokens_behaviour: Tensor
    """E_mu[L]: the first divergence per token is their ratio."""
    tokens_policy: Tensor
    """E_pi[L]: the same of the second."""
    ess: Tensor
    """1 / E_mu[rho^2] with rho the ratio of the whole answer, in (0, 1]; 0 where support is lost, as the theory has it
    (the chi-square divergence of pi from mu is then infinite)."""
    lost_mass: Tensor
    """Probability under pi of the answers that mu never gives."""


def tree_divergences(task: ArithmeticTask, policy_log_probs: Tensor, behaviour_log_probs: Tensor) -> TreeDivergences:
    """Exact divergences of whole answers from log-probabilities, both (M, S_p, A).

    KL(mu || pi) = sum over s of P_mu(s) KL(mu(.|s) || pi(.|s)) (chain rule, Cover & Thomas 2006, theorem 2.5.3);
    E_mu[rho^2] by M(s) = sum over a of pi(a|s)^2 / mu(a|s) M(s a), 1 where the answer ends. NaN where a policy is not a
    number.

    Raises:
        ValueError: tables of other shapes than these, of different ones, or of no distributions.

    >>> task = ArithmeticTask("modular_addition", digits=1, modulus=3)
    >>> likes = torch.zeros(1, 11, 11)
    >>> likes[:, :, 10] = 1.0  # the end token
    >>> uniform, other = (torch.log_softmax(logits, -1) for logits in (0.0 * likes, likes))
    >>> apart = tree_divergences(task, uniform, other)
    >>> [round(float(x), 4) for x in (apart.kl_behaviour_policy, apart.ess, apart.lost_mass)]
    [0.1225, 0.8445, 0.0]
    """
    S = first_states(task)[-1]
    log_pi = _log_distributions("policy_log_probs", policy_log_probs, S)
    log_mu = _log_distributions("behaviour_log_probs", behaviour_log_probs, S)
    _same(log_pi, log_mu, "policy_log_probs", "behaviour_log_probs")
    ours, theirs = _visits(task, log_pi), _visits(task, log_mu)
    second: list[Tensor] = []
    kept: list[Tensor] = []
    for pi, mu in zip(reversed(_levels(task, log_pi)), reversed(_levels(task, log_mu)), strict=True):
        share = torch.where(torch.isneginf(pi), 0.0, (2.0 * pi - mu).exp())
        after = functional.pad(second[-1].unflatten(1, (-1, DIGITS)), (0, 1), value=1.0) if second else 1.0
        # A share of zero of what is infinite is nothing; what is not a number stays so.
        second.append(torch.where(share == 0.0, 0.0, share * after).sum(-1))
        given = torch.where(mu.isnan(), mu, torch.where(torch.isneginf(mu), 0.0, pi.exp()))
        later = functional.pad(kept[-1].unflatten(1, (-1, DIGITS)), (0, 1), value=1.0) if kept else 1.0
        kept.append((given * later).sum(-1))
    return TreeDivergences(
        _total(theirs, _expectation(log_mu, log_mu - log_pi).sum(-1)),
        _total(ours, _expectation(log_pi, log_pi - log_mu).sum(-1)),
        theirs.sum(1),
        ours.sum(1),
        1.0 / second[-1][:, 0],
        (1.0 - kept[-1][:, 0]).clamp(min=0.0),
    )


def _table(name: str, value: Any, prefixes: int) -> Tensor:
    """Return a table (M, S_p, A) over the trees of M prompts in float64.

    Raises:
        ValueError: another shape, or no floating-point numbers.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} is {named(value)}; expected a torch.Tensor of floating-point numbers")
    if value.ndim != 3 or value.shape[1:] != (prefixes, ANSWER_TOKENS):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected (M, {prefixes}, {ANSWER_TOKENS})")
    return value.double()


def _log_distributions(name: str, value: Any, prefixes: int) -> Tensor:
    """Return log-probabilities (M, S_p, A) in float64. Rows of a policy that is not a number pass, as NaN.

    Raises:
        ValueError: what `_table` raises, or rows whose probabilities do not sum to one.
    """
    found = _table(name, value, prefixes)
    total = found.detach().exp().sum(-1)
    # What was computed in float32 is as far from one as its numbers are.
    wrong = (total - 1.0).abs() > (checks.TOLERANCE if value.dtype == torch.float64 else 1e-5)
    if not bool((~wrong).all()):
        m, s = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name} has probabilities that sum to {float(total[m, s]):.9g} at [{m}, {s}]; expected 1")
    return found


def _same(one: Tensor, other: Tensor, name: str, of: str) -> None:
    if one.shape != other.shape:
        raise ValueError(f"{name} are of {len(one)} prompts and {of} of {len(other)}; expected as many of both")


def _levels(task: ArithmeticTask, table: Tensor) -> list[Tensor]:
    """A table (M, S_p, ...) by the length of the prefix."""
    first = first_states(task)
    return list(table.split([b - a for a, b in pairwise(first)], 1))


def _expectation(log_p: Tensor, x: Tensor) -> Tensor:
    """exp(log_p) x, where what has probability zero does not count whatever x is."""
    # The inner one keeps the derivative of what is not chosen away from NaN.
    possible = ~torch.isneginf(log_p)
    return torch.where(possible, log_p.exp() * torch.where(possible, x, 0.0), 0.0)


def _total(visits: Tensor, statewise: Tensor) -> Tensor:
    """(M,) sum of visits times a function of the state that may be infinite where nobody comes."""
    return torch.where(visits > 0.0, visits * statewise, 0.0).sum(1)
