"""A decoder-only transformer as pure functions of one flat parameter vector.

The vector theta (P,) is what is differentiated: gradients are (P,) as in the exact theory, and torch.func's grad, jvp
and vmap apply to the functions as they are. Pre-norm (Xiong et al. 2020, arXiv:2002.04745), learned positions,
squared ReLU (So et al. 2021, arXiv:2109.08668: cheap, and smooth enough that finite differences converge), no biases.

Shapes: M prompts of L tokens, G answers to each (N = M G rows, those of one prompt adjacent) of up to T tokens,
H heads of width d, V outputs. g of a prompt's answers go through the network as one sequence behind it, so that there
are B = N / g sequences. Computation is in the dtype of theta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, SYMBOLS, named, token_rows, whole_numbers
from theory import checks

MOST_TOGETHER = 8
"""Answers to a prompt in one sequence. Few large products are faster than many small ones, up to where most of their
numbers are of rows that do not see each other."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network.

    Raises:
        ValueError: a size that is no whole number of at least 1, a width that the heads do not divide, or more outputs
            than the vocabulary has.

    >>> parameter_count(ModelConfig(context=9))
    100800
    """

    context: int
    """Positions that can be fed: those of the prompt and of all answer tokens but the last."""
    layers: int = 2
    width: int = 64
    heads: int = 2
    """Two of width 32 decode faster than four of width 16."""
    expansion: int = 4
    """Width of the feed-forward layer, in widths."""
    vocabulary: int = len(SYMBOLS)
    """Tokens that can be read."""
    outputs: int = ANSWER_TOKENS
    """Tokens that can be written, the first ones of the vocabulary: the policy's actions."""

    def __post_init__(self) -> None:
        """Check every size."""
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, checks.whole_number(name, getattr(self, name), 1, name))
        if self.width % self.heads:
            raise ValueError(f"width is {self.width} with heads={self.heads}; expected a multiple of the heads")
        if self.outputs > self.vocabulary:
            raise ValueError(f"outputs is {self.outputs}; expected at most the vocabulary's {self.vocabulary}")


def model_for(task: ArithmeticTask, *, layers: int = 2, width: int = 64, heads: int = 2) -> ModelConfig:
    """The configuration whose context fits a task's prompts and longest answers."""
    return ModelConfig(task.prompt_length + task.maximum_length - 1, layers, width, heads)


class Layer(NamedTuple):
    """Weights of one block; matrices map rows, (in, out)."""

    attention_scale: Tensor
    query_key_value: Tensor
    mix: Tensor
    feed_scale: Tensor
    up: Tensor
    down: Tensor


class Weights(NamedTuple):
    """The network's tensors, views of theta."""

    token: Tensor
    position: Tensor
    layers: tuple[Layer, ...]
    scale: Tensor
    head: Tensor


def _shapes(config: ModelConfig) -> list[tuple[int, ...]]:
    w, wide = config.width, config.expansion * config.width
    layer: list[tuple[int, ...]] = [(w,), (w, 3 * w), (w, w), (w,), (w, wide), (wide, w)]
    return [(config.vocabulary, w), (config.context, w), *layer * config.layers, (w,), (w, config.outputs)]


def parameter_count(config: ModelConfig) -> int:
    """P, the length of theta."""
    return sum(math.prod(shape) for shape in _shapes(config))


