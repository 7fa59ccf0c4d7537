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
from theory import checks

DEFAULT = Path(__file__).with_name("default.toml")

_CHECKS: dict[str, Callable[[Choice], Any]] = {
    "environments": building.environment_of,
    "drifts": lambda item: building.check_drift(item.without("kl")),
    "weights": building.weight_of,
    "signals": building.signal_of,
    "scores": building.check_score,
    "reductions": building.reduction_of,
}


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep: every combination of the axes is one cell, one task, one row of the table.

    Environments, drifts, weights, signals and reductions are names, `{"name": ..., option: ...}`, or `Choice` objects.

    >>> sweep = Sweep(environments=["parity"], drifts=["noise"], weights=["token"], signals=["outcome"], kl=[0.1])
    >>> sweep == Sweep.read(sweep.to_toml())
    True

    Raises:
        ValueError: an unknown name or option, or a value without meaning; the sentence names the key, as in the file.
    """

    environments: tuple[Choice, ...]
    """Environments with their options."""
    drifts: tuple[Choice, ...]
    """Kinds of drift with their options. An own list `kl` takes the place of the sweep's."""
    weights: tuple[Choice, ...]
    """Weights with their options."""
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
    name: str = "sweep"
    """Names the folder of results."""

    def __post_init__(self) -> None:
        """Turn what a user writes into choices, and check every value."""
        for axis, check in _CHECKS.items():
            items = tuple(choice(f"{axis}[{i}]", v) for i, v in enumerate(_sequence(axis, getattr(self, axis))))
            for i, item in enumerate(items):
                _at(f"{axis}[{i}]", check, item)
            object.__setattr__(self, axis, items)
        for i, item in enumerate(self.drifts):
            if "kl" in item.options:
                _numbers(f"drifts[{i}].kl", item.options["kl"])
        object.__setattr__(self, "kl", _numbers("kl", self.kl))
        object.__setattr__(self, "seeds", _whole("seeds", self.seeds, least=0))
        object.__setattr__(self, "trajectories", _whole("trajectories", self.trajectories, least=1))
        _at("engine", lambda engine: checks.known_name("engine", engine, theory.ENGINES), self.engine)
        _at("per", lambda per: checks.known_name("count of the divergence", per, ("token", "sequence")), self.per)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name is {self.name!r}; expected letters, digits, '-', '_' and '.', for a folder, no '.' at the start"
            )
        for axis in (*_CHECKS, "kl", "seeds", "trajectories"):
            _all_different(axis, getattr(self, axis))

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
        """A smaller sweep with the same shape: two environments, the least and the greatest divergence, one seed."""
        ends = tuple(sorted({min(self.kl), max(self.kl)}))
        drifts = tuple(drift.without("kl") for drift in self.drifts)
        name = f"{self.name}-quick"
        return replace(
            self, name=name, environments=self.environments[:2], kl=ends, seeds=self.seeds[:1], drifts=drifts
        )


# A name that starts with a dot would be a hidden folder or, as "..", lead out of the folder of results.
_NAME = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]*")


def default_sweep() -> Sweep:
    """The sweep that `testbed sweep` runs when no file is named."""
    return Sweep.from_toml(DEFAULT)


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


def _all_different(key: str, items: tuple[Any, ...]) -> None:
    seen: dict[str, int] = {}
    for i, item in enumerate(items):
        text = canonical(item.plain if isinstance(item, Choice) else item)
        if text in seen:
            raise ValueError(f"{key}[{i}] repeats {key}[{seen[text]}]; expected different values")
        seen[text] = i
