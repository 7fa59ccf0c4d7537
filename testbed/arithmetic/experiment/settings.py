"""An experiment is plain data: methods with the configurations they may choose from, staleness, seeds, tasks."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from testbed import spelling
from theory import checks

PACKAGED = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}
"""The experiments that `testbed experiment NAME` runs: name -> file."""
LEVELS = {
    "token": "corrects each token by its own ratio, or not at all",
    "prefix": "looks at the tokens before it, or at the whole sequence",
}
"""What a method's weight of a token looks at: name -> meaning. Figures have a row of panels for each."""
SET_BY_GRID = ("weight", "learning_rate", "staleness", "seed")
"""Options of a training run that the grid sets."""
MEASURES = (
    "evaluate_every", "evaluation_prompts", "evaluation_skip", "exact_every", "exact_prompts", "exact_variance",
    "tree_prompts",
)  # fmt: skip
"""Options that change what is measured of a run and not the run."""


@dataclass(frozen=True)
class Method:
    """A method and its configurations: every weight at every learning rate.

    Raises:
        ValueError: an unknown weight, option or level, no learning rate above 0, or a configuration given twice.
    """

    name: str
    """As tables and figures call it."""
    weights: tuple[str, ...]
    """As spelled: one, or one per clip that is tried."""
    learning_rates: tuple[float, ...]
    """Of AdamW."""
    level: str = "token"
    """Of `LEVELS`."""

    def __post_init__(self) -> None:
        """Check every value."""
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"name of a method is {self.name!r}; expected a text")
        whose = f"method {self.name!r}"
        checks.known_name("level", self.level, LEVELS, of=whose)
        weights, rates = (_listed(f"{n} of {whose}", getattr(self, n)) for n in ("weights", "learning_rates"))
        for weight in weights:
            _at(f"weights of {whose}", spelling.weight, weight)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "learning_rates", tuple(_rate(f"learning_rates of {whose}", r) for r in rates))
        _different(f"weights of {whose}", [spelling.weight(w).label for w in weights])
        _different(f"learning_rates of {whose}", self.learning_rates)

    @property
    def configurations(self) -> tuple[tuple[str, float], ...]:
        """Every (weight, learning rate) that it may choose."""
        return tuple(product(self.weights, self.learning_rates))


@dataclass(frozen=True)
class LengthStudy:
    """One weight with a clip on answers of different lengths: how many tokens end at the clip's lower bound."""

    tasks: Mapping[str, Mapping[str, Any]]
    """Name, as figures have it -> fields of `ArithmeticTask`, and what else the task needs for itself, such as a
    learning rate at which it drifts as far as the others."""
    weight: str = "minpro(clip=(0.8, 1.28))"
    learning_rate: float = 3e-4
    staleness: int = 16
    seeds: tuple[int, ...] = (0, 1, 2)
    training: Mapping[str, Any] = field(default_factory=dict)
    """Options of the training runs, over those of the experiment."""

    def __post_init__(self) -> None:
        """Check every value."""
        if not isinstance(self.tasks, Mapping) or not self.tasks:
            raise ValueError(f"tasks of length is {self.tasks!r}; expected a table of name -> fields of a task")
        _at("weight of length", spelling.weight, self.weight)
        object.__setattr__(self, "learning_rate", _rate("learning_rate of length", self.learning_rate))
        object.__setattr__(self, "seeds", _whole("seeds of length", self.seeds))
        _whole("staleness of length", [self.staleness])
        _options("training of length", self.training)


