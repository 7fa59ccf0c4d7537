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
from testbed.arithmetic.splitting import split
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.training.signals import needed_values
from testbed.arithmetic.trees import MOST_PREFIXES
from testbed.arithmetic.warmup import WarmUp, warm_up_for
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
    """As it is spelled: `minpro(clip=(0.8, 1.28))`; or a preset such as `trl:grpo/dapo`, which brings its own signal,
    score and reduction."""
    signal: str | None = None
    """By default `group(size=8)`, or the preset's."""
    score: Literal["own", "cumulative"] | None = None
    """By default own, or the preset's."""
    reduction: str | None = None
    """By default sum, or the preset's."""
    coupled: Literal["draw", "update"] = "draw"
    """Over which answers a weight looks that couples a batch (`m2po`, `self_normalised`): those of one draw, as exact
    moments have it, or all answers of the update, as libraries compute it."""
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
    """Held-out prompts of an evaluation, the same each time; fewer where there are fewer."""
    evaluation_skip: int = 0
    """Held-out prompts passed over before those: what a choice was made by need not be what is reported."""
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
    explosion_entropy: float = 2.5
    """Nats per token above which it does: all 14 tokens alike are log 14 = 2.64."""
    width: int = 64
    layers: int = 2
    warm_up: WarmUp = None  # type: ignore[assignment]
    """By default `warm_up_for` the task."""

    def __post_init__(self) -> None:
        """Check every setting."""
        for name in ("weight", "signal", "score", "reduction"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name == "weight" or value is not None):
                raise ValueError(f"{name} is {value!r}; expected a name as text")
        if self.warm_up is None and isinstance(self.task, ArithmeticTask):
            object.__setattr__(self, "warm_up", warm_up_for(self.task))
        for name, kind in _NESTED.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a table of {kind.__name__}'s settings")
        for name, least in _WHOLE.items():
            checks.whole_number(name, getattr(self, name), least, name)
        checks.known_name("coupled", self.coupled, ("draw", "update"))
        for name in ("learning_rate", "weight_decay", "collapse_reward", "collapse_entropy", "explosion_entropy"):
            checks.non_negative(name, getattr(self, name))
        if not isinstance(self.exact_variance, bool):
            raise ValueError(f"exact_variance is {self.exact_variance!r}; expected True or False")
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2 or not all(map(_is_decay, self.betas)):
            raise ValueError(f"betas is {self.betas!r}; expected two numbers from 0 up to 1, exclusive")
        object.__setattr__(self, "betas", tuple(map(float, self.betas)))
        limit = self.max_gradient_norm
        if limit is not None and not (isinstance(limit, Real) and 0.0 < limit < math.inf):
            raise ValueError(f"max_gradient_norm is {limit!r}; expected a positive number, or None")
        if self.old_staleness > self.staleness:
            raise ValueError(
                f"old_staleness is {self.old_staleness} and staleness {self.staleness}; expected an old policy that is "
                "no older than the rollouts"
            )
        _check_draws(self.estimator, self.prompts, self.answers)
        _check_evaluation(self)
        _check_trees(self)
        reduction = self.estimator.reduction
        if self.exact_every and reduction.batch > 1 and not isinstance(self.estimator.signal, theory.GroupSignal):
            raise ValueError(
                f"reduction {reduction.name}(batch={reduction.batch}) mixes answers to several prompts, of which there "
                "are no exact moments; expected exact_every=0, or a reduction without a batch"
            )

    @cached_property
    def estimator(self) -> theory.Estimator:
        """The four choices as one object."""
        if ":" not in self.weight:
            weight, signal = spelling.weight(self.weight), spelling.signal(self.signal or DEFAULT_SIGNAL)
            return theory.Estimator(weight, signal, self.score or "own", spelling.reduction(self.reduction or "sum"))
        for name in ("signal", "score", "reduction"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"weight is the preset {self.weight!r}, which brings its own {name}; got {name}="
                    f"{getattr(self, name)!r}, expected none"
                )
        return theory.preset(self.weight).estimator

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
        for name in given:
            checks.known_name("setting", name, [f.name for f in fields(Training)])
        for name, kind in _NESTED.items():
            if isinstance(given.get(name), Mapping):
                for inner in given[name]:
                    checks.known_name("setting", inner, [f.name for f in fields(kind)], of=name)
                given[name] = kind(**given[name])
        return Training(**given)


DEFAULT_SIGNAL = "group(size=8)"
_NESTED: dict[str, Any] = {"task": ArithmeticTask, "sampler": Sampler, "warm_up": WarmUp}
_WHOLE = {
    **dict.fromkeys(("staleness", "old_staleness", "learning_rate_warmup", "seed", "evaluation_skip"), 0),
    **dict.fromkeys(("tree_prompts", "exact_every"), 0),
    **dict.fromkeys(("steps", "prompts", "answers", "evaluate_every", "evaluation_prompts"), 1),
    **dict.fromkeys(("exact_prompts", "width", "layers"), 1),
}


def _is_decay(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value < 1.0


def _check_evaluation(settings: Training) -> None:
    if not settings.evaluation_skip:
        return
    held_out = len(split(settings.task).held_out)
    if settings.evaluation_skip >= held_out:
        raise ValueError(
            f"evaluation_skip is {settings.evaluation_skip} and there are {held_out} held-out prompts; expected fewer "
            "to be passed over"
        )


def _check_trees(settings: Training) -> None:
    T, signal = settings.task.maximum_length, settings.estimator.signal
    prefixes = sum(10**k for k in range(T))
    if prefixes <= MOST_PREFIXES:
        return
    wanted = [
        *(["tree_prompts=0"] if settings.tree_prompts else []),
        *(["exact_every=0"] if settings.exact_every else []),
        *(["a signal without exact values"] if needed_values(signal) else []),
    ]
    if wanted:
        raise ValueError(
            f"answers of up to {T} tokens have {prefixes} prefixes, more than the {MOST_PREFIXES} of a tree; expected "
            f"shorter ones, or {' and '.join(wanted)}"
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
