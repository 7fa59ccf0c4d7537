"""Base models on disk, found again by the content of everything that decides them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch

from testbed.arithmetic import model, splitting, task, vocabulary, warmup
from testbed.arithmetic.model import ModelConfig, model_for, parameter_count
from testbed.arithmetic.task import ArithmeticTask
from testbed.arithmetic.warmup import Accuracy, BaseModel, WarmUp, warm_up, warm_up_for

_DECIDING = (model, splitting, task, vocabulary, warmup)


def base_model(
    of: ArithmeticTask,
    config: ModelConfig | None = None,
    settings: WarmUp | None = None,
    *,
    folder: Path | str | None = None,
) -> BaseModel:
    """The base model of a task: from the cache, or warmed up and put there.

    Args:
        of: the task.
        config: of the network; by default `model_for(of)`.
        settings: of the warm-up; by default `warm_up_for(of)`.
        folder: of the cache; by default `cache_folder()`.

    Raises:
        ValueError: what `warm_up` raises.

    >>> base = base_model(ArithmeticTask(digits=1))
    >>> 0.2 < base.training.sampled < 0.6, len(base.theta)
    (True, 100608)
    """
    config, settings = _defaults(of, config, settings)
    path = (cache_folder() if folder is None else Path(folder)) / f"{content_key(of, config, settings)}.npz"
    found = _read(path, config)
    if found is None:
        found = warm_up(of, config, settings)
        _write(path, found)
    return found


def is_cached(of: ArithmeticTask, config: ModelConfig | None = None, settings: WarmUp | None = None) -> bool:
    """Whether `base_model` would find it in the cache folder."""
    config, settings = _defaults(of, config, settings)
    return (cache_folder() / f"{content_key(of, config, settings)}.npz").is_file()


def content_key(of: ArithmeticTask, config: ModelConfig, settings: WarmUp) -> str:
    """A hash of the task, the network, the warm-up, the code that decides the outcome, and PyTorch's version.

    How answers are paid does not enter: the warm-up never looks at rewards.

    >>> config, paid = model_for(ArithmeticTask()), ArithmeticTask(per_digit_credit=True)
    >>> content_key(ArithmeticTask(), config, WarmUp()) == content_key(paid, config, WarmUp())
    True
    """
    fields = {name: value for name, value in asdict(of).items() if name != "per_digit_credit"}
    content = [fields, asdict(config), asdict(settings), _code(), torch.__version__]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """The user's cache as the platform has it; `OFFPOLICY_TESTBED_CACHE` takes its place."""
    chosen = os.environ.get("OFFPOLICY_TESTBED_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "offpolicy-testbed"


def _defaults(of: ArithmeticTask, config: ModelConfig | None, settings: WarmUp | None) -> tuple[ModelConfig, WarmUp]:
    return (model_for(of) if config is None else config, warm_up_for(of) if settings is None else settings)


@cache
def _code() -> str:
    return hashlib.sha256(b"\0".join(Path(str(m.__file__)).read_bytes() for m in _DECIDING)).hexdigest()


def _read(path: Path, config: ModelConfig) -> BaseModel | None:
    """None where there is no file, or one that is damaged: it will be made again."""
    try:
        # Through memory, because NumPy leaves a damaged file open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            theta, steps = file["theta"], int(file["steps"])
            sides = [Accuracy(float(s), float(greedy), int(n)) for s, greedy, n in (file["held_out"], file["training"])]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if theta.shape != (parameter_count(config),):
        return None
    return BaseModel(config, torch.from_numpy(theta), sides[0], sides[1], steps)


def _write(path: Path, found: BaseModel) -> None:
    """Into a file of its own and then in place: readers, other writers and a kill see it whole or not at all."""
    content = io.BytesIO()
    np.savez(
        content,
        theta=found.theta.numpy(),
        held_out=found.held_out,
        training=found.training,
        steps=np.array(found.steps),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.getvalue())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
