"""Inner products of the scores of one answer's tokens, in theta, without any gradient in theta being formed.

The gradient of a number in a matrix W that maps rows a_p to a_p W is the sum over positions p of a_p' d_p, with d_p the
number's derivative in a_p W. So the gradients of two numbers of one sequence have the inner product
sum over p, q of (a_p . a_q)(d_p . d'_q) (Goodfellow 2015, arXiv:1510.01799, for one row; Li et al. 2022,
arXiv:2110.05679, section 4, for several). An embedding is a matrix whose rows a_p are one-hot.

Shapes: B prefixes of n tokens (prompt and digits), m scores of each, A answer tokens, T tokens in the longest answer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.nn import functional

from testbed.arithmetic.model import ModelConfig, Weights, embedded, unpack
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.trees import DIGITS, first_states
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, token_rows

_CHUNK_NUMBERS = 8_000_000
"""Derivatives that are held at once, 64 MB."""

# What the others have together, below which 1 - p keeps fewer than ten digits of it. Above, it stays as it is, so that
# logs of runs are the same to the last digit.
_LEFT_OVER = 1e-6


def score_products(config: ModelConfig, theta: Tensor, task: ArithmeticTask, prompt: Tensor) -> Tensor:
    """(S_p, A, T, T) float64 inner products <z_i, z_j> of the scores of an answer's tokens, z = grad_theta log pi(a|s).

    The last token of the answer is action a after prefix s, of k digits: entries i, j <= k are those of its tokens in
    order, the others are zero. So a trajectory with token weights w has the squared norm w' K w of its gradient.

    Args:
        config: sizes of the network.
        theta: (P,); computed in float64.
        task: which answers there are.
        prompt: (L,) tokens.

    Raises:
        ValueError: no single prompt, parameters that do not fit the network, or answers so long that their tree has
            over 20,000 prefixes.

    >>> from testbed.arithmetic import encode, initial_parameters
    >>> task = ArithmeticTask("modular_addition", digits=1, modulus=3)
    >>> config = ModelConfig(context=5, layers=1, width=8)
    >>> products = score_products(config, initial_parameters(config, 0), task, encode("2+2="))
    >>> products.shape, bool(products[5, 10, 1, 1] > 0.0)  # of the end token after 4, with itself
    (torch.Size([11, 11, 2, 2]), True)
    """
    if config.outputs != ANSWER_TOKENS:
        raise ValueError(f"outputs is {config.outputs}; expected {ANSWER_TOKENS}, the digits and the end token")
    if len(prompts := token_rows("prompt", prompt)) != 1:
        raise ValueError(f"prompt has shape {tuple(prompts.shape)}; expected one prompt, (L,) or (1, L)")
    first, weights = first_states(task), unpack(config, theta.detach().double())
    T, prompt = len(first) - 1, prompt.reshape(-1).to(theta.device)
    found = weights.token.new_zeros((first[-1], config.outputs, T, T))
    for k in range(T):
        each = (config.outputs + k) * (len(prompt) + k) * (7 + config.expansion) * config.width * config.layers
        value = torch.arange(DIGITS**k, device=theta.device)
        for some in value.split(max(1, _CHUNK_NUMBERS // each)):
            digits = some[:, None] // DIGITS ** torch.arange(k - 1, -1, -1, device=theta.device) % DIGITS
            gram = _gram(config, weights, torch.cat([prompt.expand(len(some), -1), digits], 1), k)
            found[first[k] + some, :, : k + 1, : k + 1] = _by_last_token(gram, config.outputs)
    return found


def _by_last_token(gram: Tensor, outputs: int) -> Tensor:
    """(B, A, k + 1, k + 1) from the products (B, k + A, k + A) of k earlier scores and A last ones."""
    k = gram.shape[1] - outputs
    earlier = torch.arange(k, device=gram.device).expand(outputs, -1)
    tokens = torch.cat([earlier, k + torch.arange(outputs, device=gram.device)[:, None]], 1)
    return gram[:, tokens[:, :, None], tokens[:, None, :]]


class _Taps(NamedTuple):
    """What is added to what parameters make, zeros: the derivatives in these are the d_p. Rows are (B, rows, size)."""

    embedded: Tensor
    scaled: tuple[Tensor, ...]
    """By the scale of every layer norm: two of each layer, and the one before the head."""
    mapped: tuple[Tensor, ...]
    """By every matrix but the head: query_key_value, mix, up and down of each layer."""


class _Inputs(NamedTuple):
    """What those parameters multiply."""

    scaled: list[Tensor]
    mapped: list[Tensor]
    head: Tensor


def _gram(config: ModelConfig, weights: Weights, tokens: Tensor, k: int) -> Tensor:
    """(B, k + A, k + A) products of the scores of the last k of tokens (B, n), and of every action after them."""
    taps = _zeros(config, weights.token, tokens.shape, k + 1)
    logits, back, inputs = vjp(lambda taps: _forward(config, weights, tokens, k + 1, taps), taps, has_aux=True)
    seeds = _seeds(logits, tokens[:, tokens.shape[1] - k :])
    (d,) = vmap(back)(seeds)
    # An embedding of a token and one of a position: what is fed twice is added twice.
    one_hot = (tokens[:, :, None] == tokens[:, None]).to(logits.dtype) + torch.eye(tokens.shape[1]).to(logits)
    total = _products(one_hot, d.embedded) + _products(inputs.head @ inputs.head.mT, seeds)
    for a, derivative in zip(inputs.mapped, d.mapped, strict=True):
        total = total + _products(a @ a.mT, derivative)
    for a, derivative in zip(inputs.scaled, d.scaled, strict=True):
        gradient = (a * derivative).sum(2).transpose(0, 1)
        total = total + gradient @ gradient.mT
    return total


def _products(inputs: Tensor, derivatives: Tensor) -> Tensor:
    """(B, m, m) sum over p, q of inputs[p, q] (d_p . d'_q), from (B, n, n) and (m, B, n, size)."""
    left, right = (d.flatten(2).transpose(0, 1) for d in (inputs @ derivatives, derivatives))
    return left @ right.mT


def _seeds(logits: Tensor, digits: Tensor) -> Tensor:
    """(k + A, B, k + 1, A) derivatives of log-probabilities in the logits: of the k digits, then of every action."""
    k, A = digits.shape[1], logits.shape[2]
    seeds = logits.new_zeros((k + A, len(logits), k + 1, A))
    score = _scores(logits.softmax(-1))
    row = torch.arange(len(logits), device=logits.device)
    for j in range(k):
        seeds[j, :, j] = score[row, j, digits[:, j]]
    seeds[k:, :, k] = score[:, k].transpose(0, 1)
    return seeds


def _scores(p: Tensor) -> Tensor:
    """(..., A, A) scores of every action in the logits, from probabilities (..., A): row a is one-hot(a) - p.

    Under a confident policy the score of the likeliest action is as small as what the others have. 1 - p would round
    that away, so it is added up.
    """
    one_hot = torch.eye(p.shape[-1]).to(p)
    others = (p[..., None, :] * (1.0 - one_hot)).sum(-1)
    likeliest = torch.diag_embed(torch.where(others < _LEFT_OVER, others, 1.0 - p))
    return torch.where(one_hot == 1.0, likeliest, -p[..., None, :])


def _zeros(config: ModelConfig, like: Tensor, shape: tuple[int, ...], read: int) -> _Taps:
    w = config.width
    zeros = lambda rows, size: like.new_zeros((shape[0], rows, size))  # noqa: E731
    # Only the rows that logits are read from pass through the end of the last layer.
    last = [shape[1]] * (config.layers - 1) + [read]
    scaled = [zeros(rows, w) for end in last for rows in (shape[1], end)]
    mapped = [
        part
        for end in last
        for part in (zeros(shape[1], 3 * w), zeros(end, w), zeros(end, config.expansion * w), zeros(end, w))
    ]
    return _Taps(zeros(shape[1], w), (*scaled, zeros(read, w)), tuple(mapped))


def _forward(config: ModelConfig, weights: Weights, tokens: Tensor, read: int, taps: _Taps) -> tuple[Tensor, _Inputs]:
    """(B, read, A) logits after the last `read` tokens of each row of tokens (B, n), and what the parameters saw."""
    scaled, mapped, n = [], [], tokens.shape[1]
    unseen = torch.full((n, n), -math.inf).to(weights.token).triu(1)

    def norm(x: Tensor, scale: Tensor) -> Tensor:
        scaled.append(functional.layer_norm(x, (config.width,)))
        return scaled[-1] * scale + taps.scaled[len(scaled) - 1]

    def times(x: Tensor, matrix: Tensor) -> Tensor:
        mapped.append(x)
        return x @ matrix + taps.mapped[len(mapped) - 1]

    x = embedded(config, weights, tokens, 0) + taps.embedded
    for i, layer in enumerate(weights.layers):
        projected = times(norm(x, layer.attention_scale), layer.query_key_value)
        # (B, n, 3, H, d) to three of (B, H, n, d)
        query, key, value = projected.unflatten(-1, (3, config.heads, -1)).permute(2, 0, 3, 1, 4)
        begin = 0 if i < config.layers - 1 else n - read
        scores = (query[:, :, begin:] * query.shape[-1] ** -0.5) @ key.mT + unseen[begin:]
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x[:, begin:] + times(mixed, layer.mix)
        wide = times(norm(x, layer.feed_scale), layer.up)
        # relu(wide), whose derivative vmap takes slowly.
        positive = wide * (wide > 0.0)
        x = x + times(positive.square(), layer.down)
    top = norm(x, weights.scale)
    return top @ weights.head, _Inputs(scaled, mapped, top)