def initial_parameters(config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(P,) random theta: matrices normal with standard deviation in^-1/2, scales one, embeddings normal over 2.

    What is added to the residual stream starts smaller by (2 layers)^-1/2. Drawn in float32 whatever the dtype.

    Raises:
        ValueError: a seed that is no whole number.
    """
    seed = checks.whole_number("seed", seed, 0, "the seed")
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(parameter_count(config), generator=generator)
    weights = unpack(config, theta)
    for table in (weights.token, weights.position):
        table.mul_(0.5)
    for layer in weights.layers:
        for matrix in (layer.query_key_value, layer.mix, layer.up, layer.down):
            matrix.mul_(matrix.shape[0] ** -0.5)
        for added in (layer.mix, layer.down):
            added.mul_((2 * config.layers) ** -0.5)
        layer.attention_scale.fill_(1.0)
        layer.feed_scale.fill_(1.0)
    weights.scale.fill_(1.0)
    weights.head.mul_(config.width**-0.5)
    return theta.to(dtype)


def unpack(config: ModelConfig, theta: Tensor) -> Weights:
    """The weights that theta (P,) holds, as views.

    Raises:
        ValueError: theta is no vector of P numbers.
    """
    shapes = _shapes(config)
    sizes = [math.prod(shape) for shape in shapes]
    if not isinstance(theta, Tensor) or theta.shape != (sum(sizes),):
        given = f"has shape {tuple(theta.shape)}" if isinstance(theta, Tensor) else f"is {named(theta)}"
        raise ValueError(f"theta {given}; expected a torch.Tensor of shape ({sum(sizes)},)")
    # One split, because its backward pass is one concatenation.
    parts = [part.view(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True)]
    layers = tuple(Layer(*parts[2 + 6 * i : 8 + 6 * i]) for i in range(config.layers))
    return Weights(parts[0], parts[1], layers, parts[-2], parts[-1])


def finite(name: str, theta: Any) -> Tensor:
    """Return theta, once it is seen to be a tensor of finite floating-point numbers.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(theta, Tensor) or not theta.is_floating_point():
        raise ValueError(f"{name} is {named(theta)}; expected a torch.Tensor of floating-point numbers")
    if not bool(theta.isfinite().all()):
        index = int((~theta.isfinite()).nonzero()[0][0])
        raise ValueError(f"{name} is {float(theta.reshape(-1)[index])} at index {index}; expected finite numbers")
    return theta


class Past(NamedTuple):
    """What a layer has computed of each sequence: both (B, H, n, d)."""

    keys: Tensor
    values: Tensor


def logits(config: ModelConfig, theta: Tensor, tokens: Tensor) -> Tensor:
    """(N, L, V) logits of the token that follows each prefix of tokens (N, L).

    Raises:
        ValueError: tokens or theta of another shape, or more tokens than the context.

    >>> config = ModelConfig(context=9)
    >>> logits(config, initial_parameters(config, 0), torch.tensor([[7, 11, 5, 13]])).shape
    torch.Size([1, 4, 11])
    """
    weights, tokens = unpack(config, theta), token_rows("tokens", tokens)
    x, _ = _fed(config, weights, embedded(config, weights, tokens, 0), _unseen(theta, tokens.shape[1], 0, 1), 0)
    return read_out(weights, x)


def answer_logits(config: ModelConfig, theta: Tensor, prompts: Tensor, answers: Tensor) -> Tensor:
    """(N, T, V) logits from which each token of the answers is drawn.

    Up to 8 answers to a prompt go through the network as one sequence behind it, in which each sees itself alone.

    Args:
        config: sizes of the network.
        theta: (P,).
        prompts: (M, L) tokens.
        answers: (N, T) tokens with N = M G, rows G m to G m + G - 1 answering prompt m. The last column is not read.

    Raises:
        ValueError: prompts or answers of another shape, rows that the prompts do not divide, or more tokens than the
            context.
    """
    prompts, answers = token_rows("prompts", prompts), token_rows("answers", answers)
    if not len(prompts) or not len(answers) or len(answers) % len(prompts):
        raise ValueError(f"answers has {len(answers)} rows; expected a multiple of the {len(prompts)} prompts")
    (N, T), L = answers.shape, prompts.shape[1]
    weights, g = unpack(config, theta), together(N // len(prompts))
    x = embedded(config, weights, prompts, 0).repeat_interleave(N // len(prompts) // g, 0)
    if T > 1:
        fed = embedded(config, weights, answers[:, :-1], L).unflatten(0, (-1, g))
        x = torch.cat([x, fed.transpose(1, 2).flatten(1, 2)], 1)
    x, _ = _fed(config, weights, x, _unseen(theta, L, T - 1, g), L - 1)
    found = read_out(weights, x)
    first, later = found[:, :1].expand(-1, g, -1), found[:, 1:].unflatten(1, (T - 1, g)).transpose(1, 2)
    return torch.cat([first[:, :, None], later], 2).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class DecodingState:
    """A preallocated key-value cache. `decode_step` writes into it in place, so a state is used once."""

    weights: Weights
    keys: tuple[Tensor, ...]
    """Per layer (B, H, L + room g, d): a prompt, then the first tokens of g answers to it, their second tokens, ..."""
    values: tuple[Tensor, ...]
    unseen: Tensor
    """(L + room g, L + room g), added to the scores: -inf where a row does not see another."""
    answers: int
    """g, answers that share a sequence."""
    prompt: int
    """L"""
    fed: int = 0
    """Tokens of each answer that have been fed."""


def prefill(
    config: ModelConfig, theta: Tensor, prompts: Tensor, room: int, answers: int = 1
) -> tuple[Tensor, DecodingState]:
    """Feed prompts (M, L) and make room for the answers.

    Args:
        config: sizes of the network.
        theta: (P,).
        prompts: (M, L) tokens.
        room: tokens that will be fed by `decode_step`.
        answers: G, answers to each prompt.

    Returns:
        (N, V) logits of the first token of every answer, N = M G, and the state to go on from.

    Raises:
        ValueError: prompts or theta of another shape, no answer, or more tokens than the context.
    """
    weights, g, prompts = unpack(config, theta), together(answers), token_rows("prompts", prompts)
    room, answers = checks.whole_number("room", room, 0, "tokens"), int(answers)
    M, L = prompts.shape
    _fitting(config, L + room)
    unseen = _unseen(theta, L, room, g)
    x, pasts = _fed(config, weights, embedded(config, weights, prompts, 0), unseen[:L, :L], L - 1)
    shape = (M, answers // g, config.heads, L + g * room, config.width // config.heads)
    caches = []
    for part in (part for past in pasts for part in past):
        cache = part.new_empty(shape)
        cache[:, :, :, :L] = part[:, None]
        caches.append(cache.flatten(0, 1))
    state = DecodingState(weights, tuple(caches[::2]), tuple(caches[1::2]), unseen, g, L)
    return read_out(weights, x[:, 0]).repeat_interleave(answers, 0), state


def decode_step(config: ModelConfig, state: DecodingState, tokens: Tensor) -> tuple[Tensor, DecodingState]:
    """Feed one token (N,) to each answer: (N, V) logits of the next one, and the state to go on from.

    Raises:
        ValueError: not one token for each answer, or no room for another one.
    """
    g, at = state.answers, state.prompt + state.fed
    first, N = state.prompt + g * state.fed, g * len(state.keys[0])
    if whole_numbers("tokens", tokens, "(N,)").shape != (N,):
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; expected ({N},), one for each answer")
    if first == state.keys[0].shape[2]:
        raise ValueError(f"the cache has room for {at} tokens, all fed; expected more room")
    x = functional.embedding(tokens, state.weights.token) + state.weights.position[at]
    unseen = state.unseen[first : first + g, : first + g]
    for layer, keys, values in zip(state.weights.layers, state.keys, state.values, strict=True):
        query, key, value = _by_head(config, _normed(x, layer.attention_scale) @ layer.query_key_value, g)
        keys[:, :, first : first + g], values[:, :, first : first + g] = key, value
        mixed = _attended(query, keys[:, :, : first + g], values[:, :, : first + g], unseen)
        x = fed_forward(layer, x + mixed.flatten(0, 1) @ layer.mix)
    return read_out(state.weights, x), replace(state, fed=state.fed + 1)


def embedded(config: ModelConfig, weights: Weights, tokens: Tensor, first: int) -> Tensor:
    """(..., t, width) tokens (..., t) with their positions, counted from `first`."""
    _fitting(config, first + tokens.shape[-1])
    return functional.embedding(tokens, weights.token) + weights.position[first : first + tokens.shape[-1]]


def fed_forward(layer: Layer, x: Tensor) -> Tensor:
    """The second half of a block, of rows (..., width)."""
    return x + (_normed(x, layer.feed_scale) @ layer.up).relu().square() @ layer.down


def read_out(weights: Weights, x: Tensor) -> Tensor:
    """(..., V) logits of rows (..., width)."""
    return _normed(x, weights.scale) @ weights.head


def _fed(config: ModelConfig, weights: Weights, x: Tensor, unseen: Tensor, first: int) -> tuple[Tensor, list[Past]]:
    """Rows x (B, n, width) through all layers, from row `first` on, and what each layer has computed of all rows."""
    pasts = []
    for i, layer in enumerate(weights.layers):
        wanted = first if i == config.layers - 1 else 0
        query, key, value = _by_head(config, _normed(x, layer.attention_scale) @ layer.query_key_value, x.shape[1])
        mixed = _attended(query[:, :, wanted:], key, value, unseen[wanted:])
        x = fed_forward(layer, x[:, wanted:] + mixed @ layer.mix)
        pasts.append(Past(key, value))
    return x, pasts


def _by_head(config: ModelConfig, projected: Tensor, n: int) -> tuple[Tensor, ...]:
    """Queries, keys and values (B, H, n, d) of projected rows, (B, n, 3 width) or (B n, 3 width)."""
    parts = projected.reshape(-1, n, 3, config.heads, config.width // config.heads).permute(2, 0, 3, 1, 4)
    # One copy here saves each matrix product its own.
    return parts.contiguous().unbind()


def _attended(query: Tensor, keys: Tensor, values: Tensor, unseen: Tensor) -> Tensor:
    """(B, m, width) what queries (B, H, m, d) read from keys and values (B, H, n, d); `unseen` is (m, n)."""
    shape = query.shape[:2]
    query, keys, values = (part.flatten(0, 1) for part in (query, keys, values))
    scores = torch.baddbmm(unseen, query, keys.mT, alpha=query.shape[-1] ** -0.5)
    return (scores.softmax(-1) @ values).unflatten(0, shape).transpose(1, 2).flatten(2)


def _unseen(theta: Tensor, prompt: int, answer: int, answers: int) -> Tensor:
    """(n, n) zero where row i sees row j and -inf where not: its own answer's rows up to itself, and the prompt's.

    The n = L + t g rows are those of a prompt, of the first tokens of g answers to it, of their second tokens, ...
    """
    row = torch.arange(prompt + answer * answers, device=theta.device)
    own = (row[:, None] - row) % answers == 0
    seen = (row <= row[:, None]) & (own | (row < prompt))
    return torch.zeros(seen.shape, dtype=theta.dtype, device=theta.device).masked_fill(~seen, -math.inf)


def together(answers: int) -> int:
    """g, how many of G answers to a prompt share a sequence: the most that divide G, up to `MOST_TOGETHER`.

    Raises:
        ValueError: no answer.
    """
    answers = checks.whole_number("answers", answers, 1, "answers to each prompt")
    return next(g for g in range(min(answers, MOST_TOGETHER), 0, -1) if answers % g == 0)


def _normed(x: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, scale.shape, scale)


def _fitting(config: ModelConfig, tokens: int) -> None:
    if tokens > config.context:
        raise ValueError(f"{tokens} tokens are fed; expected at most the context of {config.context}")
