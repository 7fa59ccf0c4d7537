"""Where a run stands, and its checkpoints: a file that holds all that decides what comes next."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from testbed.arithmetic.training.settings import Training
from testbed.sweep.journal import write_whole

FILE = "checkpoint.npz"


@dataclass(eq=False)
class State:
    """A run after some updates. Changed in place by `running.train`."""

    thetas: Tensor
    """(N, P) the last N = min(K, updates) + 1 policies: the one after n updates is in row n mod N."""
    leaf: Tensor
    """(P,) the policy that is trained, which the optimiser changes in place."""
    optimiser: torch.optim.AdamW
    prompt_generator: torch.Generator
    """On the CPU. Prompts and answers have their own, so that runs of one seed see the same prompts whatever is
    trained."""
    answer_generator: torch.Generator
    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    collapsed_at: int | None = None
    collapse: str | None = None
    stopped: str | None = None
    """Why no further update could be made."""
    refused: str | None = None
    """Why no exact engine takes the estimator."""
    ended: bool = False
    """Nothing comes next: all updates are made, or one could not be."""

    def ago(self, updates: int) -> tuple[Tensor, int]:
        """(P,) the policy of so many updates ago, or the first one; and how many updates ago that is."""
        lag = min(updates, self.step)
        return self.thetas[(self.step - lag) % len(self.thetas)], lag

    def keep(self) -> None:
        """Count the update that was made, and keep its policy."""
        self.step += 1
        self.thetas[self.step % len(self.thetas)] = self.leaf.detach()


def start(settings: Training, theta: Tensor) -> State:
    """A run before its first update, on the device of theta."""
    leaf = theta.detach().clone().requires_grad_()
    optimiser = torch.optim.AdamW(
        [leaf], lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=True,
        maximize=True,
    )  # fmt: skip
    thetas = theta.detach().repeat(min(settings.staleness, settings.steps) + 1, 1)
    seeds = np.random.SeedSequence(settings.seed).generate_state(2, np.uint64) >> np.uint64(1)
    return State(
        thetas, leaf, optimiser, torch.Generator().manual_seed(int(seeds[0])),
        torch.Generator(theta.device).manual_seed(int(seeds[1])),
    )  # fmt: skip


def write_checkpoint(folder: Path, state: State) -> None:
    """Put the state on disk: a reader, or a kill, sees the one before or this one."""
    adam = state.optimiser.state.get(state.leaf, {})
    progress = {
        "step": state.step, "rows": state.rows, "collapsed_at": state.collapsed_at, "collapse": state.collapse,
        "stopped": state.stopped, "refused": state.refused, "ended": state.ended,
    }  # fmt: skip
    arrays: dict[str, Any] = {
        "thetas": _array(state.thetas),
        "leaf": _array(state.leaf),
        "prompt_generator": _array(state.prompt_generator.get_state()),
        "answer_generator": _array(state.answer_generator.get_state()),
        "progress": np.array(json.dumps(progress)),
        **{f"adam_{name}": _array(value) for name, value in adam.items()},
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(folder / FILE, content.getvalue())


def read_checkpoint(folder: Path, settings: Training, theta: Tensor) -> State | None:
    """The state on disk; None where there is none.

    Raises:
        ValueError: the file is damaged or of another network.
    """
    path = folder / FILE
    if not path.exists():
        return None
    state = start(settings, theta)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        progress = json.loads(str(found["progress"]))
        state.thetas.copy_(torch.from_numpy(found["thetas"]))
        with torch.no_grad():
            state.leaf.copy_(torch.from_numpy(found["leaf"]))
        state.prompt_generator.set_state(torch.from_numpy(found["prompt_generator"]))
        state.answer_generator.set_state(torch.from_numpy(found["answer_generator"]))
    except (KeyError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as why:
        raise ValueError(f"{str(path)!r} is no checkpoint of this run: {why}; expected it, or no such file") from why
    adam: dict[str, Any] = {
        name.removeprefix("adam_"): torch.from_numpy(value) for name, value in found.items() if name.startswith("adam_")
    }
    if adam:
        whole = state.optimiser.state_dict()
        whole["state"] = {0: adam}
        state.optimiser.load_state_dict(whole)
    for name, value in progress.items():
        setattr(state, name, value)
    return state


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())
