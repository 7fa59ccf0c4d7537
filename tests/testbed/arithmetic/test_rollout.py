"""What is sampled has the distribution that is recorded, by exact probabilities over all answers."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import theory
from testbed import drift
from testbed.arithmetic.doors import behaviour_log_probs, chosen, sample_answers
from testbed.arithmetic.model import ModelConfig, initial_parameters, logits
from testbed.arithmetic.sampling import Sampler, behaviour_parameters
from testbed.arithmetic.vocabulary import END
from tests.testbed.arithmetic.test_model import made, rows

CONFIG = ModelConfig(context=8, layers=2, width=8, heads=2)
THETA = made(CONFIG, seed=4)
SAMPLERS = [
    Sampler(),
    Sampler(temperature=0.7),
    Sampler(top_k=4),
    Sampler(top_p=0.8),
    Sampler(temperature=1.3, top_k=6, top_p=0.9),
    Sampler(weights="bf16", logits="bf16"),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def plain_distribution(sampler, row):
    """Probabilities that a sampler makes of one row of logits, token by token."""
    if sampler.logits:
        row = row.to({"bf16": torch.bfloat16, "fp16": torch.float16}[sampler.logits])
    row = [v / sampler.temperature for v in row.double().tolist()]
    p = [math.exp(v - max(row)) for v in row]
    total = sum(p)
    p = [v / total for v in p]
    order = sorted(range(len(p)), key=lambda a: (-p[a], a))
    if sampler.top_k is not None:
        for a in order[sampler.top_k :]:
            p[a] = 0.0
        total = sum(p)
        p = [v / total for v in p]
    if sampler.top_p < 1.0:
        before = 0.0
        for a in order:
            p[a], before = (p[a] if before < sampler.top_p - 1e-14 else 0.0), before + p[a]
        total = sum(p)
        p = [v / total for v in p]
    return p


def exact_answers(sampler, prompt, length):
    """Probability of every answer to a prompt (L,), by full passes without a cache."""
    theta, found = behaviour_parameters(sampler, THETA), {}
    level = {(): 1.0}
    for t in range(length):
        prefixes = list(level)
        tokens = torch.tensor([[*prompt.tolist(), *prefix] for prefix in prefixes])
        after = logits(CONFIG, theta, tokens)[:, -1]
        grown = {}
        for prefix, row in zip(prefixes, after, strict=True):
            for a, p in enumerate(plain_distribution(sampler, row)):
                if p > 0.0:
                    ends = a == END or t == length - 1
                    (found if ends else grown)[(*prefix, a)] = level[prefix] * p
        level = grown
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)
    return found


def p_value(expected, sampled):
    """Chi-square test that answers (N, T) come from these probabilities; cells below 5 expected are one."""
    counts = dict.fromkeys(expected, 0)
    for row in sampled.tolist():
        cut = row.index(END) + 1 if END in row else len(row)
        counts[tuple(row[:cut])] += 1  # a KeyError here is an answer that cannot be
    n = len(sampled)
    want, got = np.array(list(expected.values())) * n, np.array(list(counts.values()))
    rare = want < 5
    want, got = (np.append(v[~rare], v[rare].sum()) for v in (want, got))
    keep = want > 0
    return float(stats.chisquare(got[keep], want[keep] * got.sum() / want[keep].sum()).pvalue)


# One false alarm in a million runs per sampler, were the seed drawn anew each time.
FALSE_ALARM = 1e-6


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_answers_have_their_exact_probabilities(sampler):
    prompt = rows(1, 5)
    sampled = sample_answers(
        CONFIG, THETA, prompt, 3, per_prompt=20_000, sampler=sampler, generator=seeded()
    ).answers  # fmt: skip
    assert p_value(exact_answers(sampler, prompt[0], 3), sampled) > FALSE_ALARM
    # The controls: another temperature, another prompt.
    warmer = Sampler(sampler.temperature * 1.25, None, 1.0, sampler.weights, sampler.logits)
    assert p_value(exact_answers(warmer, prompt[0], 3), sampled) < FALSE_ALARM
    if sampler.top_k is None and sampler.top_p == 1.0:
        assert p_value(exact_answers(sampler, rows(1, 5, seed=9)[0], 3), sampled) < FALSE_ALARM


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("sampler", [*SAMPLERS, Sampler(temperature=0.0)], ids=str)
def test_recorded_log_probabilities_are_those_of_a_recomputation(sampler, dtype, tolerance):
    # Logits of float32 differ by 1e-7 between the two passes; bf16 would make 1e-2 of that at a boundary.
    if dtype == torch.float32 and sampler.logits:
        sampler = Sampler(weights="bf16")
    theta, prompts = THETA.to(dtype), rows(6, 5)
    found = sample_answers(CONFIG, theta, prompts, 4, per_prompt=3, sampler=sampler, generator=seeded(2))
    whole = torch.cat([prompts.repeat_interleave(3, 0), found.answers[:, :-1]], 1)

    def recomputed(theta, sampler):
        after = logits(CONFIG, theta, whole)[:, 4:]
        every = behaviour_log_probs(sampler, after)
        token = every.gather(-1, found.answers[..., None])[..., 0]
        return torch.where(found.mask, token, 0.0)

    again = recomputed(behaviour_parameters(sampler, theta), sampler)
    torch.testing.assert_close(found.behaviour_log_probs, again, rtol=0, atol=tolerance)
    assert found.behaviour_log_probs.dtype == torch.float64
    if sampler.weights is None:
        torch.testing.assert_close(found.policy_log_probs, recomputed(theta, Sampler()), rtol=0, atol=tolerance)
        if sampler != Sampler():
            assert (found.policy_log_probs - found.behaviour_log_probs).abs().max() > 1e-3
    else:
        assert found.policy_log_probs is None
    if sampler == Sampler():
        assert (again - recomputed(theta, Sampler(temperature=1.05))).abs().max() > 1e-3


def test_masks_end_with_the_end_token():
    found = sample_answers(CONFIG, THETA, rows(40, 5), 4, per_prompt=5, generator=seeded())
    lengths = set()
    for answer, mask, mu in zip(
        found.answers.tolist(), found.mask.tolist(), found.behaviour_log_probs.tolist(), strict=True
    ):
        length = answer.index(END) + 1 if END in answer else 4
        assert mask == [t < length for t in range(4)]
        assert answer[length:] == [END] * (4 - length)
        assert mu[length:] == [0.0] * (4 - length)
        assert all(v < 0 for v in mu[:length])
        lengths.add(length)
    assert lengths == {1, 2, 3, 4}


def test_the_same_seed_gives_the_same_answers():
    def drawn(seed, **options):
        return sample_answers(CONFIG, THETA, rows(5, 5), 4, per_prompt=4, generator=seeded(seed), **options)

    first, second = drawn(1), drawn(1)
    assert torch.equal(first.answers, second.answers)
    assert torch.equal(first.behaviour_log_probs, second.behaviour_log_probs)
    assert not torch.equal(first.answers, drawn(2).answers)


def test_greedy_answers_need_no_seed_and_do_not_depend_on_the_batch():
    greedy, prompts = Sampler(temperature=0.0), rows(20, 5)
    together = sample_answers(CONFIG, THETA, prompts, 4, sampler=greedy)
    for n, prompt in enumerate(prompts):
        alone = sample_answers(CONFIG, THETA, prompt[None], 4, sampler=greedy)
        assert torch.equal(alone.answers[0], together.answers[n])
        tokens, expected = prompt.tolist(), []
        while len(expected) < 4 and END not in expected:
            expected.append(int(logits(CONFIG, THETA, torch.tensor([tokens + expected]))[0, -1].argmax()))
        assert alone.answers[0].tolist() == expected + [END] * (4 - len(expected))
    assert len(together.answers.unique(dim=0)) > 1
    assert not together.behaviour_log_probs.any()
    assert (together.policy_log_probs[together.mask] < 0).all()


def test_a_sampled_answer_depends_on_its_own_prompt_and_row():
    prompts = rows(6, 5)
    together = sample_answers(CONFIG, THETA, prompts, 4, generator=seeded())
    changed = prompts.clone()
    changed[3:] = rows(3, 5, seed=7)
    other = sample_answers(CONFIG, THETA, changed, 4, generator=seeded())
    fewer = sample_answers(CONFIG, THETA, prompts[:2], 4, generator=seeded())
    assert torch.equal(together.answers[:3], other.answers[:3])
    assert torch.equal(together.answers[:2], fewer.answers)


def test_answers_can_enter_a_graph():
    found, theta = sample_answers(CONFIG, THETA, rows(2, 5), 3, generator=seeded()), THETA.clone().requires_grad_()
    whole = torch.cat([rows(2, 5), found.answers[:, :-1]], 1)
    picked = logits(CONFIG, theta, whole)[:, 4:].log_softmax(-1).gather(-1, found.answers[..., None])[..., 0]
    (torch.exp(picked - found.behaviour_log_probs) * found.mask).sum().backward()
    assert theta.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "settings", "sampler"),
    [
        ("top_p", {"p": 0.9}, Sampler(top_p=0.9)),
        ("top_p", {"p": 0.3}, Sampler(top_p=0.3)),
        ("top_k", {"k": 3}, Sampler(top_k=3)),
        ("top_k", {"k": 20}, Sampler(top_k=20)),
    ],
)
def test_samplers_are_those_of_controlled_drift(kind, settings, sampler):
    S, A = 40, 11
    table = np.random.default_rng(0).normal(size=(S, A)) * 2
    table[:10] = np.round(table[:10])  # ties
    process = theory.MarkovProcess(np.full(S, 1 / S), np.full((S, A, S), 1 / S), np.zeros((S, A)), horizon=1)
    _, behaviour = drift.apply(kind, process, theory.SoftmaxPolicy(table), **settings)
    ours = behaviour_log_probs(sampler, torch.from_numpy(table)).exp().numpy()
    np.testing.assert_allclose(ours, behaviour.probabilities, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(ours > 0, behaviour.probabilities > 0)


def test_of_equal_tokens_the_lower_index_is_kept():
    row = torch.zeros(5)
    for sampler, kept in [(Sampler(top_p=0.5), 3), (Sampler(top_k=2), 2), (Sampler(temperature=0.0), 1)]:
        assert (behaviour_log_probs(sampler, row) > -math.inf).tolist() == [a < kept for a in range(5)]
    # 0.6 is reached by two of these exactly, though 0.4 + 0.2 is more than 0.6 in binary.
    exact = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1], dtype=torch.float64).log()
    assert (behaviour_log_probs(Sampler(top_p=0.6), exact) > -math.inf).sum() == 2
    assert (behaviour_log_probs(Sampler(top_p=0.61), exact) > -math.inf).sum() == 3


def test_a_token_of_probability_zero_is_never_chosen():
    log_probs = torch.tensor([-math.inf, math.log(0.5), -math.inf, math.log(0.5), -math.inf], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0 - 2.0**-53], dtype=torch.float64)
    assert chosen(log_probs.expand(5, -1), uniform).tolist() == [1, 1, 3, 3, 3]


def test_inverse_transform_sampling_by_a_plain_loop():
    generator = seeded(3)
    log_probs = torch.randn(200, 7, generator=generator, dtype=torch.float64).log_softmax(-1)
    uniform = torch.rand(200, generator=generator, dtype=torch.float64)
    for row, u, a in zip(log_probs.exp().tolist(), uniform.tolist(), chosen(log_probs, uniform).tolist(), strict=True):
        passed = [sum(row[: k + 1]) > u * sum(row) for k in range(7)]
        assert a == passed.index(True)


@pytest.mark.parametrize("format_", ["bf16", "fp16"])
def test_rounding_moves_the_distribution_measurably(format_):
    config = ModelConfig(context=8)
    theta, tokens = initial_parameters(config, 0), rows(32, 8)
    own = logits(config, theta, tokens)
    rounded = behaviour_parameters(Sampler(weights=format_), theta)
    by_weights = logits(config, rounded, tokens).double().log_softmax(-1)
    by_logits = behaviour_log_probs(Sampler(logits=format_), own)
    exact = own.double().log_softmax(-1)
    kl = [float((exact.exp() * (exact - other)).sum(-1).mean()) for other in (by_weights, by_logits)]
    assert all(1e-11 < value < 1e-2 for value in kl)
    # The control: rounding what is rounded changes nothing.
    assert torch.equal(behaviour_parameters(Sampler(weights=format_), rounded), rounded)
    assert rounded.dtype == theta.dtype
    spacing = {"bf16": 2.0**-8, "fp16": 2.0**-11}[format_]
    moved = ((rounded - theta).abs() / theta.abs().clamp(min=1e-4)).max()
    assert spacing / 4 < moved <= spacing * 1.001


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_k": 0}, "top_k is 0; expected a whole number of tokens, at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; expected a number above 0 and up to 1"),
        ({"weights": "bf15"}, "nearest known name is 'bf16'"),
    ],
)
def test_samplers_without_meaning_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(**options)


def test_rollouts_without_meaning_are_refused():
    with pytest.raises(ValueError, match="generator is None"):
        sample_answers(CONFIG, THETA, rows(1, 5), 3)
    with pytest.raises(ValueError, match="length is 0"):
        sample_answers(CONFIG, THETA, rows(1, 5), 0, generator=seeded())
    with pytest.raises(ValueError, match="expected at most the context of 8"):
        sample_answers(CONFIG, THETA, rows(1, 5), 5, generator=seeded())


def test_every_combination_of_options_gives_a_distribution():
    row = torch.randn(30, 11, generator=seeded(), dtype=torch.float64)
    for temperature, k, p, format_ in itertools.product((0.0, 0.5, 2.0), (None, 1, 5), (0.2, 1.0), (None, "bf16")):
        found = behaviour_log_probs(Sampler(temperature, k, p, None, format_), row)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(30, dtype=torch.float64), rtol=0, atol=1e-12)
