"""A sweep is plain data: the axes of a grid, and what to compute in each of its cells."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import theory
from testbed.sweep import building, toml
from testbed.sweep.choices import Choice, canonical, choice
from testbed.sweep.expanding import expanded
from theory import checks

PACKAGED = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}
"""The sweeps that `testbed sweep NAME` runs: name -> file."""
ALL = "all"
"""As a weight: every weight of the registry at its default options."""
LAYOUTS = {
    "divergences": "bias and deviation of each weight at each divergence, medians over environments and drifts",
    "drifts": "bias of each weight under each drift, with the mass that the drift loses",
    "numbers": "every number of each weight, one table per environment, drift and divergence",
}
"""How the results of a sweep are printed: name -> what a reader sees."""

_CHECKS: dict[str, Callable[[Choice], Any]] = {
    "environments": building.environment_of,
    "drifts": building.check_drift,
    "weights": building.weight_of,
    "signals": building.signal_of,
    "scores": building.check_score,
    "reductions": building.reduction_of,
}


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep: every combination of the axes is one cell, one task, one row of the table.

    Environments, drifts, weights, signals and reductions are names, `{"name": ..., option: ...}`, or `Choice` objects.
    An option that is a list of values stands for one entry per value, as in `{"name": "truncated", "cap": [2, 5, 10]}`;
    a list that is one value, as in `clip=[0.8, 1.28]`, stays one.

    >>> sweep = testbed.Sweep(
    ...     environments=["parity"], drifts=["noise"], weights=["token"], signals=["outcome"], kl=[0.1]
    ... )
    >>> sweep == testbed.Sweep.read(sweep.to_toml())
    True

    Raises:
        ValueError: an unknown name or option, or a value without meaning; the sentence names the key, as in the file.
    """

    environments: tuple[Choice, ...]
    """Environments with their options."""
    drifts: tuple[Choice, ...]
    """Kinds of drift with their options. An own list `kl` takes the place of the sweep's; a kind that says how strong
    it is (`strength`, p of top_p, k of top_k, bits or format of rounding) is not solved for a divergence."""
    weights: tuple[Choice, ...]
    """Weights with their options; "all" are those of the registry at their defaults."""
    signals: tuple[Choice, ...]
    """Signals with their options; `group` is the group-relative one."""
    kl: tuple[float, ...] = (0.1,)
    """Exact divergences KL(mu || pi) that every kind of drift is solved for, in nats."""
    per: str = "token"
    """What the divergence counts: "token" (mean over the tokens of a trajectory) or "sequence"."""
    scores: tuple[Choice, ...] = (Choice("own"),)
    """"own" or "cumulative"."""
    reductions: tuple[Choice, ...] = (Choice("sum"),)
    """How tokens are brought together."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the drifts that are random; the others have one cell whatever stands here."""
    trajectories: tuple[int, ...] = (1, 64, 4096)
    """Batch sizes for which the mean squared error is tabled."""
    engine: str = "auto"
    """How moments are computed."""
    sampled_trajectories: int = 100_000
    """Trajectories that are drawn where no exact engine answers."""
    sampling_seed: int = 0
    """Seed of those draws."""
    old: str = "none"
    """What stands for pi_old, the policy of the start of the update: "none", or "halfway" from mu to pi, with a lag of
    1."""
    layout: str = "divergences"
    """How results are printed: "divergences", "drifts" or "numbers"."""
    name: str = "sweep"
    """Names the folder of results."""

    def __post_init__(self) -> None:
        """Turn what a user writes into choices, and check every value."""
        # For every choice the place where the user wrote it: lists of values and "all" make many of one.
        places: dict[str, list[str]] = {}
        for axis, check in _CHECKS.items():
            items = (choice(f"{axis}[{i}]", v) for i, v in enumerate(_sequence(axis, getattr(self, axis))))
            made = _expanded(axis, check, items)
            object.__setattr__(self, axis, tuple(item for _, item in made))
            places[axis] = [place for place, _ in made]
        for place, item in zip(places["drifts"], self.drifts, strict=True):
            if "kl" in item.options:
                _numbers(f"{place}.kl", item.options["kl"])
        object.__setattr__(self, "kl", _numbers("kl", self.kl))
        object.__setattr__(self, "seeds", _whole("seeds", self.seeds, least=0))
        object.__setattr__(self, "trajectories", _whole("trajectories", self.trajectories, least=1))
        _whole("sampled_trajectories", [self.sampled_trajectories], least=2)
        _whole("sampling_seed", [self.sampling_seed], least=0)
        _at("engine", lambda engine: checks.known_name("engine", engine, theory.ENGINES), self.engine)
        _at("per", lambda per: checks.known_name("count of the divergence", per, ("token", "sequence")), self.per)
        _at("old", lambda old: checks.known_name("old policy", old, building.OLD), self.old)
        _at("layout", lambda layout: checks.known_name("layout", layout, LAYOUTS), self.layout)
        for place, item in zip(places["weights"], self.weights, strict=True):
            _at(place, lambda item: building.check_old(building.weight_of(item), self.old), item)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name is {self.name!r}; expected letters, digits, '-', '_' and '.', for a folder, no '.' at the start"
            )
        for axis in _CHECKS:
            same = _same_weight if axis == "weights" else lambda item: canonical(item.plain)
            items = getattr(self, axis)
            _all_different(places[axis], [same(item) for item in items], [item.label for item in items])
        for axis in ("kl", "seeds", "trajectories"):
            values = getattr(self, axis)
            _all_different([f"{axis}[{i}]" for i in range(len(values))], values, values)

    @classmethod
    def from_toml(cls, path: str | Path) -> Sweep:
        """The sweep in a TOML file, whose keys are the fields of this class."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot read the sweep {str(path)!r}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"cannot read the sweep {str(path)!r}: it is not UTF-8 text") from None
        try:
            return cls.read(text)
        except ValueError as error:
            raise ValueError(f"in {str(path)!r}: {error}") from None

    @classmethod
    def read(cls, text: str) -> Sweep:
        """The sweep that a TOML text describes."""
        data = tomllib.loads(text)
        known = [field.name for field in fields(cls)]
        for key in data:
            checks.known_name("key", key, known)
        for key in ("environments", "drifts", "weights", "signals"):
            if key not in data:
                raise ValueError(f"the key {key!r} is missing")
        return cls(**data)

    def to_toml(self) -> str:
        """The sweep as a TOML text, which `from_toml` and `read` turn into an equal sweep."""
        data: dict[str, Any] = {"name": self.name}
        for field in fields(self):
            value = getattr(self, field.name)
            data[field.name] = [_written(item) for item in value] if field.name in _CHECKS else value
        return toml.written(data)

    def quick(self) -> Sweep:
        """A smaller sweep with the same shape: two environments, the least and the greatest divergence, one seed.

        Of choices that differ in the values of their options only, as a list of values makes them, the first is kept;
        of drifts that say how strong they are, the two ends.
        """
        axes: dict[str, Any] = {axis: _first_of_each(getattr(self, axis)) for axis in _CHECKS if axis != "drifts"}
        axes["environments"] = axes["environments"][:2]
        ends = tuple(sorted({min(self.kl), max(self.kl)}))
        name = f"{self.name}-quick"
        return replace(self, name=name, kl=ends, seeds=self.seeds[:1], drifts=_ends_of_each(self.drifts), **axes)


# A name that starts with a dot would be a hidden folder or, as "..", lead out of the folder of results.
_NAME = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]*")


def default_sweep() -> Sweep:
    """The sweep that `testbed sweep` runs when no file is named.

    >>> testbed.default_sweep().kl
    (0.01, 0.03, 0.1, 0.3)
    """
    return packaged_sweep("default")


def packaged_sweep(name: str) -> Sweep:
    """A sweep that comes with the package: "default", "samplers" or "zoo".

    Raises:
        ValueError: there is none of that name.
    """
    return Sweep.from_toml(PACKAGED[checks.known_name("sweep", name, PACKAGED)])


def _expanded(axis: str, check: Callable[[Choice], Any], items: Iterable[Choice]) -> list[tuple[str, Choice]]:
    """Each choice that the items stand for, behind the place of its item."""
    result: list[tuple[str, Choice]] = []
    for i, item in enumerate(items):
        place = f"{axis}[{i}]"
        if axis == "weights" and item == Choice(ALL):
            result += ((place, one) for one in building.all_weights())
            continue
        try:
            result += ((place, one) for one in expanded(item, check, keep=("kl",)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place}: {error}") from None
    return result


def _first_of_each(items: Iterable[Choice]) -> tuple[Choice, ...]:
    """The first choice of each name with the same options, whatever their values."""
    first: dict[Any, Choice] = {}
    for item in items:
        first.setdefault((item.name, frozenset(item.options)), item)
    return tuple(first.values())


def _ends_of_each(drifts: Iterable[Choice]) -> tuple[Choice, ...]:
    """The first drift of each name and options; of those that say how strong they are, the first and the last."""
    plain = [drift.without("kl") for drift in drifts]
    ends = {*_first_of_each(plain)}
    ends |= {*_first_of_each(drift for drift in reversed(plain) if building.said_strength(drift))}
    return tuple(drift for drift in dict.fromkeys(plain) if drift in ends)


def _written(item: Choice) -> Any:
    return {"name": item.name, **item.options} if item.options else item.name


def _at(key: str, check: Callable[[Any], Any], value: Any) -> None:
    try:
        check(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{key}: {error}") from None


def _sequence(key: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{key} is {value!r}; expected a list")
    items = tuple(value)
    if not items:
        raise ValueError(f"{key} is an empty list; expected at least one value")
    return items


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    items = _sequence(key, value)
    for i, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, (int, float)) or not 0.0 <= item < float("inf"):
            raise ValueError(f"{key}[{i}] is {item!r}; expected a divergence in nats, a finite number >= 0")
    return tuple(float(item) for item in items)


def _whole(key: str, value: Any, least: int) -> tuple[int, ...]:
    items = _sequence(key, value)
    for i, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, int) or item < least:
            raise ValueError(f"{key}[{i}] is {item!r}; expected a whole number >= {least}")
    return items


def _all_different(places: Iterable[str], keys: Iterable[Any], labels: Iterable[Any]) -> None:
    seen: dict[Any, str] = {}
    for place, key, label in zip(places, keys, labels, strict=True):
        if seen.get(key) == place:
            raise ValueError(f"{place} gives {label} twice; expected different values")
        if key in seen:
            raise ValueError(f"{place} repeats {seen[key]}: both give {label}; expected different values")
        seen[key] = place


def _same_weight(item: Choice) -> str:
    """What tells two weights apart: one is the same with an option left out or at its default."""
    return building.weight_of(item).label
