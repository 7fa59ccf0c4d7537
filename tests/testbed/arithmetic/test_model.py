"""The network: against a plain loop, its cache against the full pass, gradients against finite differences."""

import math

import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from testbed.arithmetic.flops import flop_count
from testbed.arithmetic.model import (
    ModelConfig,
    answer_logits,
    decode_step,
    initial_parameters,
    logits,
    model_for,
    parameter_count,
    prefill,
    together,
    unpack,
)
from testbed.arithmetic.task import ArithmeticTask

SMALL = ModelConfig(context=9, layers=2, width=8, heads=2)


def made(config=SMALL, seed=0, dtype=torch.float64):
    """Parameters away from the start, where no scale is one."""
    theta = initial_parameters(config, seed, dtype)
    return theta + 0.1 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=dtype)


def rows(n, length, seed=0, most=11):
    return torch.randint(most, (n, length), generator=torch.Generator().manual_seed(seed))


def plain_logits(config, theta, tokens):
    """One sequence, token by token and head by head, in Python numbers."""
    w, d = config.width, config.width // config.heads
    weights = unpack(config, theta)
    token, position, head = weights.token.tolist(), weights.position.tolist(), weights.head.tolist()

    def normed(row, scale):
        mean = sum(row) / w
        spread = math.sqrt(sum((v - mean) ** 2 for v in row) / w + 1e-5)
        return [(v - mean) / spread * s for v, s in zip(row, scale.tolist(), strict=True)]

    def times(row, matrix):
        return [sum(v * matrix[i][j] for i, v in enumerate(row)) for j in range(len(matrix[0]))]

    x = [[a + b for a, b in zip(token[k], position[t], strict=True)] for t, k in enumerate(tokens.tolist())]
    for layer in weights.layers:
        projected = [times(normed(row, layer.attention_scale), layer.query_key_value.tolist()) for row in x]
        out = []
        for t, row in enumerate(x):
            mixed = []
            for h in range(config.heads):
                cut = [slice(part * w + h * d, part * w + (h + 1) * d) for part in range(3)]
                scores = [
                    math.exp(sum(a * b for a, b in zip(projected[t][cut[0]], p[cut[1]], strict=True)) / math.sqrt(d))
                    for p in projected[: t + 1]
                ]
                for j in range(d):
                    values = [p[cut[2]][j] for p in projected[: t + 1]]
                    mixed.append(sum(s * v for s, v in zip(scores, values, strict=True)) / sum(scores))
            row = [a + b for a, b in zip(row, times(mixed, layer.mix.tolist()), strict=True)]
            wide = [max(v, 0.0) ** 2 for v in times(normed(row, layer.feed_scale), layer.up.tolist())]
            out.append([a + b for a, b in zip(row, times(wide, layer.down.tolist()), strict=True)])
        x = out
    return torch.tensor([times(normed(row, weights.scale), head) for row in x], dtype=torch.float64)


def test_logits_are_those_of_a_plain_loop():
    theta, tokens = made(), rows(3, 7, most=14)
    found = logits(SMALL, theta, tokens)
    for n in range(3):
        torch.testing.assert_close(found[n], plain_logits(SMALL, theta, tokens[n]), rtol=0, atol=1e-12)


def test_no_token_sees_the_future():
    theta, tokens = made(), rows(1, 7)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 11
    before, after = logits(SMALL, theta, tokens), logits(SMALL, theta, changed)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-14)
    assert (before[:, 4:] - after[:, 4:]).abs().amin() > 1e-9


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("M", "G", "T"), [(1, 1, 1), (3, 1, 4), (2, 5, 4), (4, 2, 1), (2, 11, 3), (2, 16, 4)])
def test_shared_prompts_and_the_cache_give_the_logits_of_the_full_pass(layers, M, G, T):
    config = ModelConfig(context=9, layers=layers, width=8, heads=2)
    theta, prompts, answers = made(config), rows(M, 6, most=14), rows(M * G, T, seed=1)
    whole = torch.cat([prompts.repeat_interleave(G, 0), answers[:, :-1]], 1)
    full = logits(config, theta, whole)[:, 5:]
    torch.testing.assert_close(answer_logits(config, theta, prompts, answers), full, rtol=0, atol=1e-12)
    found, state = prefill(config, theta, prompts, T - 1, G)
    decoded = [found]
    for t in range(T - 1):
        found, state = decode_step(config, state, answers[:, t])
        decoded.append(found)
    torch.testing.assert_close(torch.stack(decoded, 1), full, rtol=0, atol=1e-12)
    if M > 1 and T > 1:  # the control: prompts in another order are other answers' prompts
        assert (answer_logits(config, theta, prompts.flip(0), answers) - full).abs().max() > 1e-3


def test_the_gradient_is_that_of_finite_differences_and_of_the_full_pass():
    theta, prompts, answers = made(), rows(2, 5), rows(6, 3, seed=1)

    def log_prob(theta):
        found = answer_logits(SMALL, theta, prompts, answers).log_softmax(-1)
        return found.gather(-1, answers[..., None]).sum()

    def by_full_pass(theta):
        whole = torch.cat([prompts.repeat_interleave(3, 0), answers[:, :-1]], 1)
        return logits(SMALL, theta, whole)[:, 4:].log_softmax(-1).gather(-1, answers[..., None]).sum()

    exact = grad(log_prob)(theta)
    torch.testing.assert_close(exact, grad(by_full_pass)(theta), rtol=0, atol=1e-11)
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        direction = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
        step = 1e-6
        slope = (log_prob(theta + step * direction) - log_prob(theta - step * direction)) / (2 * step)
        torch.testing.assert_close(slope, exact @ direction, rtol=1e-6, atol=1e-6)
        assert abs(float(slope / (exact.flip(0) @ direction)) - 1) > 1e-3


