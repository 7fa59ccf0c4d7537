"""What a training run is: plain data, checked at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from numbers import Real
from typing import Any, Literal

import theory
from testbed import spelling
from testbed.arithmetic.model import ModelConfig, model_for
from testbed.arithmetic.sampling import Sampler
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.trees import MOST_PREFIXES
from testbed.arithmetic.warmup import WarmUp
from theory import checks


@dataclass(frozen=True)
class Training:
    """Settings of a run. Everything that decides its numbers is here, so that equal settings give equal runs.

    An update draws `prompts` training prompts with replacement and `answers` to each from the policy of `staleness`
    updates ago; its gradient is the average of the estimator over these draws, and AdamW ascends it.

    Raises:
        ValueError: a setting without meaning, or settings that do not go together.
    """

    task: ArithmeticTask = field(default_factory=ArithmeticTask)
    weight: str = "ppo_clip"
    """As it is spelled: `minpro(clip=(0.8, 1.28))`; or a preset such as `trl:grpo/dapo`, which brings its own signal
    and reduction."""
    signal: str = "group(size=8)"
    score: Literal["own", "cumulative"] = "own"
    reduction: str = "sum"
    staleness: int = 0
    """K: answers are sampled by the policy of so many updates ago; until there is one, by the base model."""
    old_staleness: int = 0
    """How many updates ago the policy "old" was trained, for weights that tell three policies apart; at most K."""
    sampler: Sampler = field(default_factory=Sampler)
    """What the behaviour policy makes of the logits."""
    steps: int = 300
    """Updates."""
    prompts: int = 8
    """Per update."""
    answers: int = 8
    """To each prompt; a multiple of the group's size where the signal is a group."""
    learning_rate: float = 3e-4
    learning_rate_warmup: int = 20
    """Updates over which the learning rate grows linearly: AdamW's first steps have their full length whatever the
    gradient's."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW."""
    weight_decay: float = 0.0
    max_gradient_norm: float | None = 1.0
    """Longer gradients are shortened to this; None leaves them."""
    seed: int = 0
    """Of prompts and answers. The base model has its own."""
    evaluate_every: int = 10
    """Updates between exact evaluations of the policy."""
    evaluation_prompts: int = 256
    """Held-out prompts of an evaluation, the same each time."""
    tree_prompts: int = 4
    """How many of them have the tree of all answers evaluated, for entropy, divergences and effective sample size; 0
    where answers are too long for that."""
    exact_every: int = 0
    """Updates between exact moments of the estimator; 0 for never."""
    exact_prompts: int = 4
    """Training prompts of the exact moments, the same each time."""
    exact_variance: bool = False
    """Also the exact variance, seconds per prompt."""
    collapse_reward: float = 0.5
    """Share of the expected reward at the start below which a run counts as collapsed; of the accuracy, where the
    former is not known."""
    collapse_entropy: float = 1e-4
    """Nats per token below which it does, unless the policy earns over 0.95."""
    width: int = 64
    layers: int = 2
    warm_up: WarmUp = field(default_factory=WarmUp)

    def __post_init__(self) -> None:
        """Check every setting."""
        for name, least in _WHOLE.items():
            checks.whole_number(name, getattr(self, name), least, name)
        for name in ("learning_rate", "weight_decay", "collapse_reward", "collapse_entropy"):
            checks.non_negative(name, getattr(self, name))
        checks.known_name("score", self.score, ("own", "cumulative"))
        object.__setattr__(self, "betas", tuple(self.betas))
        if len(self.betas) != 2 or not all(isinstance(b, Real) and 0.0 <= b < 1.0 for b in self.betas):
            raise ValueError(f"betas is {self.betas!r}; expected two numbers from 0 up to 1, exclusive")
        limit = self.max_gradient_norm
        if limit is not None and not (isinstance(limit, Real) and 0.0 < limit < math.inf):
            raise ValueError(f"max_gradient_norm is {limit!r}; expected a positive number, or None")
        if self.old_staleness > self.staleness:
            raise ValueError(
                f"old_staleness is {self.old_staleness} and staleness {self.staleness}; expected an old policy that is "
                "no older than the rollouts"
            )
        _check_draws(self.estimator, self.prompts, self.answers)
        if self.tree_prompts or self.exact_every:
            _check_trees(self.task)

    @cached_property
    def estimator(self) -> theory.Estimator:
        """The four choices as one object."""
        if ":" in self.weight:
            return theory.preset(self.weight).estimator
        weight = spelling.weight(self.weight)
        return theory.Estimator(weight, spelling.signal(self.signal), self.score, spelling.reduction(self.reduction))

    @property
    def config(self) -> ModelConfig:
        """Sizes of the network."""
        return model_for(self.task, layers=self.layers, width=self.width)

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def from_plain(data: Mapping[str, Any]) -> Training:
        """From what `plain` gives, or part of it; nested tables for `task`, `sampler` and `warm_up`.

        Raises:
            ValueError: a name that is no setting, or what the settings themselves raise.
        """
        given = dict(data)
        nested = {"task": ArithmeticTask, "sampler": Sampler, "warm_up": WarmUp}
        for name in given:
            checks.known_name("setting", name, [f.name for f in fields(Training)])
        for name, kind in nested.items():
            if isinstance(given.get(name), Mapping):
                for inner in given[name]:
                    checks.known_name("setting", inner, [f.name for f in fields(kind)], of=name)
                given[name] = kind(**given[name])
        return Training(**given)


_WHOLE = {
    **dict.fromkeys(("staleness", "old_staleness", "learning_rate_warmup", "seed", "tree_prompts", "exact_every"), 0),
    **dict.fromkeys(("steps", "prompts", "answers", "evaluate_every", "evaluation_prompts"), 1),
    **dict.fromkeys(("exact_prompts", "width", "layers"), 1),
}


def _check_trees(task: ArithmeticTask) -> None:
    T = task.maximum_length
    prefixes = sum(10**k for k in range(T))
    if prefixes > MOST_PREFIXES:
        raise ValueError(
            f"answers of up to {T} tokens have {prefixes} prefixes, more than the {MOST_PREFIXES} of a tree; expected "
            "shorter ones, or tree_prompts=0 and exact_every=0"
        )


def _check_draws(estimator: theory.Estimator, prompts: int, answers: int) -> None:
    """A group is answers to one prompt; a batch is any answers of the update."""
    size = estimator.trajectories_per_draw
    if isinstance(estimator.signal, theory.GroupSignal):
        if answers % size:
            raise ValueError(f"answers is {answers} and the signal a group of {size}; expected a multiple of the group")
    elif (prompts * answers) % size:
        raise ValueError(
            f"an update has {prompts * answers} answers and the reduction a batch of {size}; expected a multiple of it"
        )
    baseline = getattr(estimator.signal, "baseline", "none")
    if baseline == "optimal":
        raise ValueError("baseline 'optimal' is not known while training; expected another baseline")
