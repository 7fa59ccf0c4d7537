"""A tiny transformer that learns arithmetic, small enough that every answer can be enumerated. Needs PyTorch."""

from testbed.arithmetic.caching import base_model, cache_folder, content_key
from testbed.arithmetic.exact import (
    Evaluation,
    NetworkPrompt,
    evaluate,
    network_decomposition,
    network_moments,
    network_prompt,
)
from testbed.arithmetic.flops import FlopCount, flop_count
from testbed.arithmetic.model import (
    ModelConfig,
    answer_logits,
    decode_step,
    initial_parameters,
    logits,
    model_for,
    parameter_count,
    prefill,
    unpack,
)
from testbed.arithmetic.rollout import Rollout, sample_answers
from testbed.arithmetic.sampling import Sampler, behaviour_log_probs, behaviour_parameters, chosen
from testbed.arithmetic.splitting import Split, split
from testbed.arithmetic.task import ArithmeticTask, all_prompts, operands_of, prompts_of, right_answers
from testbed.arithmetic.tree import AnswerTree, answer_tree
from testbed.arithmetic.verifier import parsed, rewards
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, END, SYMBOLS, decode, encode
from testbed.arithmetic.warmup import Accuracy, BaseModel, WarmUp, accuracy, right_answer_log_probs, warm_up

__all__ = [
    "ANSWER_TOKENS",
    "END",
    "SYMBOLS",
    "Accuracy",
    "AnswerTree",
    "ArithmeticTask",
    "BaseModel",
    "Evaluation",
    "FlopCount",
    "ModelConfig",
    "NetworkPrompt",
    "Rollout",
    "Sampler",
    "Split",
    "WarmUp",
    "accuracy",
    "all_prompts",
    "answer_logits",
    "answer_tree",
    "base_model",
    "behaviour_log_probs",
    "behaviour_parameters",
    "cache_folder",
    "chosen",
    "content_key",
    "decode",
    "decode_step",
    "encode",
    "evaluate",
    "flop_count",
    "initial_parameters",
    "logits",
    "model_for",
    "network_decomposition",
    "network_moments",
    "network_prompt",
    "operands_of",
    "parameter_count",
    "parsed",
    "prefill",
    "prompts_of",
    "rewards",
    "right_answer_log_probs",
    "right_answers",
    "sample_answers",
    "split",
    "unpack",
    "warm_up",
]
