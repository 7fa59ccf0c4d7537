"""A decoder-only transformer as pure functions of one flat parameter vector.

The vector theta (P,) is what is differentiated: gradients are (P,) as in the exact theory, and torch.func's grad, jvp
and vmap apply to the functions as they are. Pre-norm (Xiong et al. 2020, arXiv:2002.04745), learned positions,
squared ReLU (So et al. 2021, arXiv:2109.08668: cheap, and smooth enough that finite differences converge), no biases.

Shapes: M prompts of L tokens, G answers to each (N = M G rows, those of one prompt adjacent) of up to T tokens,
H heads of width d, V outputs. Computation is in the dtype of theta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, SYMBOLS
from theory import checks


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network.

    Raises:
        ValueError: a size below 1, or a width that the heads do not divide.
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
            checks.whole_number(name, getattr(self, name), 1, name)
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
    """
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
    if theta.shape != (sum(sizes),):
        raise ValueError(f"theta has shape {tuple(theta.shape)}; expected ({sum(sizes)},)")
    # One split, because its backward pass is one concatenation.
    parts = [part.view(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True)]
    layers = tuple(Layer(*parts[2 + 6 * i : 8 + 6 * i]) for i in range(config.layers))
    return Weights(parts[0], parts[1], layers, parts[-2], parts[-1])


class Past(NamedTuple):
    """What a layer has computed of the prompts, shared by all answers to each: both (M, H, L, d)."""

    keys: Tensor
    values: Tensor


def logits(config: ModelConfig, theta: Tensor, tokens: Tensor) -> Tensor:
    """(N, L, V) logits of the token that follows each prefix of tokens (N, L)."""
    weights = unpack(config, theta)
    x = embedded(config, weights, tokens, 0)[:, None]
    for layer in weights.layers:
        x, _ = _block(config, layer, x, None, tokens.shape[1])
    return read_out(weights, x[:, 0])


