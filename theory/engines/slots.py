"""What the recursion carries along a trajectory, as a linear system in a few scalars and vectors.

One step takes the scalars u and the vectors v of a trajectory to

    u'_i = sum over m of A_im u_m,      v'_j = sum over n of B_jn v_n + sum over m of C_jm u_m z,

with z the score of the action taken and coefficients that depend on the step only. The scalars are kappa, the product
of the earlier tokens' `before` factors, and kappa R with R the rewards so far; the vectors are kappa times the sum of
scores (for the cumulative score), X = sum of c_t z_t (for rewards that come later), and one estimator per signal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from theory.engines.cells import Cells, Coefficient
from theory.engines.problem import Problem
from theory.weights.registry import Factors

Array = NDArray[np.float64]
Entries = list[tuple[int, int, Coefficient]]


@dataclass
class Slots:
    """The linear system of a problem."""

    problem: Problem
    factors: Factors
    cells: Cells
    scalars: int = field(init=False)
    vectors: int = field(init=False)
    outputs: list[int] = field(init=False)
    """The vector slot of each signal's estimator."""

    def __post_init__(self) -> None:
        """Lay out the slots."""
        kinds = [s.kind for s in self.problem.signals]
        self._late = any(kind != "table" for kind in kinds)
        self._pays = self.problem.process.has_step_rewards
        self._with_return = "outcome" in kinds and self._pays
        self.scalars = 2 if self._with_return else 1
        self._score_slots = self.scalars if self.problem.cumulative else 0
        self._x = self._score_slots
        first = self._x + self._late
        self.outputs = list(range(first, first + len(kinds)))
        self.vectors = first + len(kinds)
        shape = (1, *self.cells.step.shape[:2], 1)
        one = np.ones(shape)
        before, after = self.factors.before, self.factors.after
        self.carries = before is not None
        self._alpha = Coefficient(one if before is None else before.reshape(shape), tag="a")
        self._beta = Coefficient(one if after is None else after.reshape(shape), tag="b")
        changes = self.problem.weight.uses_advantage or self.factors.own_of_step is not None
        self._own = None if changes else self.factors.own_at(0, self.cells.stat, np.ones((1, 1, 1, 1)))
        reward = self.problem.process.reward
        self._reward = reward[None] if reward.ndim == 3 else reward[None, :, :, None]

    def at(self, t: int) -> tuple[Entries, Entries, Entries]:
        """The entries (row, column, coefficient) of A, B and C at step t."""
        reward = Coefficient(self._reward, self.problem.process.discount**t, "r")
        A: Entries = [(i, i, self._alpha) for i in range(self.scalars)]
        if self._with_return:
            A.append((1, 0, self._alpha * reward))
        B: Entries = []
        C: Entries = []

        def drive(slot: int, scalar: int, signal: Array) -> None:
            """Add c_t * signal * u_scalar * score to a vector slot; the cumulative score adds what was summed."""
            if self.problem.position not in (None, t):
                return
            coefficient = self._weigh(t, signal)
            C.append((slot, scalar, coefficient))
            if self._score_slots:
                B.append((slot, scalar, coefficient))

        if self._score_slots:
            # kappa Z goes on as kappa (Z + z) does: the rows of A, with C for the new score.
            B += A
            C += A
        if self._late:
            B.append((self._x, self._x, self._beta))
            drive(self._x, 0, np.ones((1, 1, 1, 1)))
        for slot, signal in zip(self.outputs, self.problem.signals, strict=True):
            B.append((slot, slot, self._beta))
            if signal.kind == "table":
                assert signal.table is not None
                drive(slot, 0, signal.table(t)[None])
                continue
            gain: Array = (
                -np.asarray(signal.baseline_at(t))[None] if signal.baseline is not None else np.zeros((1, 1, 1, 1))
            )
            if self._pays:
                B.append((slot, self._x, self._beta * reward))
                gain = gain + reward.scale * reward.array
            if gain.any():
                drive(slot, 0, gain)
            if signal.kind == "outcome" and self._with_return:
                drive(slot, 1, np.ones((1, 1, 1, 1)))
        return A, B, C

    def _weigh(self, t: int, signal: Array) -> Coefficient:
        own = self.factors.own_at(t, self.cells.stat, signal) if self._own is None else self._own
        return Coefficient(np.asarray(own * signal))

    def readout(self, terminal: Array) -> Array:
        """What the estimators are of the vector slots when the episode ends, (S', n, vectors), given its last reward
        (S',)."""
        result = np.zeros((terminal.size, len(self.outputs), self.vectors))
        for o, (slot, signal) in enumerate(zip(self.outputs, self.problem.signals, strict=True)):
            result[:, o, slot] = 1.0
            if signal.kind != "table":
                result[:, o, self._x] = terminal
        return result
