"""Where every diagnostic of the ratios says that all is well, and the estimator points the wrong way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import theory
from testbed.environments import environment


@dataclass(frozen=True)
class BlindSpot:
    """An estimator that points the wrong way at a token where every weight is one."""

    epsilon: float
    weight: str
    truth: float
    """Gradient of the expected return in the logit of the first token's action 1: -epsilon / 2."""
    expected: float
    """What the estimator has there on average: +epsilon / 2 for corrections that leave out later tokens."""
    first_token_effective_sample_size: float
    """Of the ratios of the first token: 1, since both policies agree on it."""
    diagnostics: theory.Diagnostics
    """Of all tokens: they tend to no drift at all as epsilon tends to zero, and the sign stays wrong."""

    @property
    def wrong_sign(self) -> bool:
        """Whether the estimator moves the first token's logit the wrong way."""
        return self.truth * self.expected < 0.0


def blind_spot(weight: Any = "prefix", signal: Any = "outcome", *, epsilon: float = 0.1) -> BlindSpot:
    """The two-token counterexample: a full effective sample size on the first token, and the wrong sign there.

    The policies agree on the first token and disagree on the second, so that what the first one leads to is not what
    the data show. No statistic of the first token's weight can see it; `testbed.environment_cards()` has the source.

    Raises:
        ValueError: an unknown name, or an epsilon outside of (0, 1/2).
    """
    task = environment("two_token_counterexample", epsilon=epsilon)
    assert task.behaviour is not None
    estimator = theory.Estimator(weight, signal)
    m = theory.moments(task.process, task.target, task.behaviour, estimator)
    start = int(np.argmax(task.process.initial))
    index = start * task.process.actions + 1
    mu, pi = task.behaviour.probabilities[start], task.target.probabilities[start]
    return BlindSpot(
        epsilon,
        estimator.weight.label,
        float(m.gradient[index]),
        float(m.mean[index]),
        float(pi.sum() ** 2 / (pi**2 / mu).sum()),
        theory.diagnostics(task.process, task.target, task.behaviour, estimator.weight, signal=estimator.signal),
    )