def answer_logits(config: ModelConfig, theta: Tensor, prompts: Tensor, answers: Tensor) -> Tensor:
    """(N, T, V) logits from which each token of the answers is drawn; each prompt is computed once.

    Args:
        config: sizes of the network.
        theta: (P,).
        prompts: (M, L) tokens.
        answers: (N, T) tokens with N = M G, rows G m to G m + G - 1 answering prompt m. The last column is not read.

    Raises:
        ValueError: rows that the prompts do not divide, or more tokens than the context.
    """
    weights = unpack(config, theta)
    if answers.shape[0] % prompts.shape[0]:
        raise ValueError(f"answers has {answers.shape[0]} rows; expected a multiple of the {prompts.shape[0]} prompts")
    N, T = answers.shape
    first, pasts = _read(config, weights, prompts)
    at_first = read_out(weights, first).repeat_interleave(N // len(prompts), 0)[:, None]
    if T == 1:
        return at_first
    x = embedded(config, weights, answers[:, :-1], prompts.shape[1]).unflatten(0, (len(prompts), -1))
    for layer, past in zip(weights.layers, pasts, strict=True):
        x, _ = _block(config, layer, x, past, T - 1)
    return torch.cat([at_first, read_out(weights, x.flatten(0, 1))], dim=1)


@dataclass(frozen=True, eq=False)
class DecodingState:
    """A preallocated key-value cache. `decode_step` writes into it in place, so a state is used once."""

    weights: Weights
    keys: tuple[Tensor, ...]
    """Per layer (N, H, room, d)."""
    values: tuple[Tensor, ...]
    position: int
    """Tokens that have been fed."""


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
    """
    weights = unpack(config, theta)
    last, pasts = _read(config, weights, prompts)
    M, L = prompts.shape
    _fitting(config, L + room)
    shape = (M, answers, config.heads, L + room, config.width // config.heads)
    caches = []
    for past in pasts:
        for part in past:
            cache = part.new_empty(shape)
            cache[:, :, :, :L] = part[:, None]
            caches.append(cache.flatten(0, 1))
    state = DecodingState(weights, tuple(caches[::2]), tuple(caches[1::2]), L)
    return read_out(weights, last).repeat_interleave(answers, 0), state


def decode_step(config: ModelConfig, state: DecodingState, tokens: Tensor) -> tuple[Tensor, DecodingState]:
    """Feed one token (N,) to each answer: (N, V) logits of the next one, and the state to go on from."""
    n = state.position
    if n >= state.keys[0].shape[2]:
        raise ValueError(f"the cache has room for {state.keys[0].shape[2]} tokens, all fed; expected more room")
    x = functional.embedding(tokens, state.weights.token) + state.weights.position[n]
    for layer, keys, values in zip(state.weights.layers, state.keys, state.values, strict=True):
        projected = _normed(x, layer.attention_scale) @ layer.query_key_value
        query, key, value = projected.unflatten(-1, (3, config.heads, -1)).unbind(1)
        keys[:, :, n], values[:, :, n] = key, value
        # One query per row: sums of products are faster than a matrix product with one row.
        scores = (_scaled(query)[:, :, None] * keys[:, :, : n + 1]).sum(-1)
        mixed = (scores.softmax(-1)[..., None] * values[:, :, : n + 1]).sum(-2)
        x = fed_forward(layer, x + mixed.flatten(1) @ layer.mix)
    return read_out(state.weights, x), replace(state, position=n + 1)


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


def _read(config: ModelConfig, weights: Weights, prompts: Tensor) -> tuple[Tensor, list[Past]]:
    """(M, width) the last row of each prompt, and what each layer has computed of the prompts."""
    x, pasts = embedded(config, weights, prompts, 0)[:, None], []
    for i, layer in enumerate(weights.layers):
        # Of the last layer only the last row is read.
        x, past = _block(config, layer, x, None, prompts.shape[1] if i < config.layers - 1 else 1)
        pasts.append(past)
    return x[:, 0, -1], pasts


def _block(config: ModelConfig, layer: Layer, x: Tensor, past: Past | None, wanted: int) -> tuple[Tensor, Past]:
    """A block of rows x (M, G, t, width): its last `wanted` rows, and the keys and values of the first answers.

    Every row attends to the whole past and to the rows of its own sequence up to itself.
    """
    t, w = x.shape[2], config.width
    normed = _normed(x, layer.attention_scale)
    if wanted == t:
        query, key, value = (_by_head(config, part) for part in (normed @ layer.query_key_value).split(w, -1))
    else:
        query = _by_head(config, normed[:, :, t - wanted :] @ layer.query_key_value[:, :w])
        key, value = (_by_head(config, part) for part in (normed @ layer.query_key_value[:, w:]).split(w, -1))
    query = _scaled(query)
    unseen = torch.full((wanted, t), -math.inf, dtype=x.dtype, device=x.device).triu(t - wanted + 1)
    scores = query @ key.mT + unseen
    if past is None:
        mixed = scores.softmax(-1) @ value
    else:
        before = (query.flatten(2, 3) @ past.keys.mT).unflatten(2, query.shape[2:4])
        earlier, own = torch.cat([before, scores], -1).softmax(-1).split([past.keys.shape[2], t], -1)
        mixed = own @ value + (earlier.flatten(2, 3) @ past.values).unflatten(2, query.shape[2:4])
    # (M, H, G, wanted, d) to (M, G, wanted, width)
    joined = mixed.permute(0, 2, 3, 1, 4).flatten(3)
    return fed_forward(layer, x[:, :, t - wanted :] + joined @ layer.mix), Past(key[:, :, 0], value[:, :, 0])


def _by_head(config: ModelConfig, rows: Tensor) -> Tensor:
    """(M, G, t, width) to (M, H, G, t, d)."""
    return rows.unflatten(-1, (config.heads, -1)).permute(0, 3, 1, 2, 4)


def _scaled(query: Tensor) -> Tensor:
    return query * query.shape[-1] ** -0.5


def _normed(x: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, scale.shape, scale)


def _fitting(config: ModelConfig, tokens: int) -> None:
    if tokens > config.context:
        raise ValueError(f"{tokens} tokens are fed; expected at most the context of {config.context}")