@dataclass(frozen=True)
class Experiment:
    """Methods compared under staleness: a fair choice of each one's configuration, then fresh seeds.

    Every method has the same number of tuning runs: those of fewest configurations try each with all tuning seeds,
    one of twice as many with the first half of them. At each staleness the configuration with the best mean final
    accuracy over its tuning seeds is chosen and trained again with the final seeds, which are others.

    Raises:
        ValueError: a value without meaning, a number of configurations that the tuning seeds cannot be dealt to, or a
            seed that is used for both tuning and the final runs; the sentence names the key.
    """

    methods: tuple[Method, ...]
    staleness: tuple[int, ...]
    """K: rollouts come from the policy of K updates ago."""
    tuning_seeds: tuple[int, ...]
    final_seeds: tuple[int, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    """Options that all runs share: task, signal, reduction, steps, ..., as `Training` has them."""
    final_training: Mapping[str, Any] = field(default_factory=dict)
    """Options of the final runs, over `training`: what is measured of them alone."""
    references: tuple[str, ...] = ()
    """Methods that every other is compared with; the first is the one that tables show."""
    length: LengthStudy | None = None
    name: str = "experiment"
    """Names the folder of results."""

    def __post_init__(self) -> None:
        """Check every value."""
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]*", self.name):
            raise ValueError(f"name is {self.name!r}; expected letters, digits, '-', '_' and '.', for a folder")
        methods = tuple(_made(Method, "methods", m) for m in _listed("methods", self.methods))
        object.__setattr__(self, "methods", methods)
        for key in ("staleness", "tuning_seeds", "final_seeds"):
            object.__setattr__(self, key, _whole(key, getattr(self, key)))
        _different("methods", [m.name for m in methods])
        both = sorted({*self.tuning_seeds} & {*self.final_seeds})
        if both:
            raise ValueError(f"seed {both[0]} is in tuning_seeds and in final_seeds; expected each in one of them")
        budget = len(self.tuning_seeds) * min(len(m.configurations) for m in methods)
        for method in methods:
            if budget % len(method.configurations):
                raise ValueError(
                    f"method {method.name!r} has {len(method.configurations)} configurations for {budget} tuning runs; "
                    "expected a number that divides them, so that every method has as many runs"
                )
        object.__setattr__(self, "references", tuple(self.references))
        for reference in self.references:
            checks.known_name("method", reference, [m.name for m in methods], of="references")
        _options("training", self.training)
        _options("final_training", self.final_training)
        for key in self.final_training:
            checks.known_name("measure", key, MEASURES, of="final_training")
        if self.length is not None:
            object.__setattr__(self, "length", _made(LengthStudy, "length", self.length))

    @classmethod
    def from_toml(cls, path: str | Path) -> Experiment:
        """The experiment in a TOML file, whose keys are the fields of this class."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ValueError(f"cannot read the experiment {str(path)!r}: {why}") from None
        try:
            return _made(cls, "experiment", tomllib.loads(text))
        except ValueError as error:
            raise ValueError(f"in {str(path)!r}: {error}") from None

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def tuning_seeds_of(self, method: Method) -> tuple[int, ...]:
        """The tuning seeds that each configuration of a method is tried with."""
        fewest = min(len(m.configurations) for m in self.methods)
        return self.tuning_seeds[: len(self.tuning_seeds) * fewest // len(method.configurations)]

    def method(self, name: str) -> Method:
        """The method of this name."""
        return next(m for m in self.methods if m.name == name)

    def quick(self) -> Experiment:
        """A cut that takes a moment: the first reference and one more method, two configurations each, the ends of the
        staleness, two seeds, few updates; of the lengths the first two, one seed."""
        others = [m.name for m in self.methods if m.name not in self.references[:1]]
        kept = {*self.references[:1], *[*self.references[1:], *others][: 2 - len(self.references[:1])]}
        methods = tuple(_cut(m) for m in self.methods if m.name in kept)
        length = self.length
        if length is not None:
            length = replace(length, tasks=dict([*length.tasks.items()][:2]), seeds=length.seeds[:1])
            length = replace(length, training={**length.training, **QUICK}, staleness=min(length.staleness, 4))
        return replace(
            self,
            name=f"{self.name}-quick",
            methods=methods,
            staleness=tuple(sorted({min(self.staleness), min(s for s in (*self.staleness, 4) if s)})),
            tuning_seeds=self.tuning_seeds[:1],
            final_seeds=self.final_seeds[:2],
            training={**self.training, **QUICK},
            final_training=QUICK_FINAL,
            references=tuple(r for r in self.references if r in kept),
            length=length,
        )


QUICK = {"steps": 12, "evaluate_every": 4, "evaluation_prompts": 16, "tree_prompts": 1}
QUICK_FINAL = {"exact_every": 6, "exact_prompts": 1}
"""Options of the training runs of a quick experiment, and of its final ones."""


def packaged_experiment(name: str) -> Experiment:
    """An experiment that comes with the package.

    Raises:
        ValueError: there is none of that name.
    """
    return Experiment.from_toml(PACKAGED[checks.known_name("experiment", name, PACKAGED)])


def _cut(method: Method) -> Method:
    """Two configurations, of learning rates if there are two."""
    if len(method.learning_rates) > 1:
        return replace(method, weights=method.weights[:1], learning_rates=method.learning_rates[:2])
    return replace(method, weights=method.weights[:2])


def _made(kind: Callable[..., Any], key: str, value: Any) -> Any:
    """An object of a dataclass from a table whose keys are its fields."""
    if isinstance(value, kind):  # type: ignore[arg-type]
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} is {value!r}; expected a table")
    for name in value:
        checks.known_name("key", name, [f.name for f in fields(kind)], of=key)  # type: ignore[arg-type]
    try:
        return kind(**value)
    except TypeError as error:
        raise ValueError(f"{key}: {error}") from None


def _at(key: str, check: Callable[[Any], Any], value: Any) -> None:
    try:
        check(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{key}: {error}") from None


def _options(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} is {value!r}; expected a table")
    for name in SET_BY_GRID:
        if name in value:
            raise ValueError(f"{key} has the key {name!r}; expected it nowhere there, as the grid sets it")


def _listed(key: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{key} is {value!r}; expected a list")
    items = tuple(value)
    if not items:
        raise ValueError(f"{key} is an empty list; expected at least one value")
    return items


def _whole(key: str, value: Any) -> tuple[int, ...]:
    items = _listed(key, value)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise ValueError(f"{key} has {item!r}; expected whole numbers >= 0")
    _different(key, items)
    return items


def _rate(key: str, value: Any) -> float:
    rate = checks.non_negative(key, value)
    if rate == 0.0:
        raise ValueError(f"{key} has {value!r}; expected numbers above 0")
    return rate


def _different(key: str, values: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{key} has {value!r} twice; expected different values")
        seen.add(value)
