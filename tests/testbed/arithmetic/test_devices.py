"""Everything runs where its tensors are: with inputs on another device no tensor is made on the processor."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from testbed.arithmetic import model, rollout
from testbed.arithmetic.doors import behaviour_log_probs, sample_answers
from testbed.arithmetic.evaluating import network_divergences
from testbed.arithmetic.model import ModelConfig, answer_logits, logits, parameter_count
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask, right_answers
from testbed.arithmetic.trees import tree_log_probs
from testbed.arithmetic.verifier import rewards

# Tensors on it have a shape and no numbers, and it is there on every machine.
ELSEWHERE = torch.device("meta")
TASK = ArithmeticTask(digits=1)
CONFIG = ModelConfig(context=8, width=8)


# What `bool` asks a tensor, of which one without numbers knows no answer.
ASKED = {torch.ops.aten.is_nonzero.default, torch.ops.aten._local_scalar_dense.default}


class OnlyElsewhere(TorchDispatchMode):
    """Refuses every tensor that an operation makes on another device; one number may be anywhere, as with CUDA.

    What is asked is whether answers go on, and whether prompts are well written.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in ASKED:
            return True
        found = function(*args, **(kwargs or {}))
        for made in tree_leaves(found):
            if isinstance(made, torch.Tensor) and made.ndim > 0 and made.device.type != ELSEWHERE.type:
                raise AssertionError(f"{function} made a tensor on {made.device}")
        return found


def parameters():
    return torch.empty(parameter_count(CONFIG), device=ELSEWHERE)


def tokens(*shape):
    return torch.zeros(shape, dtype=torch.int64, device=ELSEWHERE)


def gradient():
    theta = parameters().requires_grad_()
    return torch.autograd.grad(answer_logits(CONFIG, theta, tokens(3, 4), tokens(6, 4)).sum(), theta)[0]


def sampled(sampler):
    found = sample_answers(
        CONFIG, parameters(), tokens(3, 4), 4, per_prompt=2, sampler=sampler, generator=torch.Generator()
    )
    assert {value.device for value in vars(found).values() if value is not None} == {ELSEWHERE}
    return found.answers


WORK = {
    "logits": lambda: logits(CONFIG, parameters(), tokens(3, 5)),
    "gradient": gradient,
    "rollout": lambda: sampled(Sampler()),
    "greedy": lambda: sampled(Sampler(temperature=0.0)),
    "truncated": lambda: sampled(Sampler(temperature=0.7, top_k=5, top_p=0.9)),
    "rounded": lambda: sampled(Sampler(weights="bf16", logits="fp16")),
    "rewards": lambda: rewards(TASK, tokens(3, 4), tokens(3, 3)),
    "right answers": lambda: right_answers(TASK, tokens(3, 4)),
    "trees": lambda: tree_log_probs(CONFIG, parameters(), TASK, tokens(3, 4)),
    "divergences": lambda: network_divergences(CONFIG, parameters(), TASK, tokens(3, 4)).ess,
}


@pytest.mark.parametrize("name", WORK)
def test_no_tensor_is_made_elsewhere_than_the_inputs_are(name):
    with OnlyElsewhere():
        assert WORK[name]().device == ELSEWHERE


@pytest.mark.parametrize("name", ["logits", "gradient", "rollout"])
def test_a_forgotten_device_is_noticed(name, monkeypatch):
    made = model._unseen
    monkeypatch.setattr(
        model, "_unseen", lambda theta, *sizes: made(torch.empty(0, device="cpu"), *sizes).to(theta.device)
    )
    with OnlyElsewhere(), pytest.raises(AssertionError, match="made a tensor on cpu"):
        WORK[name]()


def test_a_forgotten_device_of_a_sampler_is_noticed(monkeypatch):
    def on_the_processor(sampler, values):
        return behaviour_log_probs(sampler, torch.zeros(values.shape)).to(values.device)

    monkeypatch.setattr(rollout, "sampler_log_probs", on_the_processor)
    with OnlyElsewhere(), pytest.raises(AssertionError, match="made a tensor on cpu"):
        WORK["rollout"]()