def test_gradients_of_many_rows_and_of_many_networks_batch():
    thetas, prompts, answers = torch.stack([made(seed=s) for s in range(3)]), rows(2, 5), rows(2, 3, seed=1)

    def log_prob(theta, prompt, answer):
        found = answer_logits(SMALL, theta, prompt[None], answer[None])[0].log_softmax(-1)
        return found.gather(-1, answer[:, None]).sum()

    per_row = vmap(grad(log_prob), (None, 0, 0))(thetas[0], prompts, answers)
    every = vmap(vmap(grad(log_prob), (None, 0, 0)), (0, None, None))(thetas, prompts, answers)
    assert per_row.shape == (2, parameter_count(SMALL))
    for n in range(2):
        torch.testing.assert_close(per_row[n], grad(log_prob)(thetas[0], prompts[n], answers[n]), rtol=0, atol=1e-12)
        for s in range(3):
            one = grad(log_prob)(thetas[s], prompts[n], answers[n])
            torch.testing.assert_close(every[s, n], one, rtol=0, atol=1e-12)


def test_a_module_around_theta_works_with_functional_call():
    class Network(torch.nn.Module):
        def __init__(self, theta):
            super().__init__()
            self.theta = torch.nn.Parameter(theta)

        def forward(self, tokens):
            return logits(SMALL, self.theta, tokens)

    network, tokens, other = Network(made()), rows(2, 4), made(seed=5)
    found = functional_call(network, {"theta": other}, (tokens,))
    assert torch.equal(found, logits(SMALL, other, tokens))
    assert not torch.equal(found, network(tokens))


def test_networks_decode_side_by_side():
    thetas, prompts = torch.stack([made(seed=s) for s in range(3)]), rows(2, 5)
    fed = rows(4, 1, seed=2)[:, 0]

    def two(theta):
        first, state = prefill(SMALL, theta, prompts, 1, 2)
        return first, decode_step(SMALL, state, fed)[0]

    batched = vmap(two)(thetas)
    for s in range(3):
        for ours, one in zip(batched, two(thetas[s]), strict=True):
            torch.testing.assert_close(ours[s], one, rtol=0, atol=1e-12)


def test_the_default_has_about_a_hundred_thousand_parameters():
    config = model_for(ArithmeticTask())
    w = 64
    by_hand = 14 * w + 9 * w + 2 * (4 * w * w + 8 * w * w + 2 * w) + w + 11 * w
    assert parameter_count(config) == by_hand == initial_parameters(config, 0).numel()
    assert 90_000 < by_hand < 110_000


def test_initial_parameters_come_from_the_seed():
    assert torch.equal(initial_parameters(SMALL, 1), initial_parameters(SMALL, 1))
    assert not torch.equal(initial_parameters(SMALL, 1), initial_parameters(SMALL, 2))
    assert torch.equal(initial_parameters(SMALL, 1).double(), initial_parameters(SMALL, 1, torch.float64))


@pytest.mark.parametrize(("M", "G", "T"), [(4, 1, 5), (2, 8, 8), (3, 2, 1), (2, 9, 4), (1, 16, 3)])
def test_operations_are_those_that_torch_counts(M, G, T):
    config = ModelConfig(context=13, width=16, layers=3)
    theta, prompts, answers = initial_parameters(config, 0).requires_grad_(), rows(M, 6), rows(M * G, T)
    counted = flop_count(config, M * G, 6, T, G)
    with FlopCounterMode(display=False) as forward:
        total = answer_logits(config, theta, prompts, answers).sum()
    with FlopCounterMode(display=False) as backward:
        total.backward()
    with FlopCounterMode(display=False) as decoding, torch.no_grad():
        _, state = prefill(config, theta, prompts, T - 1, G)
        for t in range(T - 1):
            _, state = decode_step(config, state, answers[:, t])
    assert forward.get_total_flops() == counted.forward
    assert backward.get_total_flops() == counted.backward
    assert decoding.get_total_flops() == counted.rollout
    assert counted.total == counted.rollout + 3 * counted.forward


def test_as_many_answers_as_divide_share_a_sequence():
    assert [together(G) for G in (1, 5, 8, 9, 11, 12, 16, 20)] == [1, 5, 8, 3, 1, 6, 8, 5]


def test_what_does_not_fit_is_refused():
    theta = made()
    with pytest.raises(ValueError, match="10 tokens are fed; expected at most the context of 9"):
        logits(SMALL, theta, rows(1, 10))
    with pytest.raises(ValueError, match="answers has 3 rows; expected a multiple of the 2 prompts"):
        answer_logits(SMALL, theta, rows(2, 4), rows(3, 2))
    with pytest.raises(ValueError, match=r"theta has shape \(3,\)"):
        unpack(SMALL, theta[:3])
    with pytest.raises(ValueError, match="width is 9 with heads=2"):
        ModelConfig(context=5, width=9)
    with pytest.raises(ValueError, match="outputs is 15; expected at most"):
        ModelConfig(context=5, outputs=15)
    _, state = prefill(SMALL, theta, rows(1, 4), 1)
    _, state = decode_step(SMALL, state, rows(1, 1)[:, 0])
    with pytest.raises(ValueError, match="the cache has room for 5 tokens"):
        decode_step(SMALL, state, rows(1, 1)[:, 0])
