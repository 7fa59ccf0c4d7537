"""`testbed.audit`: a loss of the user against the truth and against every named estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from testbed import spelling
from testbed.auditing.decomposing import causes, in_theory
from testbed.auditing.examining import examined
from testbed.auditing.expectation import expected
from testbed.auditing.loss import as_loss, import_torch
from testbed.auditing.record import Audit
from testbed.auditing.setting import setting


def audit(
    loss: Callable[..., Any] | str,
    *,
    options: Mapping[str, Any] | None = None,
    environment: Any = "token_tree(depth=4)",
    drift: str = "noise",
    kl: float = 0.1,
    seed: int = 0,
    signal: Any = "target_advantage",
    batch: int | None = None,
    draws: int = 2000,
    expect: str = "",
    reduction: str = "",
    progress: Callable[[str], None] = lambda step: None,
) -> Audit:
    """What a policy loss really ascends: its coefficients, its name, its exact bias and variance, and its mistakes.

    A loss is a function whose parameters are matched by name: `logp` (requires grad), `old_logp`, `rollout_logp`,
    `advantages` and `mask`, all (N, T) tensors of float64; it returns a scalar, to be minimised. Its ascent direction
    is g_hat = -sum over t of (d loss / d logp_t) z_t, and c_t = -(d loss / d logp_t) / A_t are its coefficients.

    The expectation is over every draw of trajectories, each of which goes through the loss once, or over sampled draws
    with standard errors where they are too many or the loss draws random numbers; `Audit.moments.engine` says which.
    `old_logp` is that of mu, unless the loss also takes `rollout_logp`: then it is the geometric mean of target and mu.

    Args:
        loss: the function, or "package.module:function".
        options: values of its other parameters.
        environment: an environment, or its name with options, such as "brackets(horizon=6)".
        drift: a kind of drift, with options, or "given" where the environment brings mu. A strength, or what says the
            same, such as "top_p(p=0.9)", takes the place of `kl`; lost support is allowed and reported.
        kl: KL(mu || pi) per token, in nats.
        seed: of a random drift, and of sampled draws.
        signal: what `advantages` holds: a name with options such as "outcome" or "group(size=2)".
        batch: trajectories in one call of the loss; by default 1, the group's size, or 2 where sequences couple.
        draws: how many to sample where not all can be visited; 50 times as many where sequences do not couple, since
            such draws share calls of the loss.
        expect: a named weight to compare with, such as "ppo_clip(clip=(0.8, 1.28))"; see `Audit.expected`.
        reduction: the reduction that is expected: "sum", "length_mean", "constant", "token_mean", or one of
            `testbed.auditing.reductions.REDUCTIONS`.
        progress: called with what is done next, in a few words.

    Raises:
        ValueError: PyTorch is missing; the loss cannot be imported, has a parameter that nothing fills, fails, returns
            no scalar or is not differentiable; or a name or option is unknown.
    """
    torch = import_torch()
    function = spelling.function_at(loss) if isinstance(loss, str) else loss
    mine = as_loss(function, options, loss.rpartition(":")[2] if isinstance(loss, str) else "")
    with _one_thread(torch), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = examined(mine, expect, reduction, progress)
        progress("expected step")
        separate = not found.random and found.coupling is not None and not found.coupling.couples
        coupled = found.coupling is not None and found.coupling.couples
        where = setting(mine, environment, drift, kl, seed, signal, batch, coupled)
        answer = expected(mine, where, separate, draws, seed, remains=found.remains, random=found.random)
    best = found.nearest
    estimator = in_theory(best, where) if best is not None and best.exact else None
    return Audit(
        loss=mine.name,
        takes=mine.takes,
        options=mine.options,
        setting=where.label,
        moments=answer.moments,
        baseline_leak=answer.leak,
        causes=causes(answer.moments, estimator, where),
        equals=found.equals,
        nearest=best,
        presets=found.presets,
        per_token_advantages=found.by_token,
        tokens=found.tokens,
        mask=found.mask,
        advantages=found.advantages,
        level=found.level,
        coupling=found.coupling,
        micro_batches=found.micro_batches,
        robustness=found.robustness,
        findings=found.findings,
        tried=found.tried,
        expected=found.expected,
        _evidence=found.seen,
    )


@contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Two threads on small matrices are slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
