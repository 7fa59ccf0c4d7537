"""A tiny transformer that learns arithmetic, small enough that every answer can be enumerated. Needs PyTorch."""

from testbed.arithmetic.caching import base_model, cache_folder, content_key
from testbed.arithmetic.doors import behaviour_log_probs, chosen, sample_answers
from testbed.arithmetic.evaluating import (
    Evaluation,
    PromptEvaluations,
    evaluate,
    network_divergences,
    network_values,
)
from testbed.arithmetic.exact import NetworkPrompt, network_decomposition, network_moments, network_prompt
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
from testbed.arithmetic.per_trajectory import score_products
from testbed.arithmetic.rollout import Rollout
from testbed.arithmetic.sampling import Sampler, behaviour_parameters
from testbed.arithmetic.splitting import Split, split
from testbed.arithmetic.task import ArithmeticTask, all_prompts, operands_of, prompts_of, right_answers
from testbed.arithmetic.training import (
    BatchGradient,
    Behaviour,
    Training,
    TrainingRun,
    batch_gradient,
    read_run,
    train,
)
from testbed.arithmetic.tree import AnswerTree, answer_tree
from testbed.arithmetic.trees import (
    TreeDivergences,
    TreeValues,
    prefix_states,
    tree_divergences,
    tree_entropy,
    tree_log_probs,
    tree_logits,
    tree_rewards,
    tree_values,
    tree_visits,
)
from testbed.arithmetic.verifier import parsed, rewards
from testbed.arithmetic.vocabulary import ANSWER_TOKENS, END, SYMBOLS, decode, encode
from testbed.arithmetic.warmup import (
    Accuracy,
    BaseModel,
    WarmUp,
    accuracy,
    right_answer_log_probs,
    warm_up,
    warm_up_for,
)

__all__ = [
    "ANSWER_TOKENS",
    "END",
    "SYMBOLS",
    "Accuracy",
    "AnswerTree",
    "ArithmeticTask",
    "BaseModel",
    "BatchGradient",
    "Behaviour",
    "Evaluation",
    "FlopCount",
    "ModelConfig",
    "NetworkPrompt",
    "PromptEvaluations",
    "Rollout",
    "Sampler",
    "Split",
    "Training",
    "TrainingRun",
    "TreeDivergences",
    "TreeValues",
    "WarmUp",
    "accuracy",
    "all_prompts",
    "answer_logits",
    "answer_tree",
    "base_model",
    "batch_gradient",
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
    "network_divergences",
    "network_moments",
    "network_prompt",
    "network_values",
    "operands_of",
    "parameter_count",
    "parsed",
    "prefill",
    "prefix_states",
    "prompts_of",
    "read_run",
    "rewards",
    "right_answer_log_probs",
    "right_answers",
    "sample_answers",
    "score_products",
    "split",
    "train",
    "tree_divergences",
    "tree_entropy",
    "tree_log_probs",
    "tree_logits",
    "tree_rewards",
    "tree_values",
    "tree_visits",
    "unpack",
    "warm_up",
    "warm_up_for",
]
